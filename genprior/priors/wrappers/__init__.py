"""Priors made of a prior."""
