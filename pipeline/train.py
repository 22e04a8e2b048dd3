"""Stage 2, train: fit the VAE on the training rows and keep the epoch with the best validation ELBO.

Writes ``models/``: model.safetensors, model.json, schema.json; ``results/train/``: history.csv, latents.csv,
metrics.json, curves.png, latents.png.
"""

import sys

from pipeline.base.command import run_stage

if __name__ == "__main__":
    sys.exit(run_stage("train", __doc__))
