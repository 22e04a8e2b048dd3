"""Two and three layers of latents, against linear-Gaussian chains, products of scipy's densities, and quadrature."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import norm
from torch import nn

from tests.anchors import rows_for, within_error
from tests.chains import Array, LinearChain, forward, through
from tests.test_latents import SMALL, mass
from vae import ELBO, VAE
from vae.distributions.noise import generator, of_step
from vae.evidence import (
    Annealing,
    annealed_importance_sampling,
    bidirectional_bounds,
    evidence_lower_bound,
    exact,
    exact_applies,
    importance_sampling,
    inference_gap,
    latent_usage,
    prior_sampling,
)
from vae.evidence.density import all_pairs, paired
from vae.objectives import IWAE, PIWAE, BetaELBO, DReG, FreeBits, Objective, StickingTheLanding
from vae.options.registry import HIERARCHIES

NORMAL = {"name": "gaussian"}
TOPS = ("standard_normal", "gaussian_mixture", "flow")
QUICK = {"accelerator": "cpu", "precision": "64-true", "progress": False}

both = pytest.mark.parametrize("name", HIERARCHIES)


def made(
    name: str, sizes: tuple[int, ...] = (1, 1), spread: float = 0.3, prior: str = "standard_normal", **settings: Any
) -> VAE:
    """A small model whose weights are that far from where training begins."""
    hierarchy = {"name": name, "hidden": [[5]] * (len(sizes) - 1)}
    chosen = {"data_dim": 4, "likelihood": NORMAL, "seed": 3, "hierarchy": hierarchy} | settings
    top = {"name": prior, **SMALL.get(prior, {})}
    vae = VAE({"hidden": (7,)}, {"hidden": (6,)}, latent_dim=sizes, prior=top, **chosen).double()
    noise = generator(1, "weights")
    with torch.no_grad():
        for weights in [*vae.prior.parameters(), *vae.inference.posterior.parameters()]:
            weights.add_(spread * torch.randn(weights.shape, generator=noise, dtype=torch.float64))
    return vae


def log_normal(z: Array, mean: Array, stddev: Array) -> Array:
    return np.asarray(norm(mean, stddev).logpdf(z).sum(axis=-1))


LATENTS = np.random.default_rng(0).normal(size=(5, 6, 6))  # of layers of 3, 2 and 1 dimensions
LAYERS = np.split(LATENTS, [3, 5], axis=-1)


@both
def test_the_prior_by_scipy(name: str) -> None:
    vae = made(name, (3, 2, 1))
    one, two, three = LAYERS
    to_two, to_one = vae.prior.descent
    expected = log_normal(three, 0 * three, 0 * three + 1)
    expected += log_normal(two, *forward(to_two, three)) + log_normal(one, *forward(to_one, two))
    np.testing.assert_allclose(vae.prior().log_prob(torch.tensor(LATENTS)).detach(), expected, rtol=1e-10)


def test_the_posterior_upwards_by_scipy() -> None:
    vae, y = made("bottom_up", (3, 2, 1)), rows_for(NORMAL)[:6]
    one, two, three = LAYERS
    to_two, to_three = vae.inference.posterior.ascent
    mean, s = through(vae.inference.network, y.numpy())
    expected = log_normal(one, mean, as_stddev(s))
    expected += log_normal(two, *forward(to_two, one)) + log_normal(three, *forward(to_three, two))
    np.testing.assert_allclose(vae.inference(y).log_prob(torch.tensor(LATENTS)).detach(), expected, rtol=1e-10)


def test_the_ladder_by_scipy() -> None:
    """Precisions add up, and means weigh by them; five numbers, a hidden layer's, go up to each following layer."""
    vae, y = made("ladder", (3, 2, 1)), rows_for(NORMAL)[:6]
    one, two, three = LAYERS
    with torch.no_grad():
        f = vae.inference.features(y)
        rise = vae.inference.posterior.ascent
        second = rise[0][1](f[:, 6:].tanh())
        third = rise[1][1](second[:, 4:].tanh())
    assert [part.shape[1] for part in (f, second, third)] == [6 + 5, 4 + 5, 2]
    each = zip((f.numpy(), second.numpy(), third.numpy()), (3, 2, 1), strict=True)
    said = [(part[:, :K], as_stddev(part[:, K : 2 * K])) for part, K in each]
    expected = log_normal(three, *said[2])
    for layer, above, link, (mean, stddev) in zip((two, one), (three, two), vae.prior.descent, said[1::-1], strict=True):
        prior_mean, prior_stddev = forward(link, above)
        precision = prior_stddev**-2 + stddev**-2
        expected += log_normal(layer, (prior_mean * prior_stddev**-2 + mean * stddev**-2) / precision, precision**-0.5)
    np.testing.assert_allclose(vae.inference(y).log_prob(torch.tensor(LATENTS)).detach(), expected, rtol=1e-10)


