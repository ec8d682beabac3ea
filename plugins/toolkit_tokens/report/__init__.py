"""Figures of tokens."""
