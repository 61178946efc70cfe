"""Measurements whose operator is known by name only: the posterior of its parameters, one idea per file."""
