"""What the estimators are compared with: pythae with the same weights, and the matrix products that nobody can avoid."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.harness import Case
from vae import VAE
from vae.distributions.noise import DRAWS_PER_BLOCK
from vae.evidence.estimate import rows_per_chunk
from vae.model.networks import Feedforward


def pythae_installed() -> bool:
    """Whether pythae can be imported."""
    return find_spec("pythae") is not None


class LogVariances(nn.Module):
    """A network whose second half of outputs, log standard deviations, is doubled."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, y: Tensor) -> Tensor:
        """Means and log variances."""
        mean, log_stddev = self.network(y).chunk(2, dim=-1)
        return torch.cat([mean, 2 * log_stddev], dim=-1)


def pythae(vae: VAE) -> Any:
    """Pythae's VAE around the networks of ``vae``."""
    encoder, decoder = LogVariances(vae.inference.network), vae.generative.network
    return pythae_model(encoder, decoder, vae.card.data_dim, vae.card.latent_size).eval()


def pythae_model(encoder: nn.Module, decoder: nn.Module, data_dim: int, latent_dim: int) -> Any:
    """Pythae's VAE around two networks: y -> means and log variances, z -> logits."""
    models, networks = import_module("pythae.models"), import_module("pythae.models.nn")
    BaseEncoder: Any = networks.BaseEncoder
    BaseDecoder: Any = networks.BaseDecoder
    output = import_module("pythae.models.base.base_utils").ModelOutput

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.network = encoder

        def forward(self, y: Tensor) -> object:
            mean, log_variance = self.network(y).chunk(2, dim=-1)
            return output(embedding=mean, log_covariance=log_variance)

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.network = decoder

        def forward(self, z: Tensor) -> object:
            return output(reconstruction=self.network(z).sigmoid())

    config = models.VAEConfig(
        input_dim=(data_dim,), latent_dim=latent_dim, reconstruction_loss="bce", uses_default_encoder=False
    )
    return models.VAE(config, encoder=Encoder(), decoder=Decoder())


@torch.no_grad()
def pythae_log_likelihood(peer: Any, y: Tensor, S: int, batch_size: int) -> float:
    """The mean over rows of log p(y): what `get_nll` returns, whatever its name says.

    Raises:
        ValueError: If the batch size does not divide S, where pythae would draw another number of samples.
    """
    if S % batch_size:
        raise ValueError(f"batch_size must divide S = {S}; got {batch_size}")
    return float(peer.get_nll(y, n_samples=S, batch_size=batch_size))


def decoder_products(vae: VAE, N: int, S: int) -> Case:
    """The matrix products of the generative network for N * S latents, in the chunks of `importance_sampling`."""
    network = vae.generative.network
    assert isinstance(network, Feedforward)
    layers = [(layer.weight.detach().T, layer.bias.detach()) for layer in network if isinstance(layer, nn.Linear)]
    rows = rows_per_chunk(vae, DRAWS_PER_BLOCK)
    widths = [layers[0][0].shape[0], *(weight.shape[1] for weight, _ in layers)]
    buffers = [torch.rand(rows * DRAWS_PER_BLOCK, width, device=vae.device) for width in widths]

    def run() -> None:
        for first in range(0, N, rows):
            for start in range(0, S, DRAWS_PER_BLOCK):
                count = min(rows, N - first) * min(DRAWS_PER_BLOCK, S - start)
                for (weight, bias), before, after in zip(layers, buffers, buffers[1:], strict=False):
                    torch.addmm(bias, before[:count], weight, out=after[:count])

    return run


def large_product(y: Tensor, S: int, draws: int, rows: int) -> Case:
    """The product (S, D) by (D, N), in blocks of that many draws and rows."""
    draws, rows = min(draws, S), min(rows, len(y))
    f, out = torch.randn(draws, y.shape[1], device=y.device), torch.empty(draws * rows, device=y.device)

    def run() -> None:
        for start in range(0, S, draws):
            count = min(draws, S - start)
            for some in y.split(rows):
                torch.mm(f[:count], some.T, out=out[: count * len(some)].view(count, len(some)))

    return run
