"""Stage 4, generate: samples in the data's own units, and pictures of samples, reconstructions and the latent space.

Writes ``results/generate/``: samples in the raw file's format, and PNGs.
"""

import sys

from pipeline.base.command import run_stage

if __name__ == "__main__":
    sys.exit(run_stage("generate", __doc__))
