"""Samplers against known posteriors."""
