"""Gaussians and their mixtures, with everything in closed form."""
