"""An interrupted fit or evaluation goes on to the bytes of an uninterrupted one, and from nothing but its own intact state."""

from __future__ import annotations

import copy
import hashlib
import io
import os
import pickle
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from pipeline.base.environment import facts
from pipeline.evaluation.computations import Computation
from pipeline.evaluation.estimation import Estimation
from pipeline.evaluation.pieces import Pieces, decoded, encoded
from pipeline.experiment.records import declared, digest
from pipeline.experiment.saved import Saved, forget, leftovers, remove, saved_folder
from pipeline.stages import evaluate, prepare, train
from tests.anchors import rows_for, small_vae
from tests.workspace import ROOT, table, write_params, write_table
from vae import VAE
from vae.evidence import Chains, Estimate, annealed_importance_sampling, bidirectional_bounds, importance_sampling
from vae.evidence.verdict.judgement import Judgement

GAUSSIAN = {"name": "gaussian"}
State = dict[str, Any]


class Memory:
    """Snapshots that stand in memory, and a machine that fails after so many of them."""

    def __init__(self, fails_after: int | None = None) -> None:
        self.states: list[State] = []
        self.fails_after = fails_after

    def load(self, check: Callable[[State], None]) -> State | None:
        if not self.states:
            return None
        check(self.states[-1])
        return copy.deepcopy(self.states[-1])

    def due(self) -> bool:
        return True

    def save(self, state: State) -> None:
        self.states.append(copy.deepcopy(state))
        if len(self.states) == self.fails_after:
            raise KeyboardInterrupt


def fitted(memory: Memory | None = None, **settings: Any) -> VAE:
    vae = small_vae(GAUSSIAN)
    quick = {"accelerator": "cpu", "progress": False, "max_epochs": 9, "patience": 3, "learning_rate": 0.1, "batch_size": 16}
    return vae.fit(
        rows_for(GAUSSIAN, 50), validation=rows_for(GAUSSIAN, 20, seed=9), snapshots=memory, **{**quick, **settings}
    )


@pytest.fixture(scope="module")
def uninterrupted() -> VAE:
    return fitted()


@pytest.mark.parametrize("epoch", [1, 2, 4, 5])
def test_a_fit_that_was_interrupted_ends_with_the_same_bits(epoch: int, uninterrupted: VAE) -> None:
    """At every kind of end: early, at the best epoch, while patience runs out, and after the last."""
    epochs = len(uninterrupted.history.rows)
    assert epochs == 5, "patience ends it there, so that the last case is a state saved at the end"
    memory = Memory(fails_after=epoch)
    with pytest.raises(KeyboardInterrupt):
        fitted(memory)
    memory.fails_after = None
    resumed = fitted(memory)
    assert torch.equal(resumed.pack_weights(), uninterrupted.pack_weights())
    assert resumed.history.rows == uninterrupted.history.rows
    assert resumed.history.latents == uninterrupted.history.latents
    assert len(memory.states) == epochs, "no epoch was computed twice"
    assert not resumed.training


class Dies(pl.Callback):
    """In the third epoch, after its first steps."""

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch == 2:
            raise RuntimeError("out of memory")


def test_an_epoch_that_broke_off_begins_anew(uninterrupted: VAE) -> None:
    memory = Memory()
    with pytest.raises(RuntimeError, match="out of memory"):
        fitted(memory, callbacks=[Dies()])
    assert len(memory.states) == 2
    resumed = fitted(memory)
    assert torch.equal(resumed.pack_weights(), uninterrupted.pack_weights())
    assert resumed.history.rows == uninterrupted.history.rows


def test_without_validation_the_last_epoch_is_kept() -> None:
    whole = small_vae(GAUSSIAN).fit(rows_for(GAUSSIAN, 50), max_epochs=4, progress=False, accelerator="cpu")
    memory = Memory(fails_after=2)
    quick: dict[str, Any] = {"max_epochs": 4, "progress": False, "accelerator": "cpu", "snapshots": memory}
    with pytest.raises(KeyboardInterrupt):
        small_vae(GAUSSIAN).fit(rows_for(GAUSSIAN, 50), **quick)
    memory.fails_after = None
    assert torch.equal(small_vae(GAUSSIAN).fit(rows_for(GAUSSIAN, 50), **quick).pack_weights(), whole.pack_weights())


