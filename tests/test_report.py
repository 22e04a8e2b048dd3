"""One figure from several estimators, the verdict, the gap split and the latents."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import hypergeom, norm

from tests.anchors import LinearGaussian, rows_for, small_vae, within_error
from vae.evidence import (
    Estimate,
    Grounds,
    MeanWithError,
    evidence_lower_bound,
    excess,
    inference_gap,
    latent_usage,
    most_unseen,
    reported_estimator,
    surpluses,
    two_stage,
    verdict,
)
from vae.evidence.weights import LogWeights


def test_two_stages_on_all_examples_are_the_better_mean() -> None:
    x = torch.randn(50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    better = x + 0.3 + 0.1 * x**2
    found, expected = two_stage(x, better, torch.arange(50)), MeanWithError.of(better)
    assert found.mean == pytest.approx(expected.mean, rel=1e-12)
    assert found.standard_error == pytest.approx(expected.standard_error, rel=1e-12)


def test_the_error_of_two_stages_is_calibrated() -> None:
    """4,000 populations' samples, differences correlated with the cheap estimate: no bias (6e-5), errors right within 5 %."""
    rng = np.random.default_rng(0)
    results = []
    for _ in range(4000):
        x = torch.tensor(rng.normal(size=200))
        subset = torch.tensor(rng.choice(200, 40, replace=False))
        difference = 0.5 - 0.6 * x[subset] + torch.tensor(rng.normal(size=40)) * 0.3
        results.append(two_stage(x, x[subset] + difference, subset))
    means = np.array([result.mean for result in results])
    assert within_error(means, 0.5)
    assert np.sqrt(np.mean([r.standard_error**2 for r in results])) == pytest.approx(means.std(), rel=0.05)


def test_the_reported_estimator_follows_a_fixed_order() -> None:
    assert reported_estimator(["prior", "importance", "annealed", "exact"]) == "exact"
    assert reported_estimator(["prior", "bounds", "importance", "annealed"]) == "annealed"
    assert reported_estimator(["prior", "importance"]) == "importance"
    with pytest.raises(ValueError, match=r"one of the estimators exact, annealed, importance, prior is needed .* got bounds"):
        reported_estimator(["bounds"])


def grounds(**changes: Any) -> Grounds:
    """Checks that all hold, but for the changes."""
    sound: dict[str, Any] = {
        "gap": MeanWithError(0.02, 0.01),
        "start_difference": MeanWithError(0.15, 0.02),
        "temperature_difference": MeanWithError(-0.15, 0.02),
        "acceptance": (0.41, 0.8, 0.97),
        "unreliable": flags(4),
        "unsettled": [],
        "disputed": 2,
        "rows": 100,
        "looked_at": 100,
        "excess": {"importance sampling": 4.6},
    }
    return Grounds(**{**sound, **changes})


def flags(count: int) -> torch.Tensor:
    """So many of 100 rows."""
    return torch.arange(100) < count


def test_an_exact_value_and_sound_annealing_can_be_trusted() -> None:
    assert verdict("exact", None).trusted
    assert verdict("annealed", grounds()).trusted
    assert str(verdict("annealed", grounds())) == "can be trusted to 0.2 nats"
    within = {"prior sampling": MeanWithError(0.1, 0.01), "importance sampling": MeanWithError(0.29, 0.1)}
    assert verdict("annealed", grounds(surplus=within)).trusted
    tight = grounds(gap=MeanWithError(0.001, 0.001), start_difference=MeanWithError(0, 0.01), temperature_difference=ZERO)
    assert str(verdict("annealed", tight, 0.03)) == "can be trusted to 0.03 nats"


