"""Samples of named game states."""
