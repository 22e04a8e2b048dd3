"""Kills: of what, by which signal, and when, drawn by a seed."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import psutil

from tests.faults.laboratory import Start, Trial

Victim = Literal["stage", "DVC", "group"]
KINDS: dict[tuple[Victim, signal.Signals], int] = {  # of 50, as many of each
    ("stage", signal.SIGKILL): 30,
    ("DVC", signal.SIGKILL): 6,
    ("group", signal.SIGKILL): 6,
    ("group", signal.SIGINT): 4,
    ("group", signal.SIGTERM): 4,
}


@dataclass(frozen=True)
class Kill:
    """A signal to the stage alone, to DVC alone, or to both, at a share of the time of training and evaluation."""

    victim: Victim
    number: signal.Signals
    share: float

    def __str__(self) -> str:
        return f"{self.number.name} to {self.victim}"

    def earlier(self) -> Kill:
        """For a machine that has become faster."""
        return replace(self, share=0.7 * self.share)


def plan(seed: int, kills: int) -> list[Kill]:
    """Kills of all kinds, in their proportions, at random moments."""
    kinds = [kind for kind, times in KINDS.items() for _ in range(times)]
    chosen = [kinds[i * len(kinds) // kills % len(kinds)] for i in range(kills)]
    shares = np.random.default_rng(seed).uniform(size=kills)
    return [Kill(victim, number, float(share)) for (victim, number), share in zip(chosen, shares, strict=True)]


def suffer(trial: Trial, kill: Kill) -> bool:
    """Start the experiment and kill it; false if the moment came when the stage had ended."""
    stage, seconds = trial.laboratory.moment(kill.share)
    start = trial.begin()
    hit = start.at(stage, seconds, lambda process: inflict(trial, kill, start, process)) and start.wait() != 0
    if hit:
        trial.note(str(kill), stage)
    return hit


def inflict(trial: Trial, kill: Kill, start: Start, stage: psutil.Process) -> None:
    """Kill, and wait until DVC has ended."""
    if kill.victim == "group":
        os.killpg(start.process.pid, kill.number)
    else:
        (stage if kill.victim == "stage" else start.process).send_signal(kill.number)
    if kill.victim == "DVC":
        trial.leave(stage, start)
    start.wait()
