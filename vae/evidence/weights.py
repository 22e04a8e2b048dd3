"""Log weights of N examples, reduced as they come: nothing grows with the number of draws but the kept tail, by its root."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from vae.evidence.estimate import Estimate
from vae.evidence.pareto import pareto_k, tail_length

BLOCKS = 10
GATHERED = 1024  # draws that are reduced together


class LogWeights:
    """Accumulates S log weights for each of N examples, in order, in float64.

    Args:
        N: Examples.
        S: Weights that each will get.
        device: Where.
        rungs: Sample sizes of the ladder, each dividing the next, and the last dividing S.
        tail: Keep the largest weights, for Pareto k.
    """

    def __init__(
        self, N: int, S: int, device: torch.device, *, rungs: Sequence[int] = (), tail: bool = True, shared: bool = False
    ) -> None:
        self.samples, self._shared, self._position = S, shared, 0
        blocks = S if S < 2 * BLOCKS else BLOCKS
        self._edges = [S * b // blocks for b in range(blocks + 1)]
        self._blocks = torch.full((blocks, N), -math.inf, dtype=torch.float64, device=device)
        self._sum_of_squares = self._blocks[0].clone()
        self._rungs = [Rung(s, N, device) for s in rungs]
        self._tail = Tail(tail_length(S) if tail else 0, N, device)
        self._gathered: list[Tensor] = []

    def add(self, log_weights: Tensor) -> None:
        """The next log weights, shape (S', N)."""
        self._gathered.append(log_weights)
        if sum(map(len, self._gathered)) >= GATHERED:
            self._reduce()

    def add_sums(self, sums: Iterable[tuple[int, Tensor, Tensor]]) -> None:
        """The next weights as log sums and log sums of squares (N,), each up to a position that crosses no edge of a block."""
        for stop, log_sum, log_sum_of_squares in sums:
            block = next(b for b, edge in enumerate(self._edges[1:]) if stop <= edge)
            self._blocks[block] = torch.logaddexp(self._blocks[block], log_sum)
            self._sum_of_squares = torch.logaddexp(self._sum_of_squares, log_sum_of_squares)
            self._position = stop

    def cuts(self, count: int) -> Iterator[tuple[int, int]]:
        """The next ``count`` positions as (first, stop) pieces that cross no edge of a block."""
        start, stop = self._position, self._position + count
        inner = [edge for edge in self._edges if start < edge < stop]
        yield from pairwise([start, *inner, stop])

    def estimate(self) -> Estimate:
        """Log (1/S) sum of weights, with its diagnostics."""
        self._reduce()
        log_sum = self._blocks.logsumexp(dim=0)
        return Estimate(
            log_likelihood=log_sum - math.log(self.samples),
            effective_sample_size=(2 * log_sum - self._sum_of_squares).exp(),
            samples=self.samples,
            leave_one_out=self._leave_one_out(),
            shared_draws=self._shared,
            pareto_k=pareto_k(self._tail.values),
            ladder={rung.size: rung.mean() for rung in self._rungs},
        )

    def _reduce(self) -> None:
        if not self._gathered:
            return
        log_weights, self._gathered = torch.cat(self._gathered).double(), []
        start, cuts = self._position, list(self.cuts(len(log_weights)))
        pieces = [(stop, log_weights[first - start : stop - start]) for first, stop in cuts]
        self.add_sums((stop, piece.logsumexp(dim=0), (2 * piece).logsumexp(dim=0)) for stop, piece in pieces)
        self._tail.add(log_weights)
        for rung in self._rungs:
            rung.add(log_weights)

    def _leave_one_out(self) -> Tensor:
        B = len(self._blocks)
        if B < BLOCKS:
            return self._blocks[:0]
        left = self.samples - torch.tensor([stop - start for start, stop in pairwise(self._edges)]).to(self._blocks)
        others = [self._blocks[torch.arange(B) != b].logsumexp(dim=0) for b in range(B)]
        return torch.stack(others) - left.log()[:, None]


class Rung:
    """The mean over disjoint blocks of ``size`` weights of the log of a block's mean."""

    def __init__(self, size: int, N: int, device: torch.device) -> None:
        self.size = size
        self._total = torch.zeros(N, dtype=torch.float64, device=device)
        self._open = torch.full_like(self._total, -math.inf)  # log sum of the block that is not complete
        self._filled = self._blocks = 0

    def add(self, log_weights: Tensor) -> None:
        """The next log weights, shape (S', N), float64."""
        head = min(len(log_weights), (self.size - self._filled) % self.size)
        self._fill(log_weights[:head])
        whole = (len(log_weights) - head) // self.size * self.size
        if whole:
            blocks = log_weights[head : head + whole].unflatten(0, (-1, self.size)).logsumexp(dim=1)
            self._close(blocks)
        self._fill(log_weights[head + whole :])

    def mean(self) -> Tensor:
        """The s-sample estimate, averaged over blocks, shape (N,)."""
        return self._total / self._blocks - math.log(self.size)

    def _fill(self, log_weights: Tensor) -> None:
        if len(log_weights):
            self._open = torch.logaddexp(self._open, log_weights.logsumexp(dim=0))
            self._filled += len(log_weights)
        if self._filled == self.size:
            self._close(self._open[None])
            self._open, self._filled = torch.full_like(self._open, -math.inf), 0

    def _close(self, log_sums: Tensor) -> None:
        self._total += log_sums.sum(dim=0)
        self._blocks += len(log_sums)


class Tail:
    """The largest log weights of each of N examples: ``values``, (length + 1 or fewer, N) in descending order."""

    def __init__(self, length: int, N: int, device: torch.device) -> None:
        self._keep = length + 1 if length else 0
        self.values = torch.zeros(0, N, dtype=torch.float64, device=device)

    def add(self, log_weights: Tensor) -> None:
        """More log weights, shape (S', N)."""
        if self._keep:
            candidates = torch.cat([self.values, log_weights]).T.contiguous()  # rows of memory are sorted faster than columns
            self.values = candidates.topk(min(self._keep, candidates.shape[1])).values.T


def require_rungs(rungs: Sequence[int], S: int) -> None:
    """Refuse rungs of which one does not divide the next, or the last does not divide S.

    Raises:
        ValueError: Naming the two numbers.
    """
    for smaller, larger in pairwise([*rungs, S]):
        if smaller < 1 or larger < smaller or larger % smaller:
            raise ValueError(
                "every rung of the ladder must be at least 1 and divide the next, and the last the number of samples; "
                f"got {smaller} before {larger}"
            )
