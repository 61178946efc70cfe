"""Guidance: E[x | x_t, y] in the place of E[x | x_t]."""
