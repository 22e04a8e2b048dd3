"""How the learning rate goes on, as a factor of what it is at first: functions of the share of all epochs that is done."""

from __future__ import annotations

import math

BURDA_STAGES = 8


def constant(done: float) -> float:
    """Keep the learning rate as it is: 1 throughout."""
    return 1.0


def cosine(done: float) -> float:
    """Fall from 1 to 0 along half a cosine (Loshchilov and Hutter 2017, "SGDR", eq. 5 without restarts)."""
    return (1 + math.cos(math.pi * min(1.0, done))) / 2


def burda(done: float) -> float:
    """Divide the rate by ten in eight stages of equal ratios, each three times as long as the one before.

    In Burda et al. (2016, section 5) stage i = 0, ..., 7 takes 3^i of 3,280 epochs at 1e-4 * round(10^(1 - i / 7), 1).
    """
    total = (3**BURDA_STAGES - 1) // 2
    stage = next((i for i in range(BURDA_STAGES - 1) if done * total < (3 ** (i + 1) - 1) // 2), BURDA_STAGES - 1)
    return round(10 ** (1 - stage / (BURDA_STAGES - 1)), 1) / 10
