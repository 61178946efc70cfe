"""Priors of other libraries: denoisers, deepinv, diffusers, checkpoints of ADM."""
