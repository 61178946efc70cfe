"""Measurements by an operator with unknown parameters: their posterior, one idea per file."""
