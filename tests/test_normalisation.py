"""Every likelihood is a density or a probability in float32, as it is trained: over what float32 numbers can say of y.

Parameters are ordinary and extreme. The law is scipy's in float64, of the very float32 numbers that the likelihood was given.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from numpy.polynomial.legendre import leggauss
from scipy import stats

from tests.anchors import LIKELIHOODS, TOGETHER, rows_for, small_vae
from tests.laws import law
from tests.oracles import Array
from vae import likelihoods
from vae.evidence.density import all_pairs, paired
from vae.likelihoods import Likelihood
from vae.options.registry import LIKELIHOODS as REGISTRY
from vae.training.fast.fused_terms import DENSITIES

TOLERANCE = 1e-5  # of a probability, and in nats
LARGEST_COUNT = 2**24  # from which float32 has no odd numbers
WINDOW = 4096  # counts that are summed at a time
QUANTILES = stats.norm.cdf(np.linspace(-4, 4, 17))
FINER = stats.norm.cdf(np.linspace(-4, 4, 25))
INNER = (
    1e-30,
    1e-20,
    1e-10,
    1e-5,
    1e-3,
    0.5,
    0.9,
    0.99,
    0.999,
)  # between 0 and 1, to integrate where quantiles are too near an end
RESOLVED = 2**11  # float32 numbers in a cell over which the density is integrated
HOSTILE = (-1e30, -1e4, -100.0, -88.0, 88.0, 100.0, 1e4, 1e30)


@dataclass(frozen=True)
class Case:
    """One column.

    Attributes:
        name: Of the likelihood.
        f: The network's output.
        options: Of the likelihood.
        learned: Numbers that the likelihood learns, as they are before their floor.
        narrow: The density is narrower than the spacing of float32 numbers: it is compared where these are.
    """

    name: str
    f: tuple[float, ...]
    options: dict[str, Any] = field(default_factory=dict)
    learned: dict[str, float] = field(default_factory=dict)
    narrow: bool = False

    def __str__(self) -> str:
        learned = ",".join(f"{name.partition('.')[0]}={value:.3g}" for name, value in self.learned.items())
        return f"{self.name}({','.join(f'{value:g}' for value in self.f)}{';' if learned else ''}{learned})"

    def module(self, D: int = 1) -> Likelihood:
        """In float32."""
        built: Likelihood = REGISTRY[self.name].build(likelihoods, D, **self.options)
        with torch.no_grad():
            for name, parameter in built.named_parameters():
                if name in self.learned:
                    parameter.fill_(self.learned[name])
        return built

    def output(self) -> torch.Tensor:
        return torch.tensor(self.f, dtype=torch.float32)

    def law(self) -> Any:
        return law(self.name, copy.deepcopy(self.module()).double(), tuple(self.output().double().tolist()))


def raw(value: float, floor: float = 0.0) -> float:
    """What softplus makes ``value`` above the floor of."""
    return float(np.log(np.expm1(min(value - floor, 700.0)))) if value - floor < 30 else value - floor


def of_scale(name: str, f: float, scale: float, option: str = "min_scale", learned: str = "scale.raw", **more: Any) -> Case:
    floor = min(scale / 2, 1e-2)
    return Case(name, (f,), {option: floor}, {learned: raw(scale, floor), **more})


STEPS_OF_COUNTS = [math.log(mean) for mean in (1e-3, 1.0, 300.0, 1e4, 1e5, 1e6)]
CASES = [
    *(Case("gaussian", (f,), {"variance": v}) for f, v in [(0.3, 0.5), (0.0, 1e-12), (-2.0, 1e12)]),
    *(
        Case(f"gaussian_{k}", (0.0,), {"min_variance": 1e-12}, {"log_excess": v})
        for k in ("learned", "per_dimension")
        for v in (0, -27, 27)
    ),
    *(Case("gaussian_heteroscedastic", (0.0, v), {"min_variance": 1e-12}) for v in (0.0, -60.0, 60.0, 1e12)),
    Case("gaussian", (1e4,), {"variance": 1e-12}, narrow=True),
    *(
        of_scale("student_t", f, s, **{"degrees.raw": d})
        for f, s in [(0.5, 1.0), (0.0, 1e-6), (3.0, 1e6)]
        for d in (-3.0, 1.0, 1e4)
    ),
    Case("student_t", (1e4,), {"min_scale": 1e-7}, {"scale.raw": raw(1e-6)}, narrow=True),
    *(of_scale("log_normal", f, s) for f, s in [(0.5, 1.0), (60.0, 1.0), (-60.0, 1.0), (0.0, 3e-3), (0.0, 20.0)]),
    Case("log_normal", (60.0,), {"min_scale": 1e-7}, {"scale.raw": raw(1e-6)}, narrow=True),
    *(of_scale("gamma", f, a, "min_shape", "shape.raw") for f in (0.5, 60.0, -60.0) for a in (0.01, 0.3, 3.0, 1e4)),
    of_scale("gamma", 0.5, 1e6, "min_shape", "shape.raw"),
    *(Case("beta", f) for f in [(0.0, 0.5), (-60.0, 1.0), (1.0, -60.0), (-60.0, -60.0), (60.0, 60.0), (1e3, 1e3), (1e6, 2e6)]),
    *(Case("zero_one_inflated_beta", (0.5, -1.0, *w)) for w in [(0.0, 0.5, 1.0), (15.0, 0.0, -1.0), (-60.0, 0.0, 60.0)]),
    *(
        Case("continuous_bernoulli", (f,))
        for f in (0.0, 1e-10, -1e-4, 0.019, -0.021, 3.0, 15.0, -15.0, 30.0, 60.0, -60.0, 1e3)
    ),
    *(Case("bernoulli", (f,)) for f in (0.0, 60.0, -60.0)),
    *(Case("categorical", f, {"levels": 3}) for f in [(0.0, 1.0, 2.0), (60.0, -60.0, 59.0), (1e4, 1e4, 0.0)]),
    *(Case("ordinal", (f,), {"levels": 5}, {"steps": s}) for f in (0.0, 60.0, -60.0) for s in (0.5, -20.0, -60.0, 30.0)),
    *(Case("binomial", (f,), {"trials": n}) for f in (0.0, 60.0, -60.0, -9.0) for n in (1, 16, 999)),
    *(Case("binomial", (f,), {"trials": 10**6}) for f in (0.0, 2.0, -9.0)),
    *(Case("poisson", (f,)) for f in STEPS_OF_COUNTS),
    *(
        Case("negative_binomial", (f,), {}, {"concentration.raw": r})
        for f in STEPS_OF_COUNTS
        for r in (-60.0, 0.5, 100.0, 1e6)
    ),
    *(
        Case("zero_inflated_negative_binomial", (f, z), {}, {"concentration.raw": 2.0})
        for f in STEPS_OF_COUNTS
        for z in (0.0, 60.0, -60.0)
    ),
    *(
        Case("discretized_logistic", (f,), {"levels": n, "min_scale": s / 2}, {"scale.raw": raw(s, s / 2)})
        for n in (2, 16, 256)
        for f, s in [(0.0, 0.1), (0.123, 1e-3), (0.123, 1e-6), (0.0, 1e6), (60.0, 0.1), (-60.0, 1e-3), (3e9, 1e6)]
    ),
]
by_case = pytest.mark.parametrize("case", CASES, ids=str)
CONTINUOUS = [case for case in CASES if REGISTRY[case.name].build(likelihoods, 1, **case.options).measure != "probability"]
DISCRETE = [case for case in CASES if case not in CONTINUOUS]


def test_every_likelihood_of_independent_columns_is_here() -> None:
    """Those of columns that depend on each other have a module of their own."""
    assert {case.name for case in CASES} == {options["name"] for options in LIKELIHOODS}


def log_prob(case: Case, y: Array) -> Array:
    """Of float32 values."""
    values = torch.tensor(y, dtype=torch.float32)
    with torch.no_grad():
        found = case.module()(case.output()).log_prob_columns(values[:, None])
    return found[:, 0].double().numpy()


def representable(case: Case, y: Any) -> Array:
    """The nearest float32 numbers in the support, rising, without repetition."""
    values = np.unique(np.clip(np.asarray(y, dtype=np.float64), -3e38, 3e38).astype(np.float32))
    if case.narrow:
        values = np.unique([np.nextafter(values, np.float32(side)) for side in (-np.inf, np.inf)])
    return np.asarray(values[case.module().support.contains(values)], dtype=np.float64)


@by_case
def test_log_prob_is_that_of_float64(case: Case) -> None:
    """At quantiles, and at the ends of the support: to 1e-5 nats, or 1e-6 of what is very unlikely."""
    law = case.law()
    y = representable(case, [*law.ppf(QUANTILES), 0, 1, 1e-37, 1e-3, 1 - 2**-24, 255, 1e6])
    y = y[y <= (LARGEST_COUNT if case in DISCRETE else np.inf)]
    expected = law.logpmf(y) if case in DISCRETE else law.logpdf(y)
    assert len(y)
    np.testing.assert_allclose(log_prob(case, y), expected, rtol=1e-6, atol=TOLERANCE)


@pytest.mark.parametrize("case", [case for case in CONTINUOUS if not case.narrow], ids=str)
def test_densities_integrate_to_the_distribution_function(case: Case) -> None:
    """Between quantiles, by Gauss and Legendre's rule at float32 numbers, which must not be too few for it."""
    law = case.law()
    low, high = cells(case, law.ppf(FINER))
    if len(low) < 8:  # the quantiles lie nearer to 0 or 1 than float32 numbers do to each other
        low, high = cells(case, [*law.ppf(FINER), *INNER])
    found = np.array([integral(case, a, b) for a, b in zip(low, high, strict=True)])
    expected = law.cdf(high) - law.cdf(low)
    assert len(expected) >= 8
    assert expected.sum() > 0.05 * getattr(law, "share", 1)
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