def as_stddev(s: Array) -> Array:
    return np.where(s < 0, np.exp(s), 1 + s)


@both
def test_densities_are_normalised(name: str) -> None:
    vae = made(name)
    with torch.no_grad():
        for of in (vae.prior(), *(vae.inference(y) for y in rows_for(NORMAL)[:2])):
            assert mass(of, 2) == pytest.approx(1, abs=1e-6)


@both
def test_draws_are_of_the_density(name: str) -> None:
    """log q(T(noise)) + log |dT/dnoise| = log N(noise), and `rsample` is T of noise of its own."""
    vae, y = made(name, (3, 2, 1)), rows_for(NORMAL)[:2]
    for of in (vae.inference(y[0]), vae.prior()):
        noise = torch.randn(6, generator=generator(0, "noise"), dtype=torch.float64)
        jacobian = torch.autograd.functional.jacobian(of.transform, noise)
        torch.testing.assert_close(of.to_noise(of.transform(noise)), noise)
        found = of.log_prob(of.transform(noise)) + torch.linalg.slogdet(jacobian).logabsdet
        assert found.item() == pytest.approx(norm.logpdf(noise).sum())
    several = vae.inference(y).rsample((4,), generator(0, "z"))
    assert several.shape == (4, 2, 6)


@both
@pytest.mark.parametrize("prior", TOPS)
def test_draws_have_the_mean_the_variance_and_no_mean_score(name: str, prior: str) -> None:
    """E[score] = 0 at 6e-5 for each of at most 15 columns, false-alarm rate 9e-4; moments, of 256 draws, to 0.4 stddevs."""
    vae = made(name, (2, 1), prior=prior)
    for of in (vae.prior(), vae.inference(rows_for(NORMAL)[:3])):
        z = of.sample((20_000,), generator(0, "draws"))
        for column in of.score(z).detach().reshape(len(z), -1).T:
            assert within_error(column, 0.0)
        spread = of.stddev
        assert ((z.mean(dim=0) - of.mean).abs() < 0.4 * spread).all()
        assert ((z.var(dim=0) / spread.square()).log().abs() < np.log(2)).all()


@both
def test_moments_of_linear_chains_and_each_rows_own(name: str) -> None:
    """The layer drawn first is exact; of the others' 256 draws 5 standard errors are allowed: 6e-7 each."""
    model = LinearChain(name, (1, 1, 1))
    mean, variance = (part.numpy() for part in model.vae.infer(model.y))
    for number in (1, 2, 3):
        slope, offset, covariance = model.given(number, "y")
        of_mean = np.abs(mean[:, number - 1] - (model.y.numpy() @ slope[0] + offset[0])) / np.sqrt(covariance[0, 0])
        of_variance = np.abs(variance[:, number - 1] / covariance[0, 0] - 1)
        first = number == (1 if name == "bottom_up" else 3)
        assert of_mean.max() < (1e-9 if first else 5 / 16)
        assert of_variance.max() < (1e-9 if first else 5 / 16 * np.sqrt(2))
    alone = [model.vae.infer(model.y[n : n + 1])[0] for n in range(3)]
    torch.testing.assert_close(torch.cat(alone).numpy(), mean[:3], rtol=1e-12, atol=1e-12)
    prior = model.vae.prior()
    for number in (1, 2, 3):
        assert prior.variance[number - 1].item() == pytest.approx(model.covariance(number, number)[0, 0], rel=5 / 16 * 1.5)


@both
@pytest.mark.parametrize("sizes", [(1, 1), (1, 1, 1)])
def test_the_bounds_are_log_p_where_q_is_the_posterior(name: str, sizes: tuple[int, ...]) -> None:
    """Draw by draw; and below it where q is not: by far more than the error of 2000 draws."""
    model = LinearChain(name, sizes)
    for objective in (ELBO(2), IWAE(3), DReG(3), PIWAE(2, averages=2), StickingTheLanding(2)):
        value = objective(model.vae, model.y, generator(0, "x"))
        np.testing.assert_allclose(value.bound.detach(), model.log_likelihood, rtol=1e-9)
        np.testing.assert_allclose(value.elbo.detach(), model.log_likelihood, rtol=1e-9)
    np.testing.assert_allclose(evidence_lower_bound(model.vae, model.y, 10).elbo, model.log_likelihood, rtol=1e-9)
    wide = LinearChain(name, sizes, widen=1.5)
    below = evidence_lower_bound(wide.vae, wide.y, 2000).elbo.numpy() - wide.log_likelihood
    assert (below < -0.05).all()