ZERO = MeanWithError(0.0, 0.0)
SHORTFALLS: list[tuple[dict[str, Any], str]] = [
    ({"gap": MeanWithError(0.18, 0.011)}, r"on simulated data differ by \+0.180 ± 0.011 nats; .* below 0.2: raise the temp"),
    ({"gap": MeanWithError(-5.0, 0.01)}, r"on simulated data differ by -5.000"),
    ({"gap": MeanWithError(-0.01, 0.1)}, "simulated rows"),
    ({"gap": MeanWithError(0.01, math.nan)}, "on the only row"),
    ({"start_difference": MeanWithError(8.07, 7.11)}, r"from q and from the prior differs by \+8.070 ± 7.110"),
    ({"start_difference": MeanWithError(-0.18, 0.02)}, r"from q and from the prior differs by -0.180"),
    ({"start_difference": MeanWithError(0.0, 0.1)}, r"from q and from the prior differs by \+0.000 ± 0.100"),
    ({"temperature_difference": MeanWithError(-0.18, 0.02)}, r"with T and with T / 2 temperatures differs by -0.180"),
    ({"temperature_difference": MeanWithError(math.nan, math.nan)}, "with T and with T / 2"),
    ({"start_difference": MeanWithError(0.15, 0.01, 1)}, r"\+0.150 ± 0.010 nats; its size \+ 13 SE must be below 0.2"),
    ({"rounding": 0.05}, "the model's precision rounds it by 0.05 nats a row"),
    ({"chains": 9}, "9 chains have no Monte Carlo error"),
    ({"acceptance": (0.8, 0.39)}, "1 of 2 ranges of temperatures accept less than 0.4 of their proposals .for one, 0.39"),
    ({"simulated_settled": 0.49}, "only 49% of the simulated rows are settled"),
    ({"unreliable": flags(5)}, "the chains of 5% of the examples"),
    ({"unsettled": [758]}, "row 758 is not settled"),
    ({"unsettled": [12, 88, 758]}, "rows 12, 88, 758 are not settled"),
    ({"unsettled": list(range(1, 13))}, "rows 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more are not settled"),
    ({"surplus": {"prior sampling": MeanWithError(0.61, 0.05)}}, r"prior sampling is higher than annealing by 0.610 ± 0.050"),
    ({"surplus": {"prior sampling": MeanWithError(0.18, 0.02)}}, "higher than annealing by 0.180"),
    ({"excess": {"prior sampling": 4.7}}, "prior sampling found 4.7 nats more than annealing"),
    ({"excess": {"prior sampling": math.nan}}, "prior sampling found nan nats more"),
]


@pytest.mark.parametrize(("change", "reason"), SHORTFALLS)
def test_each_rule_alone_makes_it_a_lower_bound(change: dict[str, Any], reason: str) -> None:
    found = verdict("annealed", grounds(**change))
    assert str(found) == "lower bound only"
    assert len(found.reasons) == 1
    assert re.search(reason, found.reasons[0])


def test_the_verdict_says_what_may_be_among_the_rows_that_were_not_annealed() -> None:
    found = verdict("annealed", grounds(rows=10_000, disputed=0))
    assert str(found) == (
        "can be trusted to 0.2 nats; of the 9900 rows that were not annealed at most 293 would be disputed (95%)"
    )
    groups = verdict("annealed", grounds(rows=300, looked_at=100, disputed=3, unit="groups"))
    assert str(groups).endswith("of the 200 groups that were not annealed at most 17 would be disputed (95%)")


def test_few_degrees_of_freedom_ask_for_more_than_two_standard_errors() -> None:
    """Student's t at 97.5 % is 4.30 with two degrees of freedom."""
    few = MeanWithError(0.0, 0.09, degrees_of_freedom=2)
    assert few.margin == pytest.approx(4.303 * 0.09, rel=1e-3)
    assert not verdict("annealed", grounds(start_difference=few)).trusted
    assert verdict("annealed", grounds(start_difference=MeanWithError(0.0, 0.09))).trusted


@pytest.mark.parametrize(("rows", "looked_at", "counted"), [(300, 100, 0), (300, 100, 3), (1000, 50, 1), (40, 39, 0)])
def test_the_bound_on_unseen_rows_covers(rows: int, looked_at: int, counted: int) -> None:
    """At the bound so few are counted in more than 5 % of the subsets, one above in less, by scipy's hypergeometric law."""
    most = most_unseen(rows, looked_at, counted) + counted
    assert hypergeom.cdf(counted, rows, most, looked_at) > 0.05
    assert most == rows - looked_at + counted or hypergeom.cdf(counted, rows, most + 1, looked_at) <= 0.05


def test_another_estimate_is_higher_by_chance_in_one_of_a_hundred_cases_at_most() -> None:
    """Log-normal weights with so heavy a tail that their mean rests on few of them, 20,000 times on 20 rows."""
    random = torch.Generator().manual_seed(0)
    spread = 3.0
    other = spread * torch.randn(20_000, 20, generator=random, dtype=torch.float64) - spread**2 / 2
    found = torch.tensor([excess(rows, torch.zeros(20)) for rows in other])
    assert (found > -math.log(0.01)).double().mean() < 0.01
    assert excess(torch.tensor([0.0, 9.0]), torch.zeros(2)) == pytest.approx(9 - math.log(2), abs=1e-3)


def sampled(log_weights: torch.Tensor) -> Estimate:
    """The estimates of N rows from log weights (S, N) of their own."""
    weights = LogWeights(log_weights.shape[1], len(log_weights), log_weights.device)
    weights.add(log_weights)
    return weights.estimate()


def test_a_few_draws_that_surely_found_more_are_told_and_chance_is_not() -> None:
    """Some 30 of 1,000 draws hold all of p(y) = 1: estimates are right in expectation, by so few effective samples.

    Of 1,000 sets of 20 rows 1 % or fewer are said to be too low where they are right, and all where they lack a nat.
    """
    random = torch.Generator().manual_seed(0)
    hits = torch.rand(1000, 20_000, generator=random) < 0.03
    found = sampled(torch.where(hits, -math.log(0.03), -50.0).double())
    right = sampled(torch.zeros(16, 20_000, dtype=torch.float64))
    low = right.shifted(torch.tensor(-1.0))
    assert found.effective_sample_size.median() < 40
    sets = torch.arange(20_000).split(20)
    assert sum(not trusted_beside(found.of(rows), right.of(rows)) for rows in sets) <= 10
    assert not any(trusted_beside(found.of(rows), low.of(rows)) for rows in sets)


