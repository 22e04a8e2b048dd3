"""How long the stages will take, and how much memory: from the size of the data, and from some work of each kind.

The model is built and some of its training and evaluation is done, on rows that are read and prepared for it in a folder of
their own; nothing of it is kept. What only a trained model tells is taken from experience: when a training stops by itself,
and how many rows have to be annealed again.
"""

from __future__ import annotations

import contextlib
import io
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import joblib
import psutil
from threadpoolctl import threadpool_limits

from pipeline.base.compute import use_threads
from pipeline.evaluation.baselines import ENOUGH
from pipeline.evaluation.workers import workers_here
from pipeline.foretelling.excerpt import Excerpt
from pipeline.foretelling.portions import Evaluation, Trial, seconds_of
from pipeline.foretelling.training import epoch_seconds
from pipeline.model.building import build
from pipeline.params.whole import Params
from pipeline.reading.columns.kept import IN_MEMORY
from pipeline.reading.formats.reader import batch_rows
from vae.model.latent_model import LatentModel
from vae.training.rows.mapped import POOL

# measured on the presets
RAN = 0.7  # of the epochs asked for, where a training may stop early: they ran 42 to 100 % of these
REPEATED = 0.3  # cost of what is annealed again over that of the first runs: 0 to 6
BESIDE = {"prepare": 0.2, "train": 1.6, "evaluate": 2.5, "generate": 0.6}  # start and figures, over this process's start
GIB = 2**30
WITHOUT_TORCH, WORKER = 0.15 * GIB, 0.14 * GIB  # of a process
OF_BLOCK = 6  # arrays of eight bytes, as large as a block of the table, while it is prepared
OF_EACH, OF_FITTED = 500, 2  # bytes of what is known of a test row, and arrays of the rows that baselines are fitted to
OF_ROWS = 5  # arrays of the training rows, while they are checked and trained on


@dataclass(frozen=True)
class Expected:
    """What a stage will take.

    Attributes:
        seconds: About.
        most: Seconds if it takes as long as it may.
        size: Bytes of memory, of all of its processes.
        note: What that depends on.
    """

    seconds: float
    most: float
    size: float
    note: str = ""


def forecast(params: Params, stages: Sequence[str]) -> dict[str, Expected]:
    """What some stages will take, by their names.

    Raises:
        InputError: If the rows that are looked at are not as they should be, or the model does not suit them.
    """
    started = time.process_time()
    with TemporaryDirectory(prefix="evidence-") as name, _unseen():
        use_threads(params.threads or 1)
        pilot = Pilot(params, Path(name), started)
        foretold = {"prepare": pilot.prepare, "train": pilot.train, "evaluate": pilot.evaluate, "generate": pilot.generate}
        return {stage: foretold[stage]() for stage in stages}


def lines(expected: Mapping[str, Expected], seconds: float) -> Iterator[str]:
    """The forecast as a table, after a pilot of some seconds."""
    yield (
        f"what `dvc repro` will take on {joblib.cpu_count()} cores with nothing else to do, about: half or twice as much is "
        f"possible (a pilot of {seconds:.0f} seconds)"
    )
    yield f"  {'stage':<10}{'minutes':>8}{'at most':>9}{'GiB':>6}"
    for stage, taken in expected.items():
        most = f"{taken.most / 60:.1f}" if taken.most > taken.seconds else ""
        yield f"  {stage:<10}{taken.seconds / 60:>8.1f}{most:>9}{taken.size / GIB:>6.1f}   {taken.note}".rstrip()
    if len(expected) > 1:
        yield f"  {'together':<10}{sum(taken.seconds for taken in expected.values()) / 60:>8.1f}"


class Pilot:
    """Some work of each kind that the stages do.

    Args:
        params: The params.
        folder: Where the rows are kept that it is done on; empty.
        start: Seconds that this process took to start, by which the machine's speed is known.
    """

    def __init__(self, params: Params, folder: Path, start: float) -> None:
        self.params, self.start = params, start
        self.excerpt = Excerpt.of(params.data, params.seed, folder)
        self.rows, self.D = self.excerpt.rows, len(self.excerpt.schema.columns)
        self.vae = build(params, self.excerpt.schema, params.data.path, folder)
        self.size = psutil.Process().memory_info().rss

    def prepare(self) -> Expected:
        """Of the first stage."""
        N = sum(self.rows.values())
        size = WITHOUT_TORCH + min(IN_MEMORY, 8 * N * self.D) + OF_BLOCK * 8 * min(N, batch_rows(self.D)) * self.D
        return self._expected("prepare", self.excerpt.seconds, self.excerpt.seconds, size, f"{N:,} rows, {self.D} columns")

    def train(self) -> Expected:
        """Of the second."""
        train = self.params.train
        epochs = train.max_epochs * (1 if train.patience is None else RAN)
        epoch = epoch_seconds(self.vae, self.params, self.excerpt)
        held = 4 * self.rows["train"] * self.D
        size = self.size + (OF_ROWS * held if held <= train.memory_gib * GIB else 3 * POOL)
        note = f"{round(epochs)} of at most {train.max_epochs} epochs" if train.patience else f"{train.max_epochs} epochs"
        return self._expected("train", epochs * epoch, train.max_epochs * epoch, size, note)

    def evaluate(self) -> Expected:
        """Of the third."""
        use_threads(1)
        self.vae.eval()
        workers, extra = workers_here(self.params.workers), self.params.evaluate.annealing.extra
        with threadpool_limits(1):
            steps = Evaluation(self.vae, self.params, self.excerpt).steps()
            usual = seconds_of(steps, workers, min(REPEATED, extra))
        most = seconds_of(steps, workers, extra)
        fitted = 8 * self.D * min(self.rows["train"], ENOUGH)
        size = self.size + (workers > 1) * (workers + 1) * WORKER + OF_EACH * self.rows["test"] + OF_FITTED * fitted
        return self._expected("evaluate", usual, most, size, f"{workers} worker{'s' * (workers > 1)}")

    def generate(self) -> Expected:
        """Of the last."""
        use_threads(1)
        N, few = self.params.generate.samples, min(self.params.generate.samples, 1000)
        model: LatentModel = self.vae
        seconds = N * Trial("samples", few, partial(model.generate, few)).seconds
        return self._expected("generate", seconds, seconds, self.size + 3 * 4 * self.D * N, f"{N:,} samples")

    def _expected(self, stage: str, seconds: float, most: float, size: float, note: str) -> Expected:
        beside = BESIDE[stage] * self.start
        return Expected(beside + seconds, beside + most, size, note)


@contextlib.contextmanager
def _unseen() -> Iterator[None]:
    """Without what would be said of the work itself, which is of no interest."""
    silent = io.StringIO()
    with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
