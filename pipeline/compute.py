"""Threads, set so that the same number of them gives the same bytes."""

from __future__ import annotations

import torch


def use_threads(threads: int) -> None:
    """Use this many CPU threads.

    Each vector function is called once on one element first: the first multi-threaded call of oneMKL's races, and gave other
    bits in 2 % of processes under load (pytorch #188792).
    """
    torch.set_num_threads(threads)
    one = torch.full((1,), 0.5)
    for dtype in (torch.float32, torch.float64):
        for function in (
            torch.tanh,
            torch.exp,
            torch.log,
            torch.log1p,
            torch.sqrt,
            torch.sigmoid,
            torch.erf,
            torch.cos,
            torch.sin,
        ):
            function(one.to(dtype))