@both
@pytest.mark.parametrize("sizes", [(1, 1), (1, 1, 1), (3, 2)])
def test_estimators_are_unbiased(name: str, sizes: tuple[int, ...]) -> None:
    """exp(estimate - log p(y)) has mean 1: three estimators, each at 6e-5; false-alarm rate 1.8e-4."""
    model = LinearChain(name, sizes, widen=1.3, variance=0.5 if sizes[0] == 1 else 4.0)
    y, quick = model.y[:2].repeat(200, 1), Annealing(temperatures=5, leapfrog_steps=2, step_sizes=(0.3, 0.3, 0.3))
    truth = torch.tensor(model.log_likelihood[:2])
    found = [importance_sampling(model.vae, y, 200), annealed_importance_sampling(model.vae, y, 8, annealing=quick)]
    ratios = [(estimate.log_likelihood.reshape(200, 2) - truth).exp().mean(dim=1) for estimate in found]
    drawn = [prior_sampling(model.vae, model.y[:2], 500, seed=seed).log_likelihood for seed in range(100)]
    ratios.append((torch.stack(drawn) - truth).exp().mean(dim=1))
    for ratio in ratios:
        assert within_error(ratio, 1.0)
        assert ratio.std() / np.sqrt(len(ratio)) < 0.12  # four of which a bias would have to exceed


@both
@pytest.mark.parametrize(("start", "widen"), [("posterior", 1.0), ("prior", 1.0), ("prior", 1.5)])
def test_annealing_where_a_layer_all_but_determines_the_next(name: str, start: Any, widen: float) -> None:
    """The latents can move only together, but their noise freely. Two means over 60 rows, each at 6e-5."""
    model = LinearChain(name, (1, 1), widen=1.5, tight=0.02)
    settings = Annealing(temperatures=12, leapfrog_steps=3, start=start, widen=widen, step_sizes=(0.6,) * 10)
    bounds = bidirectional_bounds(model.vae, 60, 4, annealing=settings)
    truth = torch.tensor(model.log_density(bounds.y))
    for ratio in ((bounds.lower.log_likelihood - truth).exp(), (truth - bounds.upper.log_likelihood).exp()):
        assert within_error(ratio, 1.0)
        assert ratio.std() < 1
    assert bounds.lower.acceptance.mean() > 0.9  # 0.02 at most, if positions were latents


def test_exact_values_of_one_and_one_dimension() -> None:
    """Quadrature against the closed form, and against a sum over a fine grid where networks are curved."""
    model = LinearChain("bottom_up", (1, 1), N=1)
    found = exact(model.vae, model.y)
    assert found.method == "quadrature"
    np.testing.assert_allclose(found.log_likelihood, model.log_likelihood, rtol=1e-8)
    vae, y = made("ladder"), rows_for(NORMAL)[:1]
    axis = torch.linspace(-9, 9, 361, dtype=torch.float64)
    noise = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        scores = vae.generative(vae.prior().transform(noise)[:, None]).log_prob(y).numpy()
    by_hand = logsumexp(scores + norm.logpdf(noise).sum(axis=1)[:, None], axis=0) + 2 * np.log(0.05)
    np.testing.assert_allclose(exact(vae, y).log_likelihood, by_hand, atol=1e-6)
    assert not exact_applies(made("ladder", (2, 1)))
    assert not exact_applies(made("ladder", prior="flow"))


