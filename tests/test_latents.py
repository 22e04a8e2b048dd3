"""Priors and posteriors: normalised, invertible, equal to what scipy or a sum by hand gives, and in every combination."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal, norm
from torch.distributions import MultivariateNormal, kl_divergence

from tests.anchors import LinearGaussian, rows_for, set_affine, within_error
from vae import ELBO, VAE, objectives
from vae.distributions.flows import Flow, Transported
from vae.distributions.latent import FullNormal, NormalMixture
from vae.distributions.noise import generator
from vae.evidence import (
    Annealing,
    annealed_importance_sampling,
    evidence_lower_bound,
    exact,
    exact_applies,
    importance_sampling,
    inference_gap,
    latent_usage,
    prior_sampling,
)
from vae.objectives import FreeBits, StickingTheLanding
from vae.options.registry import POSTERIORS, PRIORS
from vae.settings import OBJECTIVES

NORMAL = {"name": "gaussian"}
SMALL: dict[str, dict[str, Any]] = {
    "gaussian_mixture": {"components": 4},
    "vamp": {"components": 5},
    "flow": {"transforms": 2, "hidden": [8]},
}
REFUSED = [("vamp", posterior) for posterior in POSTERIORS if posterior != "diagonal_gaussian"]
PAIRS = [(prior, posterior) for prior in PRIORS for posterior in POSTERIORS if (prior, posterior) not in REFUSED]


def made(
    prior: str = "standard_normal", posterior: str = "diagonal_gaussian", K: int = 2, spread: float = 0.4, **settings: Any
) -> VAE:
    """A small model whose weights are that far from where training begins."""
    chosen = {"data_dim": 4, "likelihood": NORMAL, "seed": 3} | settings
    parts = {"prior": {"name": prior, **SMALL.get(prior, {})}, "posterior": {"name": posterior, **SMALL.get(posterior, {})}}
    vae = VAE({"hidden": (7,)}, {"hidden": (6,)}, latent_dim=K, **parts, **chosen).double()
    noise = generator(1, "weights")
    with torch.no_grad():
        for weights in [*vae.prior.parameters(), *vae.inference.posterior.parameters()]:
            weights.add_(spread * torch.randn(weights.shape, generator=noise, dtype=torch.float64))
    return vae


def plain(prior: str | dict[str, Any], K: int = 2, **settings: Any) -> VAE:
    """A model whose generative network has no hidden layer."""
    return VAE({"hidden": ()}, {"hidden": (5,)}, data_dim=4, latent_dim=K, likelihood=NORMAL, prior=prior, **settings)


def mass(distribution: Any, K: int, reach: float = 9.0, points: int = 601) -> float:
    """Of its box, by the trapezoidal rule."""
    centre, scale = (part.detach() for part in distribution.extent)
    axis = torch.linspace(-reach, reach, points, dtype=torch.float64)
    grid = torch.cartesian_prod(*[axis] * K).reshape(-1, K)
    density = distribution.log_prob(centre + scale * grid).exp().sum()
    return float(density * scale.prod() * (axis[1] - axis[0]) ** K)


@pytest.mark.parametrize("K", [1, 2])
@pytest.mark.parametrize("name", PRIORS)
def test_priors_are_normalised(name: str, K: int) -> None:
    with torch.no_grad():
        is_one(mass(prior := made(name, K=K).prior(), K, points=points(prior, K)), prior)


@pytest.mark.parametrize("K", [1, 2])
@pytest.mark.parametrize("name", POSTERIORS)
def test_posteriors_are_normalised(name: str, K: int) -> None:
    vae = made(posterior=name, K=K)
    with torch.no_grad():
        for y in rows_for(NORMAL)[:2]:
            is_one(mass(q := vae.inference(y), K, points=points(q, K)), q)


def points(of: Any, K: int) -> int:
    """Along an axis: a flow's density has kinks, where the rule's error falls with the spacing only."""
    return 200_001 if isinstance(of, Transported) and K == 1 else 601


def is_one(value: float, of: Any) -> None:
    """As far as such points can tell."""
    assert value == pytest.approx(1, abs=3e-3 if isinstance(of, Transported) else 1e-9)


@pytest.mark.parametrize("context", [0, 3])
@pytest.mark.parametrize("K", [1, 2, 5])
def test_flows_are_invertible_with_the_right_determinants(K: int, context: int) -> None:
    torch.manual_seed(0)
    flow = Flow(K, 3, [16], context).double()
    z = 2 * torch.randn(20, K, dtype=torch.float64)
    c = torch.randn(20, context, dtype=torch.float64) if context else None
    noise, log_derivative = flow(z, c)
    back, log_inverse = flow(noise, c, to_noise=False)
    torch.testing.assert_close(back, z, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(log_inverse, -log_derivative, rtol=1e-8, atol=1e-9)
    assert not torch.allclose(noise, z, atol=1e-2)
    for n in range(5):
        own = None if c is None else c[n]
        jacobian = torch.autograd.functional.jacobian(lambda x, own=own: flow(x, own)[0], z[n])
        torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, log_derivative[n], rtol=1e-9, atol=1e-9)


def test_a_mixture_by_scipy() -> None:
    rng = np.random.default_rng(0)
    weights, mean, stddev = rng.dirichlet(np.ones(5)), 3 * rng.normal(size=(5, 3)), rng.uniform(0.01, 2, size=(5, 3))
    mixture = NormalMixture(*(torch.from_numpy(x) for x in (np.log(weights), mean, stddev)))
    z = mixture.sample((200,), generator(0, "z"))
    parts = norm(mean, stddev).logpdf(z.numpy()[:, None]).sum(-1) + np.log(weights)
    np.testing.assert_allclose(mixture.log_prob(z), np.logaddexp.reduce(parts, axis=1), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(mixture.mean, weights @ mean)
    np.testing.assert_allclose(mixture.variance, weights @ (stddev**2 + mean**2) - (weights @ mean) ** 2)


def test_narrow_components_far_out_keep_float32s_precision() -> None:
    """The squares cancel to a part in 10^8 of what they are; products in float32 would be off by whole nats."""
    mean, stddev = torch.tensor([[40.0, -40.0], [3.0, 2.0]]), torch.full((2, 2), 0.01)
    mixture = NormalMixture(torch.full((2,), 0.5).log(), mean, stddev)
    z = mean[0] + 0.02
    exact = norm(40.0, 0.01).logpdf(z[0].item()) + norm(-40.0, 0.01).logpdf(z[1].item()) + np.log(0.5)
    assert mixture.log_prob(z).item() == pytest.approx(exact, abs=0.01)  # as 0.01 itself is rounded to float32


def test_full_covariance_by_scipy() -> None:
    rng = np.random.default_rng(1)
    mean, root = rng.normal(size=3), np.tril(rng.normal(size=(3, 3)), -1) + np.diag(rng.uniform(0.3, 2, size=3))
    q = FullNormal(torch.from_numpy(mean), torch.from_numpy(root))
    z = rng.normal(size=(7, 3))
    np.testing.assert_allclose(q.log_prob(torch.from_numpy(z)), multivariate_normal(mean, root @ root.T).logpdf(z))
    np.testing.assert_allclose(q.transform(torch.from_numpy(z)), mean + z @ root.T)
    np.testing.assert_allclose(q.variance, np.diag(root @ root.T))
    prior = made(K=3).prior()
    exact = kl_divergence(q, MultivariateNormal(torch.zeros(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)))
    assert kl_divergence(q, prior).item() == pytest.approx(exact.item())


def test_the_lower_triangle_is_filled_row_by_row() -> None:
    vae = made(posterior="full_covariance_gaussian", K=3)
    f = torch.tensor([1.0, 2.0, 3.0, 0.0, 1.0, -1.0, 10.0, 20.0, 30.0], dtype=torch.float64)
    q = vae.inference.posterior(f)
    expected = torch.tensor([[1.0, 0.0, 0.0], [10.0, 2.0, 0.0], [20.0, 30.0, np.exp(-1)]], dtype=torch.float64)
    torch.testing.assert_close(q.scale_tril, expected)
    torch.testing.assert_close(q.mean, torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))


def test_a_vamp_prior_with_pseudo_inputs_by_hand() -> None:
    vae = made("vamp")
    u = rows_for(NORMAL)[:5]
    with torch.no_grad():
        vae.prior.pseudo_inputs.copy_(u)
    mean, variance = (x.numpy() for x in vae.infer(u))
    z = np.random.default_rng(0).normal(size=(50, 2))
    by_hand = np.log(np.mean([norm(m, np.sqrt(v)).pdf(z).prod(-1) for m, v in zip(mean, variance, strict=True)], axis=0))
    np.testing.assert_allclose(vae.prior().log_prob(torch.from_numpy(z)).detach(), by_hand, rtol=1e-9)


def test_a_vamp_prior_begins_at_training_rows() -> None:
    vae, y = made("vamp"), rows_for(NORMAL)
    quick = {"max_epochs": 1, "learning_rate": 1e-12, "accelerator": "cpu", "precision": "64-true", "progress": False}
    vae.fit(y, **quick)
    distance = torch.cdist(vae.prior.pseudo_inputs.detach(), y)
    assert (distance.amin(dim=1) < 0.1).all()
    assert len(set(distance.argmin(dim=1).tolist())) == 5
    kept = vae.prior.pseudo_inputs.detach().clone()
    vae.fit(y, **quick)
    torch.testing.assert_close(vae.prior.pseudo_inputs.detach(), kept, rtol=0, atol=1e-6)


def distributions() -> list[Any]:
    """Of each kind one, over latents of two dimensions."""
    y = rows_for(NORMAL)[:6]
    return [*(made(name).prior() for name in PRIORS), *(made(posterior=name).inference(y) for name in POSTERIORS)]


@pytest.mark.parametrize("of", distributions(), ids=lambda of: type(of).__name__)
def test_scores_are_gradients(of: Any) -> None:
    z = torch.randn(9, 6, 2, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(of.log_prob(z).sum(), z)
    torch.testing.assert_close(of.score(z.detach()).detach(), gradient, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("of", distributions(), ids=lambda of: type(of).__name__)
def test_draws_have_the_mean_the_variance_and_the_entropy(of: Any) -> None:
    """Flows' moments are means over 256 draws: to 0.4 standard deviations. E[score] = 0 where draws are of the density.

    Up to 36 comparisons at 6e-5 each: false-alarm rate 2.2e-3 a distribution.
    """
    z = of.sample((20_000,), generator(0, "draws"))
    scores = of.score(z).detach().reshape(len(z), -1)
    for column in scores.T:
        assert within_error(column, 0.0)
    mean, variance = (part.detach().reshape(-1) for part in (of.mean, of.variance))
    for column, m, v in zip(z.reshape(len(z), -1).T, mean, variance, strict=True):
        if isinstance(of, Transported):
            assert abs(column.mean() - m) < 0.4 * v.sqrt()
            assert 0.5 < column.var() / v < 2
        else:
            assert within_error(column, m.item())
            assert within_error((column - m).square(), v.item())


@pytest.mark.parametrize("of", distributions(), ids=lambda of: type(of).__name__)
def test_a_detached_distribution_is_the_same_without_gradient(of: Any) -> None:
    z = torch.randn(4, 6, 2, dtype=torch.float64)
    held = of.detach().log_prob(z)
    torch.testing.assert_close(held, of.log_prob(z).detach())
    assert not held.requires_grad


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_sticking_the_landing_holds_the_flow_too(posterior: str) -> None:
    """The gradient of log q of held parameters by the latents is the score; none reaches the parameters through q itself."""
    vae, y = made(posterior=posterior), rows_for(NORMAL)
    value = StickingTheLanding(3)(vae, y, generator(0, "x"))
    torch.testing.assert_close(value.loss, ELBO(3)(vae, y, generator(0, "x")).loss)
    weights = [*vae.inference.parameters()]
    found = torch.autograd.grad(value.loss.sum(), weights)
    q = vae.inference(y)
    z = q.rsample((3,), generator(0, "x"))
    log_joint = vae.generative(z).log_prob(y) + vae.prior().log_prob(z)
    path = log_joint.mean(dim=0) - (q.score(z.detach()).detach() * z).sum(dim=-1).mean(dim=0)
    for one, other in zip(found, torch.autograd.grad(-path.sum(), weights), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


@torch.no_grad()
def log_likelihood(vae: VAE, y: torch.Tensor) -> torch.Tensor:
    """By quadrature; with a flow as prior, whose density has kinks, on a fine grid, to 1e-4."""
    if exact_applies(vae):
        return exact(vae, y).log_likelihood
    axis = torch.linspace(-6, 6, 1201, dtype=torch.float64)
    parts = [
        (vae.generative(z[:, None]).log_prob(y) + vae.prior().log_prob(z)[:, None]).logsumexp(dim=0)
        for z in torch.cartesian_prod(axis, axis).split(2**15)
    ]
    return torch.stack(parts).logsumexp(dim=0) + 2 * (axis[1] - axis[0]).log()


WITHOUT_FLOWS = [pair for pair in PAIRS if "flow" not in pair]
WITH_FLOWS = [pytest.param(*pair, marks=pytest.mark.slow) for pair in PAIRS if "flow" in pair]


@pytest.mark.parametrize(("prior", "posterior"), [*WITHOUT_FLOWS, *WITH_FLOWS], ids=lambda name: name)
def test_every_combination_trains_and_is_evaluated(prior: str, posterior: str, tmp_path: Path) -> None:
    """Against quadrature: means over rows of 20 repeats, four at 6e-5 each: false-alarm rate 2.4e-4."""
    vae, y = made(prior, posterior, spread=0.1), rows_for(NORMAL)
    start = {name: value.detach().clone() for name, value in vae.named_parameters()}
    settings = {"max_epochs": 2, "batch_size": 8, "accelerator": "cpu", "precision": "64-true", "progress": False}
    vae.fit(y, validation=y, learning_rate=0.01, **settings)
    assert not any(torch.equal(value, start[name]) for name, value in vae.named_parameters())
    for row in vae.history.rows:
        assert row["valid_elbo"] == pytest.approx(row["valid_reconstruction"] - row["valid_kl"])

    vae.save(tmp_path)
    loaded = VAE.load(tmp_path)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in vae.state_dict().items())
    assert torch.equal(loaded.generate(5, seed=1), vae.generate(5, seed=1))
    assert [part.shape for part in loaded.infer(y)] == [(20, 2), (20, 2)]

    truth = log_likelihood(vae, y)
    repeated, quick = y.repeat(20, 1), Annealing(temperatures=4, leapfrog_steps=2)
    found = [importance_sampling(vae, repeated, 1000), annealed_importance_sampling(vae, repeated, 4, annealing=quick)]
    estimates = [estimate.log_likelihood.reshape(20, -1) for estimate in found]
    estimates.append(torch.stack([prior_sampling(vae, y, 2000, seed=s).log_likelihood for s in range(20)]))
    for estimate in estimates:
        assert within_error((estimate - truth).exp().mean(dim=1), 1.0)
    bounds = [evidence_lower_bound(vae, y, 100, seed=s) for s in range(20)]
    gap = inference_gap(vae, y, truth, steps=60, S=400)
    assert (torch.stack([bound.elbo for bound in bounds]).mean(dim=0) < truth + 0.01).all()
    assert gap.approximation.mean() > -0.01
    usage = latent_usage(vae, y)
    assert (usage.kl is None) == (not (prior == "standard_normal" and posterior == "diagonal_gaussian"))
    assert usage.aggregate_variance.shape == (2,)


@pytest.mark.parametrize(("prior", "posterior"), PAIRS, ids=lambda name: name)
def test_the_sampled_kl_is_in_the_bound(prior: str, posterior: str) -> None:
    """E_q[log q - log p] by the model's own terms and by the bound's; 20 rows in one mean at 6e-5."""
    vae, y = made(prior, posterior), rows_for(NORMAL)
    with torch.no_grad():
        terms = torch.stack([vae.terms(y, 50, seed=s).monte_carlo.mean() for s in range(60)])
        bounds = torch.stack([evidence_lower_bound(vae, y, 50, seed=s).kl.mean() for s in range(60)])
    assert within_error(terms - bounds, 0.0) or (bounds.std() == 0 and within_error(terms, bounds[0].item()))


@pytest.mark.parametrize("K", [1, 2, 3])
@pytest.mark.parametrize("prior", ["gaussian_mixture", "vamp"])
def test_pca_with_a_mixture_as_prior(prior: str, K: int) -> None:
    """log p(y) in closed form: against quadrature, or, in three dimensions, by 2e5 draws: 0.015 is 5 standard errors."""
    vae, y = plain({"name": prior, **SMALL[prior]}, K).double(), rows_for(NORMAL)[:6]
    answer = exact(vae, y)
    assert answer.method == "closed form"
    if K < 3:
        from vae.evidence.integration.quadrature import quadrature

        found = quadrature(vae, y, advance=lambda rows: None)
        torch.testing.assert_close(found.log_likelihood, answer.log_likelihood, rtol=0, atol=1e-7)
    else:
        estimate = prior_sampling(vae, y, 200_000)
        assert (estimate.log_likelihood - answer.log_likelihood).abs().max() < 0.015


def test_no_exact_answer_with_a_flow_as_prior() -> None:
    """Whose density has kinks, so that sums over grids do not settle."""
    for K in (1, 2, 3):
        assert not exact_applies(plain("flow", K))
        assert exact_applies(plain("standard_normal", K))
    with pytest.raises(ValueError, match="a prior that is normal or a mixture; got prior 'flow'"):
        exact(plain("flow"), rows_for(NORMAL).float())


def test_full_covariance_reaches_the_exact_posterior() -> None:
    """PCA's posterior with two latent dimensions is no diagonal one: the ELBO is log p(y) with it, and below without."""
    model = LinearGaussian(2, 3, 0.5, widen=1.0)
    vae = VAE({"hidden": ()}, {"hidden": ()}, data_dim=3, latent_dim=2, likelihood={"name": "gaussian", "variance": 0.5},
              posterior="full_covariance_gaussian").double()  # fmt: skip
    vae.generative.load_state_dict(model.vae.generative.state_dict())
    posterior = np.linalg.inv(np.eye(2) + model.W.T @ model.W / 0.5)
    gain, root = posterior @ model.W.T / 0.5, np.linalg.cholesky(posterior)
    s = np.where(np.diag(root) < 1, np.log(np.diag(root)), np.diag(root) - 1)
    slope = np.vstack([gain, np.zeros((3, 3))])
    set_affine(vae.inference.network[0], slope, np.concatenate([-gain @ model.b, s, [root[1, 0]]]))
    diagonal = np.diag(np.diag(posterior))
    gap = 0.5 * (
        np.trace(np.linalg.solve(posterior, diagonal)) - 2 + np.log(np.linalg.det(posterior) / np.linalg.det(diagonal))
    )
    with torch.no_grad():
        elbo = ELBO(1)(vae, model.y, generator(0, "x")).elbo
        below = torch.stack([evidence_lower_bound(model.vae, model.y, 100, seed=s).elbo.mean() for s in range(100)])
    np.testing.assert_allclose(elbo, model.log_likelihood, rtol=1e-9)
    assert gap > 0.001
    assert within_error(below, model.log_likelihood.mean() - gap)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: made("vamp", "flow"), "needs posterior 'diagonal_gaussian'"),
        (lambda: made("vamp", "full_covariance_gaussian"), "needs posterior 'diagonal_gaussian'"),
        (lambda: made("uniform"), "prior must be one of flow, gaussian_mixture, standard_normal, vamp; got 'uniform'"),
        (lambda: made(posterior="cauchy"), "posterior must be one of .*; got 'cauchy'"),
        (lambda: made("flow", objective=ELBO(kl="closed_form")), "prior 'flow': set kl to 'monte_carlo'"),
        (lambda: made(posterior="flow", objective=FreeBits()), "free bits are of single latent dimensions"),
        (lambda: plain({"name": "gaussian_mixture", "components": 0}), "components must be at least 1; got 0"),
        (lambda: plain({"name": "flow", "hidden": []}), "hidden must have at least 1 item"),
    ],
)
def test_what_does_not_go_together_is_refused(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_trains_every_combination_or_says_why_not(name: str) -> None:
    """Some steps, after which the evidence is finite; what is refused is so before the first."""
    y = rows_for(NORMAL)[:8]
    quick: dict[str, Any] = {"max_epochs": 2, "batch_size": 4, "accelerator": "cpu", "precision": "64-true", "progress": False}
    for prior, posterior in PAIRS:
        vae = made(prior, posterior)
        vae.objective = OBJECTIVES[name].build(objectives)
        if name == "free_bits" and (prior, posterior) != ("standard_normal", "diagonal_gaussian"):
            with pytest.raises(ValueError, match="free bits are of single latent dimensions"):
                vae.fit(y, **quick)
            continue
        before = vae.pack_weights()
        vae.fit(y, **quick)
        assert not torch.isclose(vae.pack_weights(), before, rtol=0, atol=1e-12).all()
        assert math.isfinite(vae.history.rows[-1]["train_bound"])
        assert vae.log_likelihood(y, 5, estimator="importance").isfinite().all()
