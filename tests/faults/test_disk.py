"""A disk that gets full, a small one of the experiment's own: nothing is lost, and it goes on when there is space again."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tests.faults import disk
from tests.faults.laboratory import STAGES, Fault, Laboratory, environment

pytestmark = [pytest.mark.slow, pytest.mark.faults, pytest.mark.filterwarnings("default"), pytest.mark.usefixtures("tracked")]

SEED = int(os.environ.get("FAULTS_SEED", "0"))
SHARES = np.random.default_rng(SEED).uniform(0.3, 0.95, size=(2, 3))
CASES = [
    *(("full_while_saving", stage, 0.0) for stage in STAGES),
    *(("full_to_the_end", stage, float(share)) for stage, shares in zip(STAGES, SHARES, strict=True) for share in shares),
]


@pytest.mark.parametrize(("how", "stage", "share"), CASES)
def test_a_full_disk(
    how: str, stage: str, share: float, laboratory: Laboratory, faults: list[Fault], store: dict[str, str], tmp_path: Path
) -> None:
    if why := disk.no_disk():
        pytest.skip(why)
    done = {"problems": "the stage ended before its moment came"}
    while "ended before its moment came" in done["problems"]:  # the machine has become faster
        done = disk.run(laboratory, tmp_path, how, stage, share * laboratory.seconds[stage], environment(**store))
        share *= 0.7
    faults += [Fault(**fault) for fault in done["faults"]]
    assert not done["problems"], done["problems"]
