"""Print by how many bytes the memory of a process grew from its start to the end of one importance sampling.

    python benchmarks/peak_memory.py N S THREADS

A process of its own: the peak never falls again.
"""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.harness import model, random_rows
from benchmarks.memory import peak
from vae.evidence import importance_sampling


def main() -> None:
    """Measure."""
    N, S, threads = map(int, sys.argv[1:])
    torch.set_num_threads(threads)
    vae, y = model(), random_rows(N)
    before = peak()
    importance_sampling(vae, y, S)
    print(peak() - before)


if __name__ == "__main__":
    main()
