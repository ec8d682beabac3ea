"""Paths from an outcome through features to tokens."""
