"""Rows that stay on disk: every row once an epoch, at random, and the training that comes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from pipeline.stages import prepare, train
from tests.anchors import rows_for, small_vae
from tests.workspace import write_params, write_table
from vae.training import vae
from vae.training.rows import mapped
from vae.training.rows.batches import Batch
from vae.training.rows.mapped import Mapped, Pooled

LIKE = torch.empty(0)
GAUSSIAN = {"name": "gaussian"}


@pytest.fixture
def on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """103 rows of two columns in chunks of four, of which five are in a pool."""
    monkeypatch.setattr(mapped, "CHUNK", 4)
    monkeypatch.setattr(mapped, "POOL", 5 * 4 * 8)
    np.save(tmp_path / "y.npy", np.arange(206, dtype=np.float32).reshape(103, 2))
    return np.load(tmp_path / "y.npy", mmap_mode="r")


def epoch(batches: Pooled, number: int = 0) -> list[Batch]:
    batches.set_epoch(number)
    return list(batches)


@pytest.mark.parametrize("batch_size", [1, 7, 20, 64, 200])
def test_each_row_once_in_batches_of_the_size_asked_for(batch_size: int, on_disk: np.ndarray) -> None:
    batches = Pooled(on_disk, batch_size, seed=3, like=LIKE)
    found = epoch(batches)
    assert len(found) == len(batches)
    assert [batch.size for batch in found[:-1]] == [batch_size] * (len(found) - 1)
    rows = torch.cat([batch.rows for batch in found])
    assert sorted(rows[:, 0].tolist()) == on_disk[:, 0].tolist()
    assert torch.equal(rows[:, 1], rows[:, 0] + 1)
    again, other = (torch.cat([batch.rows for batch in epoch(batches, number)]) for number in (0, 1))
    assert torch.equal(again, rows)
    assert not torch.equal(other, rows)


def test_processes_share_each_batch(on_disk: np.ndarray) -> None:
    whole = epoch(Pooled(on_disk, 10, seed=0, like=LIKE))
    parts = [epoch(Pooled(on_disk, 10, seed=0, like=LIKE, rank=rank, processes=3)) for rank in range(3)]
    for batch, *shares in zip(whole, *parts, strict=True):
        assert {share.size for share in shares} == {batch.size}
        assert sorted(torch.cat([share.rows for share in shares])[:, 0].tolist()) == sorted(batch.rows[:, 0].tolist())


def test_without_a_seed_rows_keep_their_order(on_disk: np.ndarray) -> None:
    rows = torch.cat([batch.rows for batch in epoch(Pooled(on_disk, 16, like=LIKE.double()))])
    assert rows.dtype == torch.float64
    assert rows[:, 0].tolist() == on_disk[:, 0].tolist()


def test_rows_are_as_likely_early_as_late(on_disk: np.ndarray) -> None:
    """Mean position of each row over 400 epochs; of 103 rows one is beyond 4.9 standard errors once in 10,000 times."""
    batches = Pooled(on_disk, 16, seed=0, like=LIKE)
    positions = np.array([torch.cat([b.rows for b in epoch(batches, e)])[:, 0].argsort().numpy() for e in range(400)])
    scores = (positions.mean(axis=0) - 51) / (positions.std(axis=0) / 20)
    assert np.abs(scores).max() < stats.norm.isf(1e-4 / 103 / 2)


def test_training_from_disk_learns_what_training_in_memory_does(tmp_path: Path, on_disk: np.ndarray) -> None:
    """The order of the rows differs, so weights do, but not by much where the steps are small."""
    y = rows_for(GAUSSIAN, 300).float().numpy()
    np.save(tmp_path / "rows.npy", y)
    rows = np.load(tmp_path / "rows.npy", mmap_mode="r")
    settings: dict[str, Any] = {
        "max_epochs": 8,
        "batch_size": 32,
        "learning_rate": 3e-3,
        "progress": False,
        "accelerator": "cpu",
    }
    memory, disk, again = (
        small_vae(GAUSSIAN).fit(rows, validation=rows, memory_gib=gib, **settings) for gib in (1.0, 1e-9, 1e-9)
    )
    assert torch.equal(disk.pack_weights(), again.pack_weights())
    assert not torch.equal(disk.pack_weights(), memory.pack_weights())
    first, last = memory.history.rows[0]["valid_elbo"], memory.history.rows[-1]["valid_elbo"]
    assert disk.history.rows[-1]["valid_elbo"] == pytest.approx(last, abs=0.2 * (last - first))
    assert [row["epoch"] for row in disk.history.rows] == list(range(8))


def test_values_on_disk_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vae, "CHECKED", 5)
    y = rows_for(GAUSSIAN, 50).float().numpy()
    y[7, 1] = np.inf
    np.save(tmp_path / "rows.npy", y)
    with pytest.raises(ValueError, match=r"y must be .* got inf in row 2, column 1, counted from row 5 on"):
        small_vae(GAUSSIAN).fit(np.load(tmp_path / "rows.npy", mmap_mode="r"), memory_gib=1e-9, progress=False)


def test_the_stage_reads_from_disk_what_is_larger(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    original = Pooled._read

    def recorded(self: Pooled, firsts: list[int]) -> Mapped:
        read.append(firsts[0])
        return original(self, firsts)

    monkeypatch.setattr(Pooled, "_read", recorded)
    write_table(workspace)
    write_params(workspace, **{"train.memory_gib": 1e-9})
    prepare.main()
    train.main()
    assert len(read) == 4  # a pool of training and one of validation rows, in each of two epochs
