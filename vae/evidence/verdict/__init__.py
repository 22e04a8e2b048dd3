"""Annealing with checks, bounds of simulated rows, and the rules by which an estimate is trusted."""
