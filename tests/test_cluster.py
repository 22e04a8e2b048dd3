"""A Dask cluster of this machine: the bytes of the path without one, whatever becomes of its workers, and who is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import score
from pipeline.base.errors import InputError
from pipeline.cluster import likeness
from pipeline.cluster.connection import ADDRESS
from pipeline.dvc.formats import md5
from pipeline.evaluation.pieces import Pieces
from pipeline.evaluation.workers import Workers
from pipeline.experiment.saved import FRESH
from pipeline.stages import evaluate, prepare, train
from tests.test_program import COLUMNS, big_table
from tests.test_workers import SLOW, TOLD, end, power, refused
from tests.workspace import ROOT, mixed_table, table, write_params, write_table

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("dask.distributed")
pytestmark = pytest.mark.filterwarnings("default")  # of the cluster's own
NOWHERE = "tcp://127.0.0.1:9"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two workers with two threads each; a task that has killed two of them is given up."""
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        distributed.LocalCluster(n_workers=2, threads_per_worker=2, processes=True, dashboard_address=None) as made,
    ):
        yield made


@pytest.fixture
def address(cluster: Any) -> str:
    deadline = time.monotonic() + 60
    while len(cluster.scheduler.workers) < 2:  # one may have been killed by another test
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return cluster.scheduler_address


@pytest.fixture
def empty() -> Iterator[Any]:
    """A scheduler without workers, in this process."""
    with distributed.LocalCluster(n_workers=0, threads_per_worker=1, processes=True, dashboard_address=None) as made:
        yield made


def prepared(**changes: Any) -> dict[str, str]:
    write_params(Path(), **{"data.path": "data/raw/parts", "data.columns": COLUMNS, **changes})
    prepare.main()
    return {path.name: md5(path) for path in Path("data/prepared").iterdir()}


SPLITS_BY = [{"together": "copies"}, {"hash": "age"}, {"hash": True}]


