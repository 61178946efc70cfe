"""Priors made from another prior."""
