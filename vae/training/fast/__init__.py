"""Arithmetic by hand where it is faster than by torch."""
