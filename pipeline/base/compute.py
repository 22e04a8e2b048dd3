"""Threads, set so that the same number of them gives the same bytes."""

from __future__ import annotations

import ctypes
from contextlib import suppress

import torch

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # glibc's mallopt(3)
FUNCTIONS = (  # of oneMKL's vector library: every one that a model, an estimator or an optimiser may call
    *(
        torch.tanh,
        torch.exp,
        torch.exp2,
        torch.expm1,
        torch.log,
        torch.log1p,
        torch.log2,
        torch.log10,
        torch.sqrt,
        torch.rsqrt,
    ),
    *(torch.sigmoid, torch.erf, torch.erfc, torch.erfinv, torch.cos, torch.sin, torch.tan, torch.acos, torch.asin, torch.atan),
    *(torch.lgamma, torch.digamma, torch.ceil, torch.floor, torch.round, torch.trunc),
)


def use_threads(threads: int) -> None:
    """Use this many CPU threads.

    Each vector function is called once on one element first: the first multi-threaded call of oneMKL's races, and gave other
    bits in 2 % of processes under load (pytorch #188792).
    """
    _keep_memory()
    torch.set_num_threads(threads)
    element = torch.full((1,), 0.5)
    for dtype in (torch.float32, torch.float64):
        for function in FUNCTIONS:
            function(element.to(dtype))


def _keep_memory() -> None:
    """Let malloc keep freed arrays of some MiB; given back to the system, page faults were a quarter of annealing's time.

    Only glibc has the call; elsewhere nothing happens.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(MMAP_THRESHOLD, 2**25)
        mallopt(TRIM_THRESHOLD, 2**28)
