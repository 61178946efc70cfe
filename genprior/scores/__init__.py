"""Scores of images and of samples."""