def trusted_beside(other: Estimate, reported: Estimate) -> bool:
    """Whether the reported estimates are trusted beside another, all else being sound."""
    return verdict("annealed", grounds(surplus={"prior sampling": surpluses(other, reported)})).trusted


def test_estimates_without_a_check_are_lower_bounds() -> None:
    """Agreement of importance sampling with annealing is no evidence: both start at q."""
    assert "add annealed and bounds" in verdict("importance", None).reasons[0]
    assert "add annealed and bounds" in verdict("prior", grounds()).reasons[0]
    assert "add bounds" in verdict("annealed", None).reasons[0]


def test_the_gap_splits_where_the_best_q_is_known() -> None:
    """q with right means but 2.5 times the spread: its best member is known in a linear model, and Adam finds it.

    The noise of the best q's ELBO is 0.016, that of q's 0.12; the tolerances are five times that.

    The best diagonal q of a normal posterior has its mean and the inverse diagonal of its precision (Bishop 2006, 10.15).
    """
    model = LinearGaussian(2, 5, 1.0, widen=2.5, N=8)
    found = inference_gap(model.vae, model.y, torch.tensor(model.log_likelihood), S=4096)
    precision = np.eye(2) + model.W.T @ model.W / model.variance
    approximation = 0.5 * (np.log(np.diag(precision)).sum() - np.linalg.slogdet(precision)[1])
    assert found.approximation.numpy() == pytest.approx(np.full(8, approximation), abs=0.08)
    whole = model.log_likelihood - evidence_lower_bound(model.vae, model.y, 100_000).elbo.numpy()
    assert (found.approximation + found.amortisation).numpy() == pytest.approx(whole, abs=0.6)
    assert found.amortisation.min() > 0.5


def test_the_gap_does_not_depend_on_other_rows() -> None:
    vae, y = small_vae({"name": "bernoulli"}), rows_for({"name": "bernoulli"}, N=6)
    truth, some = torch.zeros(6, dtype=torch.float64), torch.tensor([4, 1])
    whole = inference_gap(vae, y, truth, steps=30, S=200)
    part = inference_gap(vae, y[some], truth[some], steps=30, S=200, ids=some)
    torch.testing.assert_close(part.amortisation, whole.amortisation[some])
    torch.testing.assert_close(part.approximation, whole.approximation[some])


def test_latents_of_a_linear_model() -> None:
    """KL per dimension adds up to the whole; the moments and the marginal KL are those of the mixture of posteriors."""
    model = LinearGaussian(2, 5, 1.0, N=30)
    found, q = latent_usage(model.vae, model.y), model.vae.inference(model.y)
    mean, stddev = q.mean.detach().numpy(), q.stddev.detach().numpy()
    total = evidence_lower_bound(model.vae, model.y, 1).kl.mean().item()
    assert found.kl is not None
    assert found.marginal_kl is not None
    assert found.kl.sum().item() == pytest.approx(total, rel=1e-9)
    for k in range(2):

        def mixture(z: float, k: int = k) -> float:
            return float(norm.pdf(z, mean[:, k], stddev[:, k]).mean())

        def integrand(z: float, k: int = k) -> float:
            return mixture(z, k) * (np.log(mixture(z, k)) - norm.logpdf(z))

        assert found.aggregate_mean[k].item() == pytest.approx(mean[:, k].mean(), rel=1e-9)
        second, _ = quad(lambda z, k=k: mixture(z, k) * z**2, -12, 12, limit=300)
        assert found.aggregate_variance[k].item() == pytest.approx(second - mean[:, k].mean() ** 2, rel=1e-6)
        assert found.marginal_kl[k].item() == pytest.approx(quad(integrand, -8, 8, limit=300)[0], abs=1e-6)


def test_active_units() -> None:
    """Dimensions that the inference network ignores are not active."""
    model = LinearGaussian(3, 5, 1.0, N=30)
    layer = model.vae.inference.network[0]
    assert isinstance(layer, torch.nn.Linear)
    with torch.no_grad():
        layer.weight[0] = 0.0
        layer.weight[1] *= 0.07
    found = latent_usage(model.vae, model.y)
    assert found.active_units[0.01] == int((found.mean_variance > 0.01).sum())
    assert found.mean_variance[0] == 0
    assert list(found.active_units) == [0.001, 0.01, 0.1]
    assert sorted(found.active_units.values(), reverse=True) == list(found.active_units.values())
    assert found.active_units[0.001] == 2
