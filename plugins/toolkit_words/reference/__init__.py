"""Compares descriptions of the same feature from different sources."""
