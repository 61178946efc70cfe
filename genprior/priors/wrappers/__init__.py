"""Priors built from another prior."""
