"""Stage 3, evaluate: the held-out log-likelihood of the VAE and of its baselines, and how far to trust it.

Writes ``results/evaluate/``: metrics.json, examples.parquet (a row per test example), ladder.csv, latents.csv, and pictures.
"""

import sys

from pipeline.base.command import run_stage

if __name__ == "__main__":
    sys.exit(run_stage("evaluate", __doc__))
