"""Sequential Monte Carlo over the noise levels."""
