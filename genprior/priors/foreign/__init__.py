"""Priors of other libraries: denoisers, deepinv, diffusers."""