def _renamed(state: State) -> None:
    state["state_dict"]["other"] = state["state_dict"].pop(next(iter(state["state_dict"])))


def _reshaped(state: State) -> None:
    name = next(iter(state["state_dict"]))
    state["state_dict"][name] = state["state_dict"][name][:1]


def _retyped(state: State) -> None:
    name = next(iter(state["state_dict"]))
    state["state_dict"][name] = state["state_dict"][name].to(torch.int64)


def _other_best(state: State) -> None:
    state["callbacks"]["BestEpoch"]["weights"].popitem()


def _other_moments(state: State) -> None:
    state["optimizer_states"][0]["state"][0]["exp_avg"] = torch.zeros(1)


def _no_optimiser(state: State) -> None:
    del state["optimizer_states"]


def _other_step(state: State) -> None:
    state["optimizer_states"][0]["state"][0]["step"] = torch.zeros(3)


def _more_moments(state: State) -> None:
    state["optimizer_states"][0]["state"][0]["more"] = torch.zeros(3)


def _not_finished(state: State) -> None:
    state["finished"] = "yes"


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (_renamed, r"weight .* should be .* but is absent"),
        (_reshaped, r"weight .* should be \(\d+, \d+\) float64 but is \(1, \d+\) float64"),
        (_retyped, "but is .* int64"),
        (_other_best, "best weight .* but is absent"),
        (_other_moments, r"optimiser state 'exp_avg' should be"),
        (_no_optimiser, "it lacks 'optimizer_states'"),
        (_other_step, r"optimiser state 'step' should be \(\) float32 but is \(3,\) float32"),
        (_more_moments, r"optimiser state 'more' should be absent but is"),
        (_not_finished, "'finished' should be true or false but is 'yes'"),
    ],
)
def test_tensors_of_another_model_are_refused(harm: Callable[[State], None], message: str) -> None:
    memory = Memory()
    fitted(memory)
    harm(memory.states[-1])
    with pytest.raises(ValueError, match=message):
        fitted(memory)


# ---- what is on disk


@pytest.fixture
def saved(tmp_path: Path) -> Saved:
    state = Saved(tmp_path / "state")
    state.folder.mkdir()
    return state


def test_what_was_saved_last_is_loaded(saved: Saved) -> None:
    assert saved.load("a") is None
    for value in range(3):
        saved.save("a", {"value": value, "tensor": torch.full((2,), float(value))})
    found = saved.load("a")
    assert found is not None
    assert found["value"] == 2
    assert found["tensor"].tolist() == [2.0, 2.0]
    assert not list(saved.folder.glob("*.new")) + list(saved.folder.glob(".*"))


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def _flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def _empty(path: Path) -> None:
    path.write_bytes(b"")


class Malicious:
    def __reduce__(self) -> Any:
        return os.system, ("touch it_ran",)


def _plant(path: Path) -> None:
    """A pickle that runs a command, with a checksum that is right."""
    buffer = io.BytesIO()
    torch.save({"value": Malicious()}, buffer)
    path.write_bytes(hashlib.sha256(buffer.getvalue()).hexdigest().encode() + b"\n" + buffer.getvalue())


def _plant_plainly(path: Path) -> None:
    payload = pickle.dumps(Malicious())
    path.write_bytes(hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload)


