"""Figures of comparisons for the report."""
