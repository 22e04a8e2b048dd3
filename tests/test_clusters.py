"""Errors of means over groups of examples: against formulas they generalise, and by how often their intervals are right."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from benchmarks.coverage import Population, coverage
from vae.evidence import MeanWithError, two_stage
from vae.evidence.clusters import combined, effective_groups


def values(N: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(N, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_examples_that_are_their_own_groups_are_independent() -> None:
    """Whatever the numbers of the groups, one stage or two: s^2 / N, and the error of double sampling."""
    x, subset = values(50), torch.randperm(50, generator=torch.Generator().manual_seed(1))[:20]
    better, groups = x[subset] * 1.4 + values(20, seed=2), torch.randperm(50, generator=torch.Generator().manual_seed(3)) * 7
    pairs = [(MeanWithError.of(x), MeanWithError.of(x, groups))]
    pairs += [(two_stage(x, better, subset), two_stage(x, better, subset, groups))]
    for alone, grouped in pairs:
        assert grouped.mean == pytest.approx(alone.mean, rel=1e-12)
        assert grouped.standard_error == pytest.approx(alone.standard_error, rel=1e-12)
        assert grouped.degrees_of_freedom == pytest.approx(alone.degrees_of_freedom)
        assert (alone.groups, grouped.groups) == (None, 50)
    assert pairs[0][1].effective_groups == pytest.approx(50)


def test_the_variance_of_unequal_groups_by_hand() -> None:
    """Values 1, 2 | 6 | 3, 3, 3 have the mean 3 and totals of deviations -3, 3, 0: V = 3/2 (9 + 9) / 36."""
    found = MeanWithError.of(torch.tensor([3.0, 1.0, 6.0, 3.0, 2.0, 3.0]), torch.tensor([5, 0, 9, 5, 0, 5]))
    assert found.mean == 3
    assert found.standard_error == pytest.approx(math.sqrt(0.75))
    assert (found.groups, found.degrees_of_freedom) == (3, 2)
    assert found.effective_groups == pytest.approx((4 + 1 + 9) ** 2 / (16 + 1 + 81))


def test_copies_of_examples_say_nothing_new() -> None:
    """Every row ten times: the error over rows shrinks by nearly sqrt 10, that over groups stays."""
    x, groups = values(40), torch.arange(40)
    once = MeanWithError.of(x)
    assert MeanWithError.of(x.repeat(10), groups.repeat(10)).standard_error == pytest.approx(once.standard_error)
    assert MeanWithError.of(x.repeat(10)).standard_error == pytest.approx(once.standard_error / math.sqrt(10), rel=0.02)


def test_intervals_are_those_of_student() -> None:
    x = values(9)
    assert MeanWithError.of(x).interval() == pytest.approx(stats.ttest_1samp(x.numpy(), 0).confidence_interval(0.95))
    assert MeanWithError(1.0, 0.1).interval(0.9) == pytest.approx(stats.norm(1, 0.1).interval(0.9))
    one = MeanWithError.of(x[:4], torch.zeros(4, dtype=torch.int32))
    assert math.isnan(one.standard_error)
    assert all(math.isnan(end) for end in one.interval())


def test_a_difference_of_independent_means_has_the_degrees_of_freedom_of_welch() -> None:
    x, y = values(9), 3 * values(30, seed=1)
    found, expected = MeanWithError.of(x).minus(MeanWithError.of(y)), stats.ttest_ind(x, y, equal_var=False)
    assert found.interval() == pytest.approx(expected.confidence_interval(0.95))
    grouped = MeanWithError.of(x, torch.arange(9)).minus(MeanWithError.of(y, torch.arange(30) // 2))
    assert grouped.groups == 9 + 15
    assert 9 < (grouped.effective_groups or 0) <= 24


def test_effective_numbers() -> None:
    """All of equal groups; fewer than two where one group has nearly all rows."""
    assert effective_groups(torch.arange(120) // 4) == pytest.approx(30)
    assert 1 < effective_groups(torch.arange(120).clamp(max=20)) < 1.1
    assert combined((2.0, 2.0), (10, 10)) == pytest.approx(20)
    assert combined((2.0, 2.0), (10, 10), independent=False) == pytest.approx(10)
    assert combined((2.0, 0.0), (10, 3)) == combined((2.0, 0.0), (10, 3), independent=False) == pytest.approx(10)


def test_groups_must_be_as_many_as_values() -> None:
    with pytest.raises(ValueError, match=r"groups must have shape \(4,\), one for each value; got \(3,\)"):
        MeanWithError.of(values(4), torch.arange(3))


COVERED = [
    Population(30, 0.5),
    Population(30, 0.1, skewed=True),
    Population(60, 0.5, skewed=True),
    Population(60, 0.5, share=0.5),
    Population(60, 0.5, rows=1, skewed=True, share=0.5),
]
REPEATS = 2000


@pytest.mark.parametrize("population", COVERED, ids=str)
def test_intervals_hold_the_truth_from_thirty_equal_groups_on(population: Population) -> None:
    """At least 93 % of 2,000, but for two Monte Carlo errors (0.006 each) below; as independent rows ten in a group hold less.

    An interval that holds it in 95 % of cases fails once in 1e10, one that holds it in 90 % passes once in 300.
    """
    found = coverage(population, REPEATS)
    assert found.by_groups > 0.93 - 2 * math.sqrt(0.93 * 0.07 / REPEATS)
    assert found.by_groups < 0.97
    if population.rows > 1:
        assert found.by_rows < 0.85
    else:
        assert found.by_rows == found.by_groups  # the same intervals


def test_sizes_that_differ_are_told() -> None:
    """Log-normal sizes: 30 groups hold the truth in nine cases of ten, and count as fewer than ten."""
    found = coverage(Population(30, 0.5, spread=1.0), REPEATS)
    assert 0.87 < found.by_groups < 0.93
    assert found.effective < 10


def test_numbers_of_groups_need_not_be_in_order() -> None:
    """Any labels, as integers of any size."""
    x, groups = values(60), np.random.default_rng(0).integers(0, 8, 60)
    found = MeanWithError.of(x, torch.from_numpy(groups))
    assert MeanWithError.of(x, torch.from_numpy(1000 - 3 * groups)).standard_error == pytest.approx(found.standard_error)
