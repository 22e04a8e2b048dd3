"""Print by how many bytes the memory of a process grew from its start to the end of one importance sampling.

    python benchmarks/peak_memory.py N S THREADS

A process of its own: the peak never falls again.
"""

import resource
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.harness import model, random_rows
from vae.evidence import importance_sampling

STATUS = Path("/proc/self/status")


def peak() -> int:
    """The largest resident size so far, in bytes.

    On Linux from /proc: a child's ru_maxrss begins at that of the process which started it.
    """
    if STATUS.exists():
        return int(STATUS.read_text().split("VmHWM:")[1].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


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
