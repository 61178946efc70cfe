"""Samplers and classical methods compared on images."""
