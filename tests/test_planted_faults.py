"""Faults planted in annealing, each of which makes the reported mean wrong by more than the tolerance: none is trusted."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import cast

import pytest
import torch
from torch import Tensor

from tests.anchors import LinearGaussian, set_affine
from tests.chains import LinearChain
from vae import VAE
from vae.distributions.latent import normal_log_prob
from vae.evidence import Annealing, Assessment, Estimate, annealed_importance_sampling, assess, exact
from vae.evidence.annealing.hmc import Transition
from vae.evidence.annealing.path import Path, PathOfNoise, Point
from vae.evidence.weights import LogWeights

Fault = Callable[[pytest.MonkeyPatch], None]


def skewed() -> VAE:
    """Counts, whose posteriors have one steep and one flat side; q is somewhat off."""
    vae = VAE({"hidden": ()}, {"hidden": ()}, data_dim=3, latent_dim=1, likelihood="poisson")
    set_affine(vae.generative.network[0], torch.tensor([[1.2], [0.8], [0.5]]).numpy(), torch.tensor([0.5, 0.7, 1.0]).numpy())
    set_affine(vae.inference.network[0], torch.tensor([[0.1] * 3, [0.0] * 3]).numpy(), torch.tensor([-0.6, -0.7]).numpy())
    return vae


def layered() -> VAE:
    """Two layers of one latent each."""
    return LinearChain("bottom_up", (1, 1), widen=1.3).vae


def sharp() -> VAE:
    """Linear, with noise of a fifth, six latents, and q twice as wide as the posterior."""
    return LinearGaussian(6, 9, 0.05, widen=2.0).vae


def judged(vae: VAE, extra: float) -> tuple[Assessment, float]:
    """Of 20 rows, and how far their mean is off; ``extra`` is for repeating rows, which mends some faults."""
    y = cast("Tensor", vae.generate(20, seed=3))
    found = assess(
        vae,
        y,
        annealing=Annealing(80),
        chains=12,
        extra=extra,
        bounds_examples=30,
        prior_samples=20_000,
        samples=1000,
        use_exact=False,
    )
    return found, found.mean.mean - exact(vae, y).log_likelihood.mean().item()


def adaptive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each chain adapts its steps by its own acceptances while it counts."""
    move = Transition.__call__

    def adapting(self: Transition, point: Point, noise: Tensor) -> tuple[Point, Tensor]:
        factor = getattr(self.path, "factor", 1.0)
        point, accepted = move(replace(self, step_size=self.step_size * factor), point, noise)
        self.path.factor = factor * torch.exp(5 * (accepted[..., None].to(point.z) - 0.1))  # type: ignore[attr-defined]
        return point, accepted

    monkeypatch.setattr(Transition, "__call__", adapting)


def without_jacobian(monkeypatch: pytest.MonkeyPatch) -> None:
    """The density of latents taken for that of the noise that they are made of."""

    def at(self: PathOfNoise, z: Tensor) -> Point:
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            latents, log_start = self.start.transform(z), normal_log_prob(z)
            log_joint = self._log_likelihood(latents) + self.prior.log_prob(latents)
            (gradient,) = torch.autograd.grad(log_joint, z, torch.ones_like(log_joint))
        return Point(z.detach(), log_start.detach(), log_joint.detach(), -z.detach(), gradient)

    monkeypatch.setattr(PathOfNoise, "at", at)


def wrong_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latents mirrored in the prior's mean: the prior's density does not tell."""
    at = Path.at
    monkeypatch.setattr(Path, "at", lambda self, z: at(self, -z)._replace(z=z))


def accepts_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proposal is accepted by the ratio turned over."""
    move = Transition.__call__

    def turned(self: Transition, point: Point, noise: Tensor) -> tuple[Point, Tensor]:
        new, accepted = move(self, point, noise)
        return Point(
            *(torch.where(accepted if a.ndim == 2 else accepted[..., None], b, a) for a, b in zip(new, point, strict=True))
        ), ~accepted

    monkeypatch.setattr(Transition, "__call__", turned)


def no_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Log-mean-exp of log p(y|z) over draws of q, minus KL(q || p): larger than log p(y), if q is wide."""

    def estimate(vae: VAE, y: Tensor, S: int, *, annealing: Annealing, seed: int, stream: str, ids: Tensor) -> Estimate:
        start = vae.inference(y) if annealing.start == "posterior" else vae.prior()
        noise = torch.randn(
            S, len(y), 1, generator=torch.Generator().manual_seed(zlib.crc32(f"{stream} {annealing.temperatures}".encode()))
        )
        z = start.transform(noise)
        weights = LogWeights(len(y), S, y.device)
        with torch.no_grad():
            kl = (start.log_prob(z) - vae.prior().log_prob(z)).mean(dim=0)
            weights.add((vae.generative(z).log_prob(y) - kl).double())
        sound = annealed_importance_sampling(vae, y, S, annealing=annealing, seed=seed, stream=stream, ids=ids)
        return replace(weights.estimate(), acceptance=sound.acceptance)

    monkeypatch.setattr(sys.modules["vae.evidence.verdict.assess"], "annealed_importance_sampling", estimate)


FAULTS: list[tuple[Callable[[], VAE], Fault]] = [
    (sharp, adaptive),
    (layered, without_jacobian),
    (skewed, wrong_sign),
    (skewed, accepts_losses),
    (skewed, no_bound),
]


@pytest.mark.parametrize("model", [skewed, layered, sharp])
def test_without_a_fault_they_are_right_and_trusted(model: Callable[[], VAE]) -> None:
    found, error = judged(model(), 6.0)
    assert found.verdict.trusted
    assert abs(error) < 0.1


@pytest.mark.parametrize(("model", "plant"), FAULTS)
def test_a_planted_fault_is_not_trusted(model: Callable[[], VAE], plant: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    found, error = judged(model(), 0.0)
    assert not abs(error) <= 0.2
    assert not found.verdict.trusted
