"""Measurements by an operator with unknown parameters: the posterior of these, one idea per file."""
