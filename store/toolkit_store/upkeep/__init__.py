"""Checking what a store holds against what was written."""