@pytest.mark.parametrize(("name", "prior"), [("bottom_up", TOPS[0]), ("bottom_up", TOPS[1]), ("ladder", TOPS[2])])
def test_every_top_prior_trains_and_is_evaluated(name: str, prior: str, tmp_path: Path) -> None:
    vae, y = made(name, (2, 1, 2), spread=0.1, prior=prior), rows_for(NORMAL)
    start = {key: value.detach().clone() for key, value in vae.named_parameters()}
    vae.fit(y, validation=y, max_epochs=2, batch_size=8, learning_rate=0.01, **QUICK)
    assert not any(torch.equal(value, start[key]) for key, value in vae.named_parameters())
    vae.save(tmp_path)
    loaded = VAE.load(tmp_path)
    assert loaded.card == vae.card
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in vae.state_dict().items())
    assert torch.equal(loaded.generate(5, seed=1), vae.generate(5, seed=1))
    assert [part.shape for part in loaded.infer(y)] == [(20, 5), (20, 5)]
    quick = Annealing(temperatures=4, leapfrog_steps=2, step_sizes=(0.3, 0.3))
    assert torch.isfinite(bidirectional_bounds(vae, 5, 2, annealing=quick).upper.log_likelihood).all()
    gap = inference_gap(vae, y, importance_sampling(vae, y, 500).log_likelihood, steps=20, S=100)
    assert torch.isfinite(gap.amortisation).all()
    usage = latent_usage(vae, y)
    assert usage.kl is None
    assert usage.mean_variance.shape == (5,)


def test_the_top_priors_evidence_by_quadrature() -> None:
    """With a mixture on top: 100 prior estimates of two rows, at 6e-5; of 1e5 draws of q, with heavy tails, to 0.05 nats."""
    vae, y = made("ladder", prior="gaussian_mixture", spread=0.1), rows_for(NORMAL)[:2]
    truth = exact(vae, y).log_likelihood
    drawn = torch.stack([prior_sampling(vae, y, 1000, seed=seed).log_likelihood for seed in range(100)])
    assert within_error((drawn - truth).exp().mean(dim=1), 1.0)
    assert (importance_sampling(vae, y, 100_000).log_likelihood - truth).abs().max() < 0.05


def test_the_data_is_of_the_first_layer_alone_and_draws_come_from_the_top() -> None:
    """And each form in which the evidence scores latents is the plain one."""
    for likelihood in (NORMAL, {"name": "bernoulli"}):
        vae, y = made("ladder", (3, 2), likelihood=likelihood), rows_for(likelihood)
        y_drawn, mean, z = vae.generate(50, full=True)
        assert (y_drawn.shape, z.shape) == ((50, 4), (50, 5))
        with torch.no_grad():
            torch.testing.assert_close(vae.generative(torch.cat([z[:, :3], 9 + z[:, 3:]], dim=1)).mean, mean)
            direct = vae.generative(z[:, None]).log_prob(y)
            pairs = all_pairs(vae.generative, y, z)
            torch.testing.assert_close(pairs.at(z)(slice(None)) + pairs.offset, direct, rtol=1e-9, atol=1e-9)
            own = paired(vae.generative, y)(z[:, None].expand(-1, len(y), -1))
            torch.testing.assert_close(own, direct, rtol=1e-9, atol=1e-9)


def test_below_a_top_layer_are_the_means_given_it() -> None:
    vae = made("bottom_up", (3, 2, 1))
    top = np.linspace(-2, 2, 5)[:, None]
    two, _ = forward(vae.prior.descent[0], top)
    one, _ = forward(vae.prior.descent[1], two)
    np.testing.assert_allclose(vae.below(torch.tensor(top)).detach(), np.hstack([one, two, top]))
    flat = VAE({}, {}, data_dim=3, latent_dim=2)
    assert torch.equal(flat.below(torch.ones(4, 2)), torch.ones(4, 2))


OBJECTIVES = [ELBO(2), BetaELBO(2, beta=0.5), StickingTheLanding(2), IWAE(3), DReG(3), PIWAE(2, averages=2)]


@both
@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda of: type(of).__name__)
def test_gradients_reach_every_parameter(name: str, objective: Objective) -> None:
    vae, y = made(name, (3, 2, 1)), rows_for(NORMAL)
    objective(vae, y, generator(0, "x")).loss.sum().backward()
    for key, value in vae.named_parameters():
        assert value.grad is not None, key
        assert (value.grad != 0).any(), key


@both
def test_a_detached_posterior_is_the_same_and_passes_gradients_to_latents_alone(name: str) -> None:
    vae, y = made(name, (3, 2, 1)), rows_for(NORMAL)[:6]
    q, z = vae.inference(y), torch.tensor(LATENTS, requires_grad=True)
    held = q.detach().log_prob(z)
    torch.testing.assert_close(held, q.log_prob(z))
    (by_held,) = torch.autograd.grad(held.sum(), z, retain_graph=True)
    torch.testing.assert_close(by_held, q.score(z))
    found = torch.autograd.grad(held.sum(), [*vae.parameters()], allow_unused=True)
    assert all(gradient is None for gradient in found)
    prior = vae.prior().detach().log_prob(z)
    assert all(gradient is None for gradient in torch.autograd.grad(prior.sum(), [*vae.parameters()], allow_unused=True))


