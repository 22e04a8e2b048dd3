"""The lecture's model, a prior and two networks: infer, generate, log_likelihood, save, load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from vae.distributions.noise import generator
from vae.errors import OptionError
from vae.model import hierarchies, posteriors, priors, storage
from vae.model.conditionals import Generative, Inference
from vae.model.encoding import Input
from vae.model.rows import as_numbers, in_order
from vae.model.terms import Terms
from vae.options.architecture import Architecture
from vae.options.declaration import build, lookup
from vae.options.registry import HIERARCHIES, POSTERIOR, POSTERIORS, PRIOR, PRIORS, require_layers

MISSING = "missing values (NaN, masked, NA) need the likelihood 'mixed', and inputs that have missing=True for their columns"


class Generated(NamedTuple):
    """What the generative model draws: data y (N, D), their means f_w(z) (N, D), and the latents z (N, K)."""

    y: Tensor
    mean: Tensor
    z: Tensor


class LatentModel(nn.Module):
    """A prior p(z), a generative network p(y|z) and an inference network q(z|y).

    Args:
        generative_architecture: Layers of f_w, an `Architecture` or a mapping ``{"hidden": [...], "activation": ...}``.
        inference_architecture: Layers of the inference network, likewise.
        data_dim: Number of data columns D.
        latent_dim: Number of latent dimensions K; of each of two or more layers where there is a hierarchy, from the data on.
        likelihood: A name in `vae.options.registry.LIKELIHOODS`, or a mapping of ``name`` and that likelihood's options.
            ``{"name": "mixed", "columns": [...]}`` has such a mapping for each column; values may then be missing (NaN).
        inputs: How each column goes into the inference network, see `vae.model.encoding.Input`; as it is by default.
        shape: Height, width and channels where a row is an image, pixel by pixel; convolutional networks need it.
        prior: A name in `vae.options.registry.PRIORS`, or a mapping of ``name`` and that prior's options.
        posterior: A name in `vae.options.registry.POSTERIORS`, likewise: the family of q(z|y).
        hierarchy: Of two or more layers of latents, a mapping of ``name`` in `vae.options.registry.HIERARCHIES`, ``hidden``
            and ``activation``: see `vae.model.hierarchies`. A latent z is then all layers' one after the other, and ``prior``
            the top's.
        seed: Seed of the initial weights.

    Attributes:
        inference: y -> q(z|y).
        generative: z -> p(y|z).
        prior: () -> p(z).
        columns: The names of the columns of the data frame that it was fitted to, by which later ones are put in order; None
            where there was none.

    Raises:
        OptionError: If a dimension is below 1, a name is unknown, or the parts do not fit together.
    """

    def __init__(
        self,
        generative_architecture: Architecture | Mapping[str, Any],
        inference_architecture: Architecture | Mapping[str, Any],
        *,
        data_dim: int,
        latent_dim: int | Sequence[int],
        likelihood: str | Mapping[str, Any] = "gaussian",
        inputs: Sequence[Input | Mapping[str, Any]] | None = None,
        shape: tuple[int, int, int] | None = None,
        prior: str | Mapping[str, Any] = PRIOR,
        posterior: str | Mapping[str, Any] = POSTERIOR,
        hierarchy: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.initialized = False  # by the first rows that it is trained on
        self.columns: tuple[str, ...] | None = None
        require_layers(latent_dim, hierarchy)
        self.card = storage.Card(
            data_dim=data_dim,
            latent_dim=list(latent_dim) if isinstance(latent_dim, Sequence) else latent_dim,
            likelihood=_named(likelihood),
            generative=Architecture.of(generative_architecture),
            inference=Architecture.of(inference_architecture),
            inputs=None if inputs is None else [Input.of(column) for column in inputs],
            shape=shape,
            prior=_named(prior),
            posterior=_named(posterior),
            hierarchy=None if hierarchy is None else dict(hierarchy),
        )
        card = self.card
        for name, value in [("data_dim", data_dim), *(("latent_dim", size) for size in card.layers)]:
            if value < 1:
                raise OptionError(f"{name} must be at least 1; got {value}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            descent, of_features = _descent_and_posterior(card)
            self.inference = Inference(card.inference, data_dim, of_features, card.inputs, card.shape)
            self.generative = Generative(card.generative, card.layers[0], data_dim, card.likelihood, card.shape)
            top = build("prior", PRIORS, priors, card.prior, self.inference, card.layers[-1])
            self.prior: Any = top if descent is None else hierarchies.TopDown(top, descent)

    @property
    def has_closed_form_kl(self) -> bool:
        """Whether KL(q(z|y) || p(z)) is known exactly: both are normal, and the prior's covariance is diagonal."""
        return bool(self.inference.posterior.normal and self.prior.normal)

    @torch.no_grad()
    def infer(self, y: ArrayLike | Tensor) -> tuple[Tensor, Tensor]:
        """Variational means and variances of q(z|y), each (N, K), for rows ``y`` of shape (N, D).

        Those of a flow, and of a hierarchy's layers but the one that is drawn first, are means over 256 fixed draws.
        """
        q = self.inference(self.as_rows(y))
        return q.mean, q.variance

    @torch.no_grad()
    def generate(self, N: int = 100, *, seed: int = 0, full: bool = False) -> Tensor | Generated:
        """Draw N rows y ~ p(y|z), z ~ p(z), shape (N, D); with ``full=True`` also their means f_w(z) and the latents z.

        Raises:
            ValueError: If N is below 1.
        """
        if N < 1:
            raise ValueError(f"N must be at least 1; got {N}")
        noise = generator(seed, "generate", device=self.device)
        z = self.prior().sample((N,), noise)
        p = self.generative(z)
        generated = Generated(p.sample(generator=noise), p.mean, z)
        return generated if full else generated.y

    def below(self, top: Tensor) -> Tensor:
        """Latents (..., K) whose top layer is ``top``, each layer below it at its mean given the one above."""
        return top if self.card.hierarchy is None else self.prior().along_means(top)

    def log_likelihood(self, y: ArrayLike | Tensor, S: int = 100, *, estimator: str = "prior", seed: int = 0) -> Tensor:
        """Estimate log p(y) per row, shape (N,), float64, in nats.

        Args:
            y: Rows, shape (N, D).
            S: Samples; memory does not grow with it.
            estimator: ``"prior"``, the lecture's, ``"importance"``, or ``"annealed"`` with S chains; see `vae.evidence`.
            seed: Of the noise.

        Raises:
            ValueError: If S is below 1 or the estimator is unknown.
        """
        from vae.evidence import ESTIMATORS  # here, so that a change to an estimator does not retrain

        return lookup("estimator", ESTIMATORS, estimator)(self, self.as_rows(y), S, seed=seed).log_likelihood

    def terms(self, y: ArrayLike | Tensor, S: int = 1, *, seed: int = 0) -> Terms:
        """The three terms of the ELBO per row, from S draws of q(z|y), and the KL in closed form."""
        return Terms(self, self.as_rows(y), S, generator(seed, "terms", device=self.device))

    def as_rows(self, y: ArrayLike | Tensor, name: str = "y") -> Tensor:
        """``y`` as a tensor (N, D) of the model's dtype on its device.

        A data frame's columns are put in the order of those that the model was fitted to; masked values and NA are missing.

        Raises:
            ValueError: If the shape is wrong, columns are others, or a value is not one that the likelihood is for.
        """
        rows = self._matrix(y, name)
        likelihood = self.generative.likelihood
        allowed = likelihood.allows(rows) & ~(rows.isnan() & ~self.inference.may_miss(rows))
        if not allowed.all():
            row, column = (~allowed).nonzero()[0].tolist()
            rule = f"{likelihood.of(column).support.description} under the {type(likelihood.of(column)).__name__} likelihood"
            gap = f"; {MISSING}" if rows[row, column].isnan() else ""
            raise ValueError(f"{name} must be {rule}; got {rows[row, column]} in row {row}, column {column}{gap}")
        return rows

    def _matrix(self, y: ArrayLike | Tensor, name: str) -> Tensor:
        rows = y if isinstance(y, Tensor) else torch.tensor(as_numbers(in_order(y, self.columns, name), name))
        rows = rows.to(self.device, self.dtype)
        if rows.ndim != 2 or rows.shape[1] != self.card.data_dim or not len(rows):
            raise ValueError(f"{name} must have shape (N, {self.card.data_dim}) with N >= 1; got {tuple(rows.shape)}")
        return rows

    # ---- files

    def save(self, folder: str | Path) -> None:
        """Write ``model.safetensors`` (weights) and ``model.json`` (everything else) into ``folder``."""
        dtype = str(self.dtype).removeprefix("torch.")
        storage.save(folder, self.card.model_copy(update={"dtype": dtype, "columns": self.columns}), self.state_dict())

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """The model that `save` wrote. Executes no code from the files.

        Raises:
            ModelFileError: If a file is missing, damaged, or of another model.
        """
        card, weights = storage.load(folder)
        dtype = getattr(torch, card.dtype)
        try:
            with torch.device("meta"):  # shapes only, so that a damaged file cannot ask for all memory
                expected = cls(**card.arguments()).to(dtype).state_dict()
        except (KeyError, TypeError, ValueError) as error:
            raise storage.damaged_card(folder, error) from error
        storage.check(folder, expected=expected, weights=weights)
        vae = cls(**card.arguments()).to(dtype)
        vae.load_state_dict(weights)
        vae.initialized, vae.columns = True, card.columns
        return vae.eval()

    @property
    def device(self) -> torch.device:
        """The device that the weights are on."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights, and of the rows that `as_rows` gives."""
        return next(self.parameters()).dtype


