"""Checking that a store holds what was written."""