@pytest.mark.parametrize(
    "changes", [{}, {"data.split": {"stratify": "ward"}, "data.exclude": ["sex"]}, *({"data.split": by} for by in SPLITS_BY)]
)
def test_a_cluster_makes_the_same_bytes(
    changes: dict[str, Any], address: str, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of files whose row groups are cut elsewhere than the blocks."""
    folder = workspace / "data/raw/parts"
    folder.mkdir(parents=True)
    for number, (first, last) in enumerate(((0, 10), (10, 300), (300, 500))):
        big_table()[first:last].to_parquet(folder / f"{number}.parquet", index=False, row_group_size=70)
    monkeypatch.setattr("pipeline.reading.formats.reader.ROWS", 64)  # of the caller, who cuts the blocks
    alone = prepared(**changes)
    monkeypatch.setenv(ADDRESS, address)
    assert prepared(**changes) == alone


def test_errors_of_workers_are_the_users(address: str, workspace: Path) -> None:
    frame = big_table().astype({"visits": float})
    frame.loc[333, "visits"] = 1.5
    write_table(workspace, frame, "table.parquet")
    write_params(
        workspace, **{"data.path": "data/raw/table.parquet", "data.columns": {"visits": "count"}, "data.cluster": address}
    )
    with pytest.raises(InputError, match="column 'visits', row 334: a count must be a whole number"):
        prepare.main()
    assert not (workspace / "data/prepared").exists()


def test_a_table_that_workers_cannot_read_in_parts_is_prepared_here(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_table(workspace)
    write_params(workspace, cluster=NOWHERE)
    prepare.main()
    said = "cluster: data/raw/table.csv is not Parquet, which workers can read in parts: this machine prepares it\n"
    assert said in capsys.readouterr().out


def test_an_evaluation_and_scores_on_a_cluster_of_which_a_worker_is_killed_have_the_same_bytes(
    cluster: Any, address: str, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a table with gaps, in blocks of a few rows each; the worker is killed while it has parts to compute."""
    raw = write_table(workspace, mixed_table(rows=120, gaps=True))
    annealing = {"chains": 10, "temperatures": 6, "leapfrog_steps": 1, "bounds_examples": 20, "extra": 6.0}
    changes = {"model.likelihood": {"name": "mixed"}, "evaluate.annealing": annealing}
    write_params(workspace, **changes)
    monkeypatch.setattr("pipeline.evaluation.estimation.rows_per_block", lambda vae, draws: 7)
    monkeypatch.setenv(FRESH, "1")  # nothing is taken over from the first evaluation
    prepare.main()
    train.main()

    def made(*options: str) -> dict[str, bytes]:
        evaluate.main()
        score.main(score.parser().parse_args([str(raw), "--out", "scores.csv", "--samples", "20", *options]))
        return {path.name: path.read_bytes() for path in (*Path("results/evaluate").iterdir(), Path("scores.csv"))}

    alone = made()
    assert {"examples.parquet", "imputed.csv", "metrics.json", "record.json"} <= alone.keys()
    killed = list[int]()
    kept = Pieces.kept

    def kept_and_killed(pieces: Pieces, name: str, value: Any) -> Any:
        for nanny in () if killed else cluster.workers.values():
            if cluster.scheduler.workers[nanny.worker_address].processing:
                killed.append(nanny.pid)
                os.kill(nanny.pid, signal.SIGKILL)
                break
        return kept(pieces, name, value)

    monkeypatch.setattr(Pieces, "kept", kept_and_killed)
    write_params(workspace, **changes, cluster=address)
    assert made("--cluster", address) == alone
    assert killed


def widen(given: int) -> None:
    torch.set_num_threads(2)


def killing(given: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_calls_give_what_they_give_with_one_thread(address: str) -> None:
    calls = [(f"call {k}", partial(power, exponent=k, seconds=0.2)) for k in range(12)]
    with distributed.Client(address) as client:
        there = set(client.run(os.getpid).values())
    with Workers(1, 2, address) as workers:
        list(workers.compute([(f"wide {k}", widen) for k in range(4)]))
        powers, threads, processes = zip(*workers.in_order(calls), strict=True)
        with pytest.raises(InputError, match="not 2"):
            list(workers.compute([("refused", refused)]))
    assert list(powers) == [2**k for k in range(12)]
    assert set(threads) == {1}
    assert len(there) == 2
    assert set(processes) <= there  # both, unless the scheduler thinks that one is busy
    assert os.getpid() not in processes


def test_a_part_that_kills_worker_after_worker_ends_with_what_to_do(address: str) -> None:
    said = r"cluster: 2 workers were killed while they computed the fatal part \(\w{8}\), the last of them tcp://"
    with (
        pytest.raises(InputError, match=said),
        Workers(1, 2, address) as workers,
    ):
        list(workers.compute([("the fatal part", killing)]))


@pytest.mark.parametrize("wrong", [NOWHERE, "scheduler", "smtp://127.0.0.1:9"])
def test_a_scheduler_that_does_not_answer_is_named_in_time(wrong: str) -> None:
    begin = time.monotonic()
    with (
        pytest.raises(InputError, match=f"cluster: no Dask scheduler answers at {wrong} .*or set `cluster: null`"),
        Workers(1, 2, wrong),
    ):
        pass
    assert time.monotonic() - begin < 20


def test_without_dask_the_remedy_is_named() -> None:
    program = "import sys; sys.modules['dask.distributed'] = None; from pipeline.cluster.connection import connected as on"
    command = [sys.executable, "-c", f"{program}\nwith on('{NOWHERE}'): pass"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert re.search(
        r"InputError: cluster: needs Dask .*`pip install '\.\[cluster\]'` in the folder of the project", done.stderr
    )


@contextmanager
def worker(address: str, folder: Path, **environment: str) -> Iterator[None]:
    """A worker that was started in a folder."""
    command = [sys.executable, "-m", "dask", "worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
    nothing = subprocess.DEVNULL
    process = subprocess.Popen(command, cwd=folder, env=os.environ | environment, stdout=nothing, stderr=nothing)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def test_workers_that_come_late_are_waited_for_and_other_instructions_noted(
    empty: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        Workers(1, 2, empty.scheduler_address) as workers,
        worker(empty.scheduler_address, ROOT, ATEN_CPU_CAPABILITY="default"),
    ):
        powers = [found[0] for found in workers.in_order((f"call {k}", partial(power, exponent=k)) for k in range(5))]
    assert powers == [1, 2, 4, 8, 16]
    said = capsys.readouterr().out
    assert said.count("has no workers; waiting for some (`python -m dask worker tcp://127.0.0.1:") == 1
    assert said.count("computes by DEFAULT, this machine by ") == (torch.backends.cpu.get_cpu_capability() != "DEFAULT")


def test_workers_with_other_code_or_versions_or_none_are_refused_with_both(empty: Any, tmp_path: Path) -> None:
    edited, old, bare = tmp_path / "edited", tmp_path / "old", tmp_path / "bare"
    for folder in ("vae", "pipeline"):
        shutil.copytree(ROOT / folder, edited / folder, ignore=shutil.ignore_patterns("__pycache__"))
    with (edited / "vae/errors.py").open("a") as file:
        file.write("# edited\n")
    bare.mkdir()
    (old / "pyarrow-1.2.3.dist-info").mkdir(parents=True)
    (old / "pyarrow-1.2.3.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: pyarrow\nVersion: 1.2.3\n")
    ours = likeness.versions()["pyarrow"]
    differing = r"1 files of vae/ and pipeline/ differ, vae/errors.py among them \(SHA-256 \w+ there, \w+ here\)"
    no_project = r"cannot load this project \(No module named 'pipeline'\); start it with `python -m dask worker"
    cases: list[tuple[Path, dict[str, str], str]] = [
        (edited, {}, f"has other code in .*/edited: {differing}"),
        (old, {"PYTHONPATH": f"{old}:{ROOT}"}, rf"the worker tcp://\S+ has pyarrow 1\.2\.3, not {ours}, as this process has"),
        (bare, {}, rf"the worker tcp://\S+, in .*/bare, {no_project}"),
    ]
    for case, environment, said in cases:
        with (
            worker(empty.scheduler_address, case, **environment),
            pytest.raises(InputError, match=said),
            Workers(1, 2, empty.scheduler_address) as workers,
        ):
            list(workers.compute([("call", partial(power, exponent=3))]))


def test_a_worker_that_loaded_other_code_before_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    sender = likeness.Sender("start", tuple(likeness.versions().items()), tuple(likeness.code().items()))
    likeness.refuse_others(sender, "tcp://here")
    monkeypatch.setattr(likeness, "loaded_code", lambda: likeness.code() | {"vae/errors.py": "older"})
    with pytest.raises(InputError, match=r"other code loaded before in .*vae/errors.py .* start its workers again"):
        likeness.refuse_others(sender._replace(start="another"), "tcp://here")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_evaluation_on_a_cluster_ends_at_once_and_keeps_what_is_done(
    empty: Any, workspace: Path, number: signal.Signals
) -> None:
    empty.scale(2)
    write_table(workspace, table(rows=200))
    write_params(
        workspace,
        **{"evaluate.annealing": SLOW, "evaluate.estimators": ["importance", "annealed"], "cluster": empty.scheduler_address},
    )
    prepare.main()
    train.main()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "EVIDENCE_SAVE_SECONDS": "1"}
    command = [sys.executable, "-m", "pipeline.evaluate"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(Path(".evidence/saved").glob("evaluate-*/*.state")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert TOLD in end(process, number)


@pytest.mark.slow
def test_a_scheduler_that_is_lost_ends_with_what_to_do(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dask", "scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", "made.json"]
    scheduler = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (tmp_path / "made.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(1)
    address = json.loads((tmp_path / "made.json").read_text())["address"]
    threading.Timer(8, scheduler.kill).start()
    with (
        worker(address, ROOT),
        pytest.raises(InputError, match=f"cluster: the scheduler at {address} was lost .* what is done is kept"),
        Workers(1, 2, address) as workers,
    ):
        list(workers.compute([("call", partial(power, exponent=3, seconds=60))]))
    scheduler.wait()
