"""Distributions over vectors and latents, the draws from them, and where noise comes from."""
