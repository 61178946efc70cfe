"""Comparison of samplers and classical methods on images."""
