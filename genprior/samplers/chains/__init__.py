"""Markov chains, and the mode, on the image itself."""
