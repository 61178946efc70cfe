"""Samplers in the latents of a decoder."""
