"""How often "can be trusted" is wrong, and how often it is withheld in vain: on models whose log p(y) is known.

    python benchmarks/verdict.py [--quick] [--json FILE] [--seeds 3] [--only NAME ...] [--jobs 1] [--extra 6] [--annealed]
        [--reasons]

Runs `vae.evidence.assess` on every kind of problem in `tests/adversaries`, with several seeds, of the problem and of the
estimate. Seeds of one kind are alike, so that shares are given over kinds too: a kind counts as wrong if any of its seeds is.
Kinds that are hidden by construction, as no estimator can know of what nothing reaches, are shown and counted apart.
Errors are reported minus exact mean, in nats: the median over seeds, the worst, and that of the worst row. A kind is marked
WRONG where a seed is trusted and its mean off by more than 0.2 nats, and "in vain" where it is right and not trusted.
Where there are exact values these are reported, as everywhere; with ``--annealed`` annealing is held to its rules there too.
``--quick`` takes some of the kinds, with few chains and temperatures.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the repository is not an installed package

from benchmarks.report import Report, options
from tests.adversaries import KINDS
from vae.evidence import Annealing, assess

TOLERANCE = 0.2  # nats, what the verdict promises
FAR = 1.0  # nats, by which it must never be wrong
QUICK_KINDS = 18  # one kind in so many
QUICK: dict[str, Any] = {
    "chains": 10,  # with fewer no row has an error, and nothing is trusted
    "annealing": Annealing(temperatures=60, leapfrog_steps=2),
    "bounds_examples": 30,
    "extra": 0.5,
}


@dataclass(frozen=True)
class Run:
    """What came out for a kind and a seed.

    Attributes:
        kind: Its name in `tests.adversaries.KINDS`.
        hidden: Whether nobody can know.
        exact: Whether exact values were reported.
        trusted: Whether the verdict was "can be trusted".
        error: Reported minus exact mean, nats.
        worst_row: The largest error of a row, nats.
        reasons: Why it was not trusted.
        decoder_runs: Of the generative network, as the assessment counts them.
        seconds: That the assessment took.
    """

    kind: str
    hidden: bool
    exact: bool
    trusted: bool
    error: float
    worst_row: float
    reasons: tuple[str, ...]
    decoder_runs: int
    seconds: float

    @property
    def right(self) -> bool:
        """Whether the reported mean is within the tolerance; one that is not a number is not."""
        return abs(self.error) <= TOLERANCE


def main() -> None:
    """Run, and print two tables."""
    parsed, report = parse(), Report()
    kinds = parsed.only or list(KINDS)[:: QUICK_KINDS if parsed.quick else 1]
    settings: dict[str, Any] = {"use_exact": not parsed.annealed}
    settings |= {} if parsed.extra is None else {"extra": parsed.extra}
    seeds, settings = (1, QUICK | settings) if parsed.quick else (parsed.seeds, settings)
    runs = list(every(partial(judge, **settings), kinds, seeds, parsed.jobs))
    by_kind = {kind: list(some) for kind, some in groupby(runs, key=lambda run: run.kind)}
    report.table("By kind", COLUMNS, [line(kind, some) for kind, some in by_kind.items()])
    for kind, some in by_kind.items():
        report.add(f"verdict_{kind}_trusted_share", statistics.mean(run.trusted for run in some))
        report.add(f"verdict_{kind}_largest_error", max((run.error for run in some), key=abs))
    if parsed.reasons:
        report.table("Why not trusted", ("kind", "reasons"), list(refusals(by_kind)))
    summarise(report, runs)
    if parsed.json:
        report.write(parsed.json)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = options(__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="of each kind")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=list(KINDS), help="which kinds; all by default")
    parser.add_argument("--jobs", type=int, default=1, help="processes, each with one thread")
    parser.add_argument(
        "--extra", type=float, help="what disputed rows may cost over the first runs; as `assess` has it by default"
    )
    parser.add_argument("--annealed", action="store_true", help="without the exact values, also where there are any")
    parser.add_argument("--reasons", action="store_true", help="print why kinds were not trusted")
    return parser.parse_args()


def every(work: Callable[[tuple[str, int]], Run], kinds: Sequence[str], seeds: int, jobs: int) -> Iterator[Run]:
    """All seeds of all kinds, in order; progress goes to standard error."""
    tasks = [(kind, seed) for kind in kinds for seed in range(seeds)]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for done, run in enumerate(pool.map(work, tasks), 1):
            verdict = "trusted" if run.trusted else "not trusted"
            by = "exact, " if run.exact else ""
            said = f"{run.kind}, {by}{verdict}, {run.error:+.3f} nats, {run.seconds:.0f} s"
            print(f"{done} of {len(tasks)}: {said}", file=sys.stderr)
            yield run


def judge(task: tuple[str, int], **settings: Any) -> Run:
    """Of a kind and a seed."""
    kind, seed = task
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they tell of traps, which these are
        problem = KINDS[kind](seed)
        begin = time.perf_counter()
        assessment = assess(problem.vae, problem.y, pilot=problem.pilot, seed=seed, tolerance=TOLERANCE, **settings)
        seconds = time.perf_counter() - begin
    off = assessment.log_likelihood.double().cpu().numpy() - problem.log_likelihood
    error, verdict = assessment.mean.mean - float(problem.log_likelihood.mean()), assessment.verdict
    worst = float(off[abs(off).argmax()])
    exact = assessment.exact is not None
    return Run(kind, problem.hidden, exact, verdict.trusted, error, worst, verdict.reasons, assessment.decoder_runs, seconds)


COLUMNS = ("kind", "trusted", "error", "worst", "row", "", "s")


def line(kind: str, runs: Sequence[Run]) -> tuple[str, ...]:
    """A row of the table: how many seeds were trusted, and errors, reported minus exact, nats."""
    worst = max((run.error for run in runs), key=abs)
    return (
        kind,
        f"{sum(run.trusted for run in runs)} of {len(runs)}",
        f"{statistics.median(run.error for run in runs):+.3f}",
        f"{worst:+.3f}",
        f"{max((run.worst_row for run in runs), key=abs):+.2f}",
        remark(runs),
        f"{sum(run.seconds for run in runs):.0f}",
    )


def remark(runs: Sequence[Run]) -> str:
    """What is to be seen at a glance."""
    wrong = any(run.trusted and not run.right for run in runs)
    in_vain = any(run.right and not run.trusted for run in runs)
    return " ".join(["exact"] * runs[0].exact + ["hidden"] * runs[0].hidden + ["WRONG"] * wrong + ["in vain"] * in_vain)


def refusals(by_kind: dict[str, list[Run]]) -> Iterator[tuple[str, str]]:
    """Kinds with the reasons of their seeds, each once."""
    for kind, runs in by_kind.items():
        reasons = dict.fromkeys(reason for run in runs for reason in run.reasons)
        if reasons:
            yield kind, "\n".join(reasons)


def summarise(report: Report, runs: Sequence[Run]) -> None:
    """Shares over runs and over kinds, in which any seed counts."""
    known = [run for run in runs if not run.hidden]
    trusted, right = [run for run in known if run.trusted], [run for run in known if run.right]
    wrong, vain = [run for run in trusted if not run.right], [run for run in right if not run.trusted]
    far = [run for run in trusted if not abs(run.error) <= FAR]
    lines = [
        ("runs, and kinds", str(len(known)), str(len(kinds_of(known)))),
        ("of these by exact values", *shares([run for run in known if run.exact], known)),
        ("trusted", str(len(trusted)), str(len(kinds_of(trusted)))),
        (f"of these wrong by more than {TOLERANCE} nats", *shares(wrong, trusted)),
        (f"of these wrong by more than {FAR:g} nat", *shares(far, trusted)),
        ("right", str(len(right)), str(len(kinds_of(right)))),
        ("of these not trusted", *shares(vain, right)),
    ]
    hidden = [run for run in runs if run.hidden]
    if hidden:
        lines.append(("hidden, and of these trusted", *shares([run for run in hidden if run.trusted], hidden)))
    report.table("The verdict", ("", "runs", "kinds"), lines)
    seconds, decoder_runs = sum(run.seconds for run in runs), sum(run.decoder_runs for run in runs)
    report.say(f"{seconds:,.0f} seconds and {decoder_runs:,} runs of the generative network in all.")
    for name, some, base in (("trusted_wrong", wrong, trusted), ("trusted_far", far, trusted), ("right_refused", vain, right)):
        report.add(f"verdict_{name}_share_of_runs", len(some) / max(1, len(base)))
        report.add(f"verdict_{name}_share_of_kinds", len(kinds_of(some)) / max(1, len(kinds_of(base))))
    report.add("verdict_runs", len(known))
    report.add("verdict_seconds", seconds)
    report.add("verdict_decoder_runs", decoder_runs)


def shares(some: Sequence[Run], base: Sequence[Run]) -> tuple[str, str]:
    """How many runs, and kinds, and of how many."""
    return _share(len(some), len(base)), _share(len(kinds_of(some)), len(kinds_of(base)))


def kinds_of(runs: Iterable[Run]) -> set[str]:
    """Their names."""
    return {run.kind for run in runs}


def _share(count: int, base: int) -> str:
    return f"{count} of {base} ({count / max(1, base):.1%})"


if __name__ == "__main__":
    main()