def gradients(model: LinearChain, objective: Objective, seeds: int) -> dict[str, Array]:
    """Of all parameters by name, (seeds, ...)."""
    names, weights = zip(*model.vae.named_parameters(), strict=True)
    losses = (objective(model.vae, model.y, generator(s, "x")).loss.mean() for s in range(seeds))
    found = zip(*(torch.autograd.grad(loss, weights) for loss in losses), strict=True)
    return {name: torch.stack(of).numpy() for name, of in zip(names, found, strict=True)}


@both
@pytest.mark.parametrize("objective", [StickingTheLanding(1), DReG(3)], ids=lambda of: type(of).__name__)
def test_the_landing_sticks_where_q_is_the_posterior(name: str, objective: Objective) -> None:
    """No noise at all is in the gradient of what is the inference network's alone; by the other estimator there is."""
    model = LinearChain(name, (1, 1, 1))
    plain = ELBO(1) if isinstance(objective, StickingTheLanding) else IWAE(3)
    held, sampled = (gradients(model, of, 4) for of in (objective, plain))
    of_inference = [key for key in held if key.startswith("inference.")]
    assert max(np.abs(held[key]).max() for key in of_inference) < 1e-9
    assert min(np.abs(sampled[key]).max() for key in of_inference) > 1e-4


