"""Fitting a VAE."""
