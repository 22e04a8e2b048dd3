"""The rows that a model finds least likely, and which of their values make them so."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from pipeline.tables.statistics import Moments

ODDEST = 10


@dataclass
class Summary:
    """The mean of log p over all rows, and the rows that are oddest.

    Attributes:
        moments: Of log p.
        oddest: Scores of the least likely rows.
        values: Their values.
        usual: Median scores of the first rows.
    """

    moments: Moments = field(default_factory=Moments)
    oddest: pd.DataFrame = field(default_factory=pd.DataFrame)
    values: pd.DataFrame = field(default_factory=pd.DataFrame)
    usual: pd.Series | None = None

    def add(self, scores: pd.DataFrame, values: pd.DataFrame) -> None:
        """Add rows."""
        self.moments += Moments.of(scores["log_likelihood"].to_numpy())
        self.usual = scores.median() if self.usual is None else self.usual
        scores, values = (
            pd.concat([held, new.reset_index(drop=True)], ignore_index=True)
            for held, new in ((self.oddest, scores), (self.values, values))
        )
        least = scores["log_likelihood"].nsmallest(ODDEST).index
        self.oddest, self.values = scores.loc[least], values.loc[least]

    def show(self, target: Path, samples: int, unit: str = "nats per row") -> None:
        """Print what came out and where it is."""
        count, error = self.moments.count, self.moments.std / max(1, self.moments.count - 1) ** 0.5
        table = Table(title="least likely rows", title_justify="left")
        for heading in ("row", "log p", "oddest value", "log p of it"):
            table.add_column(heading, justify="left" if heading == "oddest value" else "right")
        for at, row in self.oddest.iterrows():
            name, part = self._oddest(row)
            value = "" if name is None else f"{name} = {self.values.loc[at, name]}"  # type: ignore[index]
            table.add_row(f"{int(row['index']) + 1}", f"{row['log_likelihood']:.2f}", value, part)
        Console(highlight=False, markup=False).print(table)
        print(f"scored {count:,} rows: log-likelihood {self.moments.mean:.2f} ± {error:.2f} {unit}")
        print(f"by importance sampling with {samples} samples, which is a lower bound in expectation; each row is in {target}")

    def _oddest(self, row: pd.Series) -> tuple[str | None, str]:
        """The column whose value is most unlike what is usual in it, and its log p; rather given the rest of its row."""
        for what in ("given_rest_", "reconstruction_"):
            parts = row[[name for name in row.index if name.startswith(what)]]
            if len(parts) and self.usual is not None:
                name = str((parts - self.usual[parts.index]).astype(float).idxmin())
                return name.removeprefix(what), f"{parts[name]:.2f}"
        return None, ""
