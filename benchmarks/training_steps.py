"""What the time of a step goes into: ours beside the loop's, a few steps of each in turns, and parts of them.

Lightning, validation and records are not in it. Turns are short, as the speed of a shared machine changes within a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence

from benchmarks.harness import LATENT, PIXELS, Case, cpu, medians, model, random_rows
from benchmarks.loops import Loop
from benchmarks.report import Report
from pipeline.base.compute import use_threads
from vae.distributions.noise import of_step
from vae.model.networks import linear
from vae.model.terms import Terms
from vae.objectives import ELBO, IWAE, Objective
from vae.training.fast.fused_terms import Decode, Encode, bernoulli, terms_of_steps
from vae.training.fast.vector import VectorAdam, WeightVector

SETTINGS: tuple[tuple[int, int | None], ...] = ((20, None), (100, None), (512, None), (100, 5), (100, 50))
TURN = 10_000  # rows, times draws, of a turn, about
MICRO = 1e6


def measure(report: Report, *, quick: bool) -> Iterator[str]:
    """A table of steps, one of parts."""
    use_threads(2)
    repeats = 5 if quick else 60
    lines = []
    for batch_size, samples in SETTINGS:
        count = max(1, TURN // (batch_size * (samples or 1) * 10))
        y = random_rows(batch_size)
        steps = {"ours": our_step(y, samples), "loop": _loops(y, batch_size, samples)}
        found = medians(cpu(2), {name: partial(repeat, step, count) for name, step in steps.items()}, repeats)
        ours, loop = (MICRO * found[name] / count for name in steps)
        name = f"batch{batch_size}" + (f"_iwae{samples}" if samples else "")
        report.add(f"{name}_step_ratio", loop / ours)
        of = f"{'ELBO' if samples is None else f'IWAE, K = {samples}'}, batches of {batch_size}"
        lines.append([of, f"{ours:,.0f}", f"{loop:,.0f}", f"{loop / ours:.2f}"])
    report.table("A step, microseconds", ["", "ours", "the loop", "the loop's over ours"], lines)
    parts = {name: partial(repeat, part, 50) for name, part in _parts().items()}
    times = medians(cpu(2), parts, repeats)
    report.table(
        "Parts of a step for a batch of 20", ["", "microseconds"], [[of, f"{MICRO * t / 50:.0f}"] for of, t in times.items()]
    )
    yield from ()


def our_step(y: Tensor, samples: int | None, without: str = "") -> Case:
    """A step for rows y (N, D), with all fast paths or without one of `benchmarks.training_ablation.PATHS`."""
    objective: Objective = ELBO(kl="closed_form") if samples is None else IWAE(samples)
    vae = model(objective=objective).train()
    if without == "weights by columns":
        for layer in vae.modules():
            if isinstance(layer, nn.Linear):
                layer.weight = nn.Parameter(layer.weight.detach().contiguous())
    weights = WeightVector(vae)
    weights.bind(fuse=without != "networks fused")
    adam, terms = VectorAdam(weights, fused=True), terms_of_steps(objective, weights.fused)
    make_terms = Terms if without == "terms fused" else terms
    update = adam.step if without == "Adam weight by weight" else adam.update

    def step() -> None:
        weights.clear()
        loss = objective.values(make_terms(vae, y, objective.draws, of_step(0, "train", 0))).loss
        loss.backward(torch.full_like(loss, 1 / len(y)))
        weights.finish()
        update()

    return step


def _loops(y: Tensor, batch_size: int, samples: int | None) -> Case:
    loop = Loop(y, batch_size, samples)
    return lambda: sum(1 for _ in loop.epoch(1))


def _parts() -> dict[str, Callable[[], object]]:
    vae, rows = model(objective=ELBO(kl="closed_form")).train(), 20
    weights = WeightVector(vae)
    weights.bind(fuse=True)
    adam, prior, y = VectorAdam(weights, fused=True), vae.prior(), random_rows(rows)
    z, x, gradient = torch.randn(1, rows, LATENT, requires_grad=True), torch.randn(rows, PIXELS), torch.randn(rows, 200)
    by_rows, by_columns = nn.Linear(PIXELS, 200), linear(PIXELS, 200)
    encoder, decoder = (weights.fused[part.network] for part in (vae.inference, vae.generative))

    def back(output: Tensor) -> None:
        output.backward()
        encoder.fresh = decoder.fresh = True  # as before a step

    def encode() -> None:
        z, kl, *_ = Encode.apply(encoder, encoder.parameter, y, torch.randn(1, rows, LATENT), True)
        back(z.sum() + kl.sum())

    def decode() -> None:
        back(Decode.apply(decoder, decoder.parameter, z, bernoulli, y).sum())

    def encode_by_autograd() -> None:
        q = vae.inference(y)
        back(q.rsample((1,)).sum() + kl_divergence(q, prior).sum())

    return {
        "Adam, weight by weight": adam.update,
        "the same by torch's `step`, on one vector": adam.step,
        "the generator of its noise": lambda: of_step(0, "train", 0),
        "q(z|y), a draw and the KL, and back": encode,
        "the same, but for the network by autograd": encode_by_autograd,
        "log p(y|z), and back": decode,
        "the same, but for the network by autograd ": lambda: back(vae.generative(z).log_prob(y).sum()),
        "784 -> 200, gradient by the weight, row by row": lambda: torch.mm(gradient.T, x, out=by_rows.weight.data),
        "the same, column by column": lambda: torch.mm(x.T, gradient, out=by_columns.weight.data.T),
    }


def repeat(case: Case, count: int) -> None:
    """Do it so many times."""
    for _ in range(count):
        case()
