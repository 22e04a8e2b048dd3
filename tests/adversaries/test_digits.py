"""Inverted digits among the test rows: far from anything a model has seen, and by quadrature known to the last digit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from tests.workspace import ROOT
from vae import VAE
from vae.evidence import Annealing, assess, exact

ROWS, TOLERANCE = 40, 0.2


@pytest.fixture(scope="module")
def trained() -> tuple[VAE, Tensor, Tensor]:
    """A model of two latent dimensions, validation rows, and test rows, in standard deviations of each pixel."""
    pixels = pd.read_csv(ROOT / "data/raw/digits.csv").drop(columns="label").to_numpy(dtype=np.float32)
    noise = np.random.default_rng(0).random(pixels.shape, dtype=np.float32)
    y = torch.tensor((pixels + noise - 8) / 6)
    network = {"hidden": (64,), "activation": "silu"}
    vae = VAE(network, network, data_dim=64, latent_dim=2, likelihood="gaussian_per_dimension")
    vae.fit(y[:1200], S=1, max_epochs=10)
    return vae, y[1200:1300], y[1300 : 1300 + ROWS]


@pytest.mark.slow
@pytest.mark.parametrize("inverted", [0, 1, 2, 4])
def test_inverted_digits_are_not_trusted_wrongly(trained: tuple[VAE, Tensor, Tensor], inverted: int) -> None:
    """16 - value on so many of 40 images; the others alone are trusted, and right."""
    vae, pilot, y = trained
    rows = y.clone()
    rows[:inverted] = -rows[:inverted]
    truth = exact(vae, rows)
    assert not truth.reason
    found = assess(
        vae, rows, pilot=pilot, annealing=Annealing(100), bounds_examples=60, prior_samples=10_000, extra=2.0, use_exact=False
    )
    assert found.checked is not None
    errors = found.log_likelihood - truth.log_likelihood
    assert not found.verdict.trusted or errors.mean().abs() < TOLERANCE
    assert errors[found.checked.settled].abs().max() < 1.5
    if not inverted:
        assert found.verdict.trusted
