"""Guidance: E[x | x_t, y] in place of E[x | x_t]."""