def cells(case: Case, edges: Any) -> tuple[Array, Array]:
    """The ends of the cells that hold `RESOLVED` float32 numbers and more."""
    edges = representable(case, edges)
    edges = edges if case.module().support.name == "real" else edges[edges > 1e-37]
    low, high = edges[:-1], edges[1:]
    resolved = (high - low) > RESOLVED * np.spacing(np.maximum(np.abs(low), np.abs(high)).astype(np.float32))
    return low[resolved], high[resolved]


def integral(case: Case, low: float, high: float) -> float:
    """In the logarithm of the distance to 0 or to 1 where that varies much."""
    nodes, weights = leggauss(24)
    origin, sign = 0.0, 1.0
    if low < 0:
        sign = -1.0
    elif high <= 1 and (1 - low) > 2 * (1 - high) and case.module().support.name in ("unit", "closed unit"):
        origin, sign = 1.0, -1.0
    a, b = sorted((sign * (low - origin), sign * (high - origin)))
    if 0 < 2 * a < b:
        distance = np.exp(np.log(a) + (nodes + 1) / 2 * np.log(b / a))
        weights = weights / 2 * np.log(b / a) * distance
    else:
        distance, weights = a + (nodes + 1) / 2 * (b - a), weights / 2 * (b - a)
    return float(np.exp(log_prob(case, origin + sign * distance)) @ weights)


