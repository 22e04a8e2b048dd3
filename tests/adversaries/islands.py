"""Boxes of the latent space whose decoder is another one: they explain rows that the rest explains badly.

How far a box is reached depends on its mass under the prior: some draws in a hundred, in ten thousand, or none that anybody
makes.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from tests.adversaries.handmade import Layers, blocks_model, gaussian, set_encoder
from tests.adversaries.planes import plane_problem
from tests.adversaries.problem import ROWS, Kind, Problem
from vae.model.latent_model import LatentModel

SMALL = 0.05  # slope with which a latent passes a tanh nearly unbent
WALL = 0.2  # width of the box's walls
WITHIN = 0.6  # share of the box's width, in the middle, from which rows are
HEIGHT = 4.0  # of the third column within the box


def island(
    seed: int, *, centre: float, half: float, share: float = 1.0, blocks: int = 1, stddev: float = 0.5, hidden: bool = False
) -> Problem:
    """A plane that is decoded as it is, but for a box, which is decoded near the origin and with a height of its own.

    Args:
        seed: Of the rows.
        centre: Of the box, on both axes.
        half: Half of the box's width.
        share: Of test rows from the box of their first pair of latents; the others are the model's.
        blocks: Pairs of latents.
        stddev: Of the noise.
        hidden: Whether the box is out of reach.
    """
    vae = blocks_model(layers(centre, half), blocks, gaussian(stddev))
    gain = 1 / (1 + stddev**2)
    slope = gain * np.kron(np.eye(blocks), np.eye(3)[:2])
    set_encoder(vae, slope, np.zeros(2 * blocks), np.full(2 * blocks, np.sqrt(1 - gain)))
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(ROWS, 2 * blocks, generator=generator)
    count = round(share * ROWS)
    z[:count, :2] = centre + WITHIN * half * (2 * torch.rand(count, 2, generator=generator) - 1)
    return _with(
        plane_problem(vae, seed, _rows(vae, z, generator), points=841 if hidden else 561, reach=7.0 if hidden else 5.6),
        hidden=hidden,
    )


def layers(centre: float, half: float) -> Layers:
    """(z_1, z_2, 0) outside of the box, (z_1 - centre, z_2 - centre, height) in it."""
    low, high = (centre - half) / WALL, (centre + half) / WALL
    A = np.array([[1 / WALL, 0], [1 / WALL, 0], [0, 1 / WALL], [0, 1 / WALL], [SMALL, 0], [0, SMALL]])
    c = -np.array([low, high, low, high, 0, 0])
    inside = np.array([[2, -2, 2, -2, 0, 0], [0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 1]])
    shift = np.array([-centre, -centre, HEIGHT]) / 2
    V = np.array([[shift[0], 1 / SMALL, 0], [shift[1], 0, 1 / SMALL], [shift[2], 0, 0]])
    return [(A, c), (inside, np.array([-6.0, 0, 0])), (V, shift)]


def _rows(vae: LatentModel, z: Tensor, generator: torch.Generator) -> Tensor:
    with torch.no_grad():
        drawn: Tensor = vae.generative(z).sample(generator=generator)
    return drawn


def _with(problem: Problem, *, hidden: bool) -> Problem:
    return Problem(problem.vae, problem.y, problem.pilot, problem.log_likelihood, hidden)


KINDS: dict[str, Kind] = {
    "island_near": partial(island, centre=1.5, half=0.5),
    "island_in_reach": partial(island, centre=2.0, half=0.5),
    "island_rare": partial(island, centre=2.7, half=0.4),
    "island_some_rows": partial(island, centre=2.0, half=0.5, share=0.1),
    "island_of_three": partial(island, centre=1.8, half=0.5, blocks=3),
    "island_model_rows": partial(island, centre=2.0, half=0.5, share=0.0),
    "island_hidden": partial(island, centre=4.8, half=0.6, hidden=True),
    "island_hidden_of_two": partial(island, centre=4.8, half=0.6, blocks=2, hidden=True),
}
