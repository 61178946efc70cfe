"""Samplers with a step or a loop of their own over the noise levels."""