@pytest.mark.parametrize("case", DISCRETE, ids=str)
def test_probabilities_sum_to_the_distribution_function(case: Case) -> None:
    """All of them to 1 where there are few, or else in windows around quantiles: to 1e-5 of what these hold."""
    law = case.law()
    support = case.module().support.name
    levels = int(support.partition("..")[2]) + 1 if ".." in support else 2 if support == "binary" else LARGEST_COUNT
    if levels <= WINDOW:
        assert np.exp(log_prob(case, np.arange(levels))).sum() == pytest.approx(1, abs=TOLERANCE)
        return
    for centre in {0.0, *law.ppf([1e-3, 0.1, 0.5, 0.9, 0.999])}:
        if centre > LARGEST_COUNT - WINDOW:
            continue
        first = max(0, int(centre) - WINDOW // 2)
        y = np.arange(first, min(first + WINDOW, levels), dtype=np.float64)
        expected = law.cdf(y[-1]) - law.cdf(first - 1.0)
        assert np.exp(log_prob(case, y)).sum() == pytest.approx(expected, rel=TOLERANCE, abs=1e-12)


@by_case
def test_draws_follow_the_distribution_function(case: Case) -> None:
    """A chi-squared test of up to 20 cells of 20,000 draws, at 3e-5."""
    module, law = case.module(), case.law()
    with torch.no_grad():
        drawn = module(case.output()).sample((20_000,), torch.Generator().manual_seed(7))
    assert drawn.dtype == torch.float32
    assert module.support.contains(drawn).all()
    draws = drawn[:, 0].double().numpy()
    edges = representable(case, law.ppf(np.linspace(0.05, 0.95, 19)))
    edges = edges[edges > 1e-37] if module.support.name in ("positive", "unit") else edges
    edges = edges[edges < 1 - 2**-20] if module.support.name == "unit" else edges
    if case.narrow or not len(edges):
        return
    observed = np.diff(np.searchsorted(np.sort(draws), edges, side="right"), prepend=0, append=len(draws))
    expected = np.diff(law.cdf(edges), prepend=0, append=1) * len(draws)
    assert observed[expected < 1e-3].sum() == 0
    few = expected < 5
    observed, expected = (np.append(of[~few], of[few].sum()) for of in (observed, expected))
    if expected[-1] < 5:
        observed, expected = observed[:-1], expected[:-1] * observed[:-1].sum() / expected[:-1].sum()
    assert len(observed) == 1 or stats.chisquare(observed, expected * observed.sum() / expected.sum()).pvalue > 3e-5


@by_case
def test_gradients_are_finite(case: Case) -> None:
    """Of outputs and of what is learned, at the ends of the support too, and wherever a network may have strayed.

    Gaussians are computed in float32, which has the squares of 1e6 in the least of these standard deviations, 1e-6.
    """
    module, law, reach = case.module(), case.law(), 1e6 if case.name.startswith("gaussian") else math.inf
    values = representable(case, [*law.ppf(QUANTILES), 0, 1, 1e-37, 1 - 2**-24, 1e6, 3e38])
    y = torch.tensor(values[np.abs(values) <= (LARGEST_COUNT if case in DISCRETE else reach)], dtype=torch.float32)[:, None]
    outputs = [case.output()]
    for k in range(len(case.f)):
        for value in HOSTILE:
            outputs.append(case.output())
            outputs[-1][k] = max(-reach, min(value, reach))
    for f in outputs:
        module.zero_grad()
        f.requires_grad_()
        module(f).log_prob(y).sum().backward()
        for gradient in (f.grad, *(parameter.grad for parameter in module.parameters())):
            assert gradient is None or gradient.isfinite().all(), f.tolist()


@pytest.mark.parametrize("options", LIKELIHOODS + TOGETHER, ids=lambda o: o["name"])
def test_all_ways_to_the_density_agree(options: dict[str, Any]) -> None:
    """To 1e-3 nats a row, after a few steps in float32: by pairs, all pairs, in training's own operation, and in float64."""
    vae, y = small_vae(options, D=16).float(), rows_for(options, N=64, D=16).float()
    vae.fit(y, max_epochs=5, batch_size=16, learning_rate=1e-2, progress=False, accelerator="cpu")
    y, copied = y[:8], copy.deepcopy(vae).double()
    z = 2 * torch.randn(5, 8, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = copied.generative(z.double()).log_prob(y.double())
        pairs = all_pairs(vae.generative, y, z[0])
        found = {
            "the distribution": vae.generative(z).log_prob(y),
            "its columns": vae.generative(z).log_prob_columns(y).sum(dim=-1),
            "paired": paired(vae.generative, y)(z),
            "all pairs": torch.stack([pairs.at(z[:, n])(slice(n, n + 1)) + pairs.offset[n] for n in range(8)], dim=1)[..., 0],
        }
        if density := DENSITIES.get(type(vae.generative.likelihood)):
            found["training"] = density(vae.generative.features(z), y)[0]
    with_gradient = z.clone().requires_grad_()
    found["paired, with a gradient"] = paired(vae.generative, y)(with_gradient).detach()
    for name, value in found.items():
        torch.testing.assert_close(value.double(), expected, rtol=0, atol=1e-3, msg=lambda text, name=name: f"{name}: {text}")  # type: ignore[misc]


@by_case
def test_float32_and_float64_likelihoods_agree_on_the_same_outputs(case: Case) -> None:
    """Where one is trained and the other evaluates: to 1e-6 of what is very unlikely, and 1e-5 nats."""
    law = case.law()
    y = torch.tensor(representable(case, law.ppf(QUANTILES)), dtype=torch.float32)[:, None]
    with torch.no_grad():
        found = case.module()(case.output()).log_prob(y)
        expected = copy.deepcopy(case.module()).double()(case.output().double()).log_prob(y.double())
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=TOLERANCE)