def _named(part: str | Mapping[str, Any]) -> dict[str, Any]:
    """A name alone stands for a mapping with all options left open."""
    return {"name": part} if isinstance(part, str) else dict(part)


def _descent_and_posterior(card: storage.Card) -> tuple[hierarchies.Descent | None, nn.Module]:
    """What leads from the top layer of latents to the others, if there are others, and what makes q(z|y)."""
    if card.hierarchy is None:
        return None, build("posterior", POSTERIORS, posteriors, card.posterior, card.latent_dim)
    if card.posterior["name"] != "diagonal_gaussian":
        raise OptionError(
            "each layer of a hierarchy is normal given its neighbour: set posterior to 'diagonal_gaussian', or latent_dim to "
            f"one number and hierarchy to null; got posterior {card.posterior['name']!r}"
        )
    if card.prior["name"] == "vamp":
        raise OptionError(
            "prior 'vamp' is a mixture of the posteriors of its pseudo-inputs, which over a hierarchy's top are not normal: "
            "set prior to 'standard_normal', 'gaussian_mixture' or 'flow', or hierarchy to null"
        )
    options = {name: value for name, value in card.hierarchy.items() if name != "name"}
    descent = hierarchies.Descent(card.layers, **options)
    return descent, build("hierarchy", HIERARCHIES, hierarchies, card.hierarchy, descent)
