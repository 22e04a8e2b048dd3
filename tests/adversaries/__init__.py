"""Kinds of problems whose log p(y) is known, to hold the verdict on an estimate against."""

from tests.adversaries import funnels, islands, linear, lines, locks, mixtures, needles, planes, spikes, sums, trained
from tests.adversaries.problem import Kind, Problem

KINDS: dict[str, Kind] = {
    **linear.KINDS,
    **mixtures.KINDS,
    **lines.KINDS,
    **planes.KINDS,
    **islands.KINDS,
    **locks.KINDS,
    **sums.KINDS,
    **funnels.KINDS,
    **spikes.KINDS,
    **needles.KINDS,
    **trained.KINDS,
}

__all__ = ["KINDS", "Kind", "Problem"]