@pytest.mark.parametrize("harm", [_truncate, _flip_a_bit, _empty, _plant, _plant_plainly])
def test_a_damaged_state_is_refused_and_the_one_before_is_used(
    harm: Callable[[Path], None], saved: Saved, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(saved.folder)
    for value in range(2):
        saved.save("a", {"value": value})
    harm(saved.folder / "a.state")
    assert saved.load("a") == {"value": 0}
    assert "a.state was refused" in capsys.readouterr().err
    harm(saved.folder / "a.previous")
    assert saved.load("a") is None
    assert not Path("it_ran").exists()


def test_a_kill_between_two_renames_leaves_the_state_before(saved: Saved) -> None:
    for value in range(2):
        saved.save("a", {"value": value})
    (saved.folder / "a.state").unlink()
    assert saved.load("a") == {"value": 0}


def test_a_full_disk_costs_one_warning(
    saved: Saved, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saved.save("a", {"value": 0})
    monkeypatch.setattr("pipeline.base.files.sync", _full)
    for value in range(1, 3):
        saved.save("a", {"value": value})
    assert capsys.readouterr().err.count("cannot save the state for resuming ([Errno 28]") == 1
    assert saved.load("a") == {"value": 0}
    assert not list(saved.folder.glob(".*partial"))


def _full(*paths: Path) -> None:
    raise OSError(28, "No space left on device")


def test_saving_is_due_after_some_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not Saved(tmp_path).due()
    monkeypatch.setenv("EVIDENCE_SAVE_SECONDS", "0")
    assert Saved(tmp_path).due()


def test_a_state_that_is_ignored_is_removed(saved: Saved) -> None:
    saved.save("a", {"value": 0})
    fresh = Saved(saved.folder, fresh=True)
    with fresh.held("stage train"):
        assert fresh.load("a") is None


def test_a_second_process_waits_for_the_first_and_says_so(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from pipeline.experiment.saved import Saved\n"
        "with Saved(Path(sys.argv[1])).held('stage train'): print('in', flush=True); time.sleep(float(sys.argv[2]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def start(seconds: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", code, str(tmp_path / "state"), seconds]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    first = start("600")
    assert first.stdout is not None
    assert first.stdout.readline() == "in\n"
    assert not remove(tmp_path / "state")
    second = start("0")
    assert second.stderr is not None
    line = second.stderr.readline()
    assert f"stage train of this very experiment already runs as process {first.pid}; waiting" in line
    time.sleep(0.5)
    assert second.poll() is None
    first.kill()
    assert second.wait(30) == 0
    first.communicate()
    second.communicate()
    assert remove(tmp_path / "state")
    assert not (tmp_path / "state").exists()


def test_states_are_known_by_inputs_and_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, others = digest("inputs"), digest("others")
    folders = [saved_folder(tmp_path, "train", *of) for of in ((inputs, digest(1)), (inputs, digest(2)), (others, digest(1)))]
    assert len(set(folders)) == 3
    for folder in folders:
        folder.mkdir(parents=True)
    forget(tmp_path, "train", inputs, made=lambda: False)  # what it has computed is all there is of it
    assert len(leftovers(tmp_path)) == 3
    forget(tmp_path, "train", inputs, made=lambda: True)
    assert leftovers(tmp_path) == [folders[2]]
    before = facts(2)
    assert facts(1) != before
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX")
    assert facts(2) != before


# ---- pieces of an evaluation


def test_a_result_comes_back_as_it_was(saved: Saved) -> None:
    vae, y = small_vae(GAUSSIAN), rows_for(GAUSSIAN, 5)
    for value in (
        importance_sampling(vae, y, 20, ladder=(10,)),
        annealed_importance_sampling(vae, y, 2),
        bidirectional_bounds(vae, 3, 2),
    ):
        saved.save("a", {"value": encoded(value)})
        found = saved.load("a")
        assert found is not None
        assert _equal(decoded(found["value"]), value)
        assert type(decoded(found["value"])) is type(value)


def _equal(one: Any, other: Any) -> bool:
    one, other = encoded(one), encoded(other)
    if isinstance(one, torch.Tensor):
        return torch.equal(one.nan_to_num(-7.0), other.nan_to_num(-7.0)) and one.dtype == other.dtype
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    return bool(one == other)


def test_pieces_are_computed_once(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved, "_every", 0.0)
    pieces = Pieces(saved)
    assert [pieces.kept(name, float(len(name))) for name in ("a", "bb")] == [1.0, 2.0]
    again = Pieces(saved)
    assert len(again) == 2
    assert "bb" in again
    assert again.found("bb") == 2.0
    assert again.kept("ccc", 3.0) == 3.0
    assert len(Pieces(saved)) == 3
    with pytest.raises(ValueError, match="two pieces are called 'bb'"):
        again.kept("bb", 4.0)


def test_pieces_that_are_not_saved_yet_are_when_the_evaluation_ends_early(saved: Saved) -> None:
    def interrupted() -> None:
        with Pieces(saved) as pieces:
            pieces.kept("a", 1.0)
            assert not len(Pieces(saved))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert Pieces(saved).found("a") == 1.0


# ---- stages


class Crash(Exception):
    """Stands for whatever ends a process."""


def crash_at(monkeypatch: pytest.MonkeyPatch, saves: int) -> None:
    """Let the process end right after so many states have been saved."""
    save, count = Saved.save, 0

    def counted(self: Saved, name: str, content: State) -> None:
        nonlocal count
        save(self, name, content)
        count += 1
        if count == saves:
            raise Crash

    monkeypatch.setattr(Saved, "save", counted)


def made() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for name in ("models", "results") for path in Path(name).rglob("*") if path.is_file()}


def test_an_evaluation_goes_on_where_rows_run_longer_from_either_start(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows that go on from q and rows that go on from the prior share a stream of noise; their pieces share no name."""
    monkeypatch.setenv("EVIDENCE_SAVE_SECONDS", "0")
    annealing = {"chains": 10, "temperatures": 4, "leapfrog_steps": 1, "bounds_examples": 30, "extra": 30.0}
    write_table(workspace, table(rows=200))
    write_params(workspace, **{"evaluate.annealing": annealing, "train.max_epochs": 5})
    annealing_of, calls = Estimation._annealing, list[str]()

    def watched(self: Estimation, of: str, chains: Chains, *others: Any) -> Computation[Estimate]:
        calls.append(f"{of} {chains.stream}")
        return annealing_of(self, of, chains, *others)

    monkeypatch.setattr(Estimation, "_annealing", watched)
    monkeypatch.setattr(Judgement, "beats", lambda self, other, temperatures: torch.arange(len(self.variance)) % 2 == 0)
    for stage in (prepare, train, evaluate):
        stage.main()
    assert max(Counter(calls).values()) == 2
    expected = made()
    for folder in leftovers(workspace):
        remove(folder)
    with monkeypatch.context() as patched:
        crash_at(patched, len(calls))
        with pytest.raises(Crash):
            evaluate.main()
    evaluate.main()
    assert "parts of the evaluation done by an earlier start" in capsys.readouterr().out
    assert made() == expected


def test_stages_go_on_to_the_same_bytes(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EVIDENCE_SAVE_SECONDS", "0")
    write_table(workspace)
    write_params(workspace, **{"train.max_epochs": 5})
    for stage in (prepare, train, evaluate):
        stage.main()
    expected = made()
    for path in expected:
        Path(path).unlink()
    for folder in leftovers(workspace):
        remove(folder)
    prepare.main()
    for stage, saves, message in ((train, 3, "going on after epoch 2"), (evaluate, 4, "going on with 4 parts")):
        with monkeypatch.context() as patched:
            crash_at(patched, saves)
            with pytest.raises(Crash):
                stage.main()
        assert "going on" not in capsys.readouterr().out
        stage.main()
        assert message in capsys.readouterr().out
    assert made() == expected


def test_the_state_of_another_experiment_is_never_picked_up(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVIDENCE_SAVE_SECONDS", "0")
    write_table(workspace)
    write_params(workspace)
    prepare.main()
    with monkeypatch.context() as patched:
        crash_at(patched, 1)
        with pytest.raises(Crash):
            train.main()
    (state,) = [folder for folder in leftovers(workspace) if folder.name.startswith("train")]
    for changes in ({"train.learning_rate": 0.01}, {"threads": 2}, {"seed": 1}, {"model.latent_dim": 1}):
        write_params(workspace, **changes)
        inputs = declared()["train"]
        assert saved_folder(workspace, "train", digest(inputs.inputs), digest(facts(1))) != state
    write_params(workspace)
    (workspace / "data/prepared/train_index.npy").write_bytes(b"other")
    assert saved_folder(workspace, "train", digest(declared()["train"].inputs), digest(facts(1))) != state
