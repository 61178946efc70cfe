"""Scores of pictures and of samples."""