def along(model: LinearChain, objective: Objective, of: str, rows: int = 3000) -> Array:
    """Gradients of so many rows with noise of their own, by the weights whose names begin so, in a random direction.

    Of (rows,) losses l weighted by u, d/du of the direction's product with d(u . l)/dw.
    """
    y = model.y.repeat(rows // len(model.y), 1)
    weights = [value for key, value in model.vae.named_parameters() if key.startswith(of)]
    noise, u = generator(0, "directions"), torch.ones(rows, dtype=torch.float64, requires_grad=True)
    loss = objective(model.vae, y, generator(0, "x")).loss
    found = torch.autograd.grad(loss @ u, weights, create_graph=True)
    directions = [torch.randn(part.shape, generator=noise, dtype=torch.float64) for part in found]
    product = torch.stack([(part * way).sum() for part, way in zip(found, directions, strict=True)]).sum()
    (gradient,) = torch.autograd.grad(product, u)
    return gradient.numpy()


@both
@pytest.mark.parametrize("objective", [StickingTheLanding(1), DReG(3)], ids=lambda of: type(of).__name__)
def test_held_parameters_do_not_bias_the_gradient(name: str, objective: Objective) -> None:
    """Of a ladder's weights that are shared with the prior neither: each at 6e-5, over common noise; 4.8e-4 for all."""
    model = LinearChain(name, (1, 1), widen=1.3)
    plain = ELBO(1) if isinstance(objective, StickingTheLanding) else IWAE(3)
    for of in ("inference.", "prior.", "generative."):
        difference = along(model, objective, of) - along(model, plain, of)
        if of == "inference." or (of == "prior." and name == "ladder"):
            assert difference.std() > 0.01
            assert within_error(difference, 0.0)
        else:
            assert np.abs(difference).max() < 1e-9


@both
@pytest.mark.parametrize("of", [StickingTheLanding(2), DReG(2)], ids=lambda of: type(of).__name__)
def test_the_flat_objective_and_its_gradient(name: str, of: Objective) -> None:
    """`functional_call` reaches the networks that a ladder shares with the prior, and those that are held."""
    vae, y = made(name, (2, 1), objective=of), rows_for(NORMAL)
    objective, gradient = vae.make_objective(y)
    w = vae.pack_weights()
    assert objective(w).item() == pytest.approx(vae.objective(vae, y, of_step(0, "train", 0, 0)).loss.mean().item())
    weights = [*vae.parameters()]
    loss = vae.objective(vae, y, of_step(0, "train", 0, 0)).loss.mean()
    expected = torch.cat([part.reshape(-1) for part in torch.autograd.grad(loss, weights)])
    torch.testing.assert_close(gradient(w), expected, rtol=1e-9, atol=1e-12)
    assert objective(w + 0.1).item() != pytest.approx(objective(w).item())


def test_burdas_two_layers() -> None:
    """784-200-200-100-100-100-50 and back, as docs/training.md has it (Burda et al. 2016, section 5)."""
    layers = {"hidden": [200, 200]}
    hierarchy = {"name": "bottom_up", "hidden": [[100, 100]]}
    vae = VAE(layers, layers, data_dim=784, latent_dim=[100, 50], likelihood="bernoulli", hierarchy=hierarchy)
    up, down = vae.inference.posterior.ascent[0], vae.prior.descent[0]
    assert widths(vae.inference.network) == [784, 200, 200, 2 * 100]
    assert widths(up.network) == [100, 100, 100, 2 * 50]
    assert widths(down.network) == [50, 100, 100, 2 * 100]
    assert widths(vae.generative.network) == [100, 200, 200, 784]


def test_hidden_layers_are_gone_through_backwards_going_down() -> None:
    vae = made("bottom_up", (4, 3, 2), hierarchy={"name": "bottom_up", "hidden": [[9, 8], [7]], "activation": "relu"})
    assert [widths(link.network) for link in vae.inference.posterior.ascent] == [[4, 9, 8, 6], [3, 7, 4]]
    assert [widths(link.network) for link in vae.prior.descent] == [[2, 7, 6], [3, 8, 9, 8]]
    assert any(isinstance(module, nn.ReLU) for module in vae.prior.descent.modules())


def widths(network: nn.Module) -> list[int]:
    """Of the inputs, and of each layer."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    return [layers[0].in_features, *(layer.out_features for layer in layers)]


def test_files_of_one_layer_say_nothing_of_a_hierarchy(tmp_path: Path) -> None:
    """As those written before there was one, which are still read."""
    VAE({}, {}, data_dim=3, latent_dim=2).save(tmp_path / "flat")
    assert "hierarchy" not in json.loads((tmp_path / "flat/model.json").read_text())
    assert VAE.load(tmp_path / "flat").card.layers == (2,)
    made("ladder", (2, 1)).save(tmp_path / "deep")
    card = json.loads((tmp_path / "deep/model.json").read_text())
    assert (card["latent_dim"], card["hierarchy"]) == ([2, 1], {"name": "ladder", "hidden": [[5]]})


HIERARCHY = {"name": "bottom_up", "hidden": [[5]]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hierarchy": None}, r"latent_dim lists .* is one number where there is none; got \(2, 1\) and None"),
        ({"latent_dim": 2}, "latent_dim lists .* where there is a hierarchy, such as .* got 2 and {'name': 'bottom_up'"),
        ({"latent_dim": [2]}, r"latent_dim must be one number, or a list of those of two or more layers; got \[2\]"),
        ({"latent_dim": [2, 0]}, "latent_dim must be at least 1; got 0"),
        ({"latent_dim": [2, 1, 1]}, r"neighbours of the 3 layers, as \[\[100, 100\], \[100, 100\]\] does; got \[\[5\]\]"),
        ({"hierarchy": {"name": "bottom_up"}}, "hierarchy.hidden must list .* got \\[\\]"),
        ({"hierarchy": {**HIERARCHY, "name": "top"}}, "hierarchy must be one of bottom_up, ladder; got 'top'"),
        ({"hierarchy": {**HIERARCHY, "activation": "sin"}}, "activation must be one of .*; got 'sin'"),
        ({"hierarchy": {**HIERARCHY, "hidden": [[0]]}}, r"hidden.0.0 must be at least 1; got 0"),
        (
            {"posterior": "flow"},
            "set posterior to 'diagonal_gaussian', or latent_dim to one number and .* got posterior 'flow'",
        ),
        (
            {"prior": {"name": "vamp"}},
            "prior 'vamp' .* set prior to 'standard_normal', 'gaussian_mixture' or 'flow', or hierar",
        ),
        ({"objective": FreeBits()}, "not defined with the layers of hierarchy 'bottom_up': set .* hierarchy to null, or take"),
        ({"objective": ELBO(kl="closed_form")}, "not known for the layers of hierarchy 'bottom_up': set kl to 'monte_carlo'"),
    ],
)
def test_what_makes_no_sense_is_refused(change: dict[str, Any], message: str) -> None:
    good = {"data_dim": 3, "latent_dim": (2, 1), "hierarchy": HIERARCHY}
    with pytest.raises(ValueError, match=message):
        VAE({"hidden": [4]}, {"hidden": [4]}, **{**good, **change})
