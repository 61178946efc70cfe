"""Markov chains on the image itself, and its mode."""
