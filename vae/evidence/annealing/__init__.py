"""Annealed importance sampling: transitions, temperatures, step sizes."""
