"""Tests of samplers against known posteriors."""
