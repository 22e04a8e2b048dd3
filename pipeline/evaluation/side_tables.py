"""Tables of the evaluation beside that of the test rows: of latent dimensions, and of numbers of samples."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from torch import Tensor

from pipeline.evaluation.metrics import pair
from pipeline.evaluation.report import Report
from vae.evidence import Latents


def latent_dimensions(latents: Latents) -> pd.DataFrame:
    """A row per latent dimension; the KLs are empty where they are not defined."""
    names = ("mean_variance", "kl", "aggregate_mean", "aggregate_variance", "marginal_kl")
    columns = {name: value.cpu().numpy() for name in names if (value := getattr(latents, name)) is not None}
    return pd.DataFrame({"dimension": np.arange(1, len(latents.mean_variance) + 1), **columns})


def importance_ladder(report: Report) -> pd.DataFrame:
    """Importance sampling by number of samples."""
    importance = report.findings.importance
    return _ladder(report, importance.ladder.items() if importance else ())


def prior_ladder(report: Report) -> pd.DataFrame:
    """Prior sampling by number of samples."""
    prior = report.findings.prior
    estimates = [*report.findings.prior_ladder, *([prior] if prior else [])]
    return _ladder(report, [(estimate.samples, estimate.log_likelihood) for estimate in estimates])


def _ladder(report: Report, rungs: Iterable[tuple[int, Tensor]]) -> pd.DataFrame:
    rows = [{"samples": samples} | pair(report.over(values)) for samples, values in rungs]
    return pd.DataFrame(rows, columns=["samples", "mean", "standard_error"])
