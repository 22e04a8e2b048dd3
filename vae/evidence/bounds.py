"""Two-sided bounds on data that the model itself generates: bidirectional Monte Carlo (BDMC)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from vae.evidence.annealing import annealed_importance_sampling, reverse_annealing
from vae.evidence.estimate import Advance, Estimate, MeanWithError, ignore, require_samples
from vae.evidence.schedule import Annealing
from vae.noise import generator

if TYPE_CHECKING:
    from vae.latent_model import Generated, LatentModel


@dataclass(frozen=True)
class Bounds:
    """Bounds of log p(y) for N simulated rows, in expectation.

    Attributes:
        y: The rows, (N, D); NaN where a value is missing.
        lower: By annealing forward.
        upper: By annealing in reverse, from the latents that made the rows.
    """

    y: Tensor
    lower: Estimate
    upper: Estimate

    @property
    def gap(self) -> MeanWithError:
        """Upper minus lower, paired over examples. A sampled gap may be negative and is not clipped."""
        return MeanWithError.of(self.upper.log_likelihood - self.lower.log_likelihood)


def bidirectional_bounds(
    vae: LatentModel,
    N: int = 100,
    S: int = 16,
    *,
    annealing: Annealing | None = None,
    missing: Tensor | None = None,
    seed: int = 0,
    advance: Advance = ignore,
) -> Bounds:
    """Sandwich log p(y) of N simulated rows between forward and reverse annealing (Grosse, Ghahramani and Adams 2015).

    In expectation lower <= log p(y) <= upper, so the gap bounds the error of annealing on data like the model's own; it says
    nothing of rows that the model finds unlikely. Give ``annealing`` tuned step sizes to examine the procedure that scored the
    test rows.

    Args:
        vae: The model.
        N: Rows to simulate.
        S: Chains per row and direction.
        annealing: As in `annealed_importance_sampling`.
        missing: Which values other rows lack, booleans (M, D): each simulated row gets the gaps of one of them, at random. The
            latent that made a row is an exact draw from its posterior given what is left, too. None: complete rows.
        seed: Of the rows and of the noise.
        advance: Called with the number of (row, temperature) pairs done, 2 * N * temperatures in all.

    Raises:
        ValueError: If N or S is below 1, a setting is out of range, ``missing`` has another shape, or the model takes no gaps.
    """
    require_samples(N, "simulated rows")
    y, _, z = cast("Generated", vae.generate(N, seed=seed, full=True))
    y = y if missing is None else _with_gaps(y, missing, seed)
    forward = annealed_importance_sampling(vae, y, S, annealing=annealing, seed=seed, stream="bounds", advance=advance)
    return Bounds(y, forward, reverse_annealing(vae, y, z, S, annealing=annealing, seed=seed, advance=advance))


def _with_gaps(y: Tensor, missing: Tensor, seed: int) -> Tensor:
    D = y.shape[1]
    if missing.shape[1:] != (D,) or not len(missing) or missing.dtype != torch.bool:
        raise ValueError(
            f"missing must be booleans of shape (M, {D}), the gaps of at least one row; got {missing.dtype} of shape "
            f"{tuple(missing.shape)}; y.isnan() of the rows that were scored is such a mask"
        )
    drawn = torch.randint(len(missing), (len(y),), generator=generator(seed, "gaps of simulated rows"))
    return y.masked_fill(missing[drawn.to(missing.device)].to(y.device), torch.nan)
