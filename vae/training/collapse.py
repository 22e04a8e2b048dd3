"""Whether a model uses its latent dimensions, in words, with what to try where it does not."""

from __future__ import annotations

MANY = 8  # latent dimensions, of which a single one in use is a collapse too: data rarely have just one direction
REMEDY = (
    "try objective beta_elbo with schedule: linear, or free_bits; or a smaller generative network, or a smaller "
    "learning_rate (docs/training.md)"
)


def is_collapsed(active: int, latent_dim: int) -> bool:
    """Posterior collapse: q(z|y) is the same for all rows, in every dimension, or in all but one of many."""
    return active == 0 or (active == 1 and latent_dim >= MANY)


def usage_lines(active: int, latent_dim: int) -> list[str]:
    """How many latent dimensions are in use, and, if not all are, what that means and what to do."""
    used = f"{active} of {latent_dim} latent dimensions in use"
    if is_collapsed(active, latent_dim):
        return [f"{used}: posterior collapse, the model makes next to no use of them", f"  {REMEDY}"]
    if active < latent_dim:
        return [f"{used}: no error, the others cost nothing; latent_dim could be smaller"]
    return [used]
