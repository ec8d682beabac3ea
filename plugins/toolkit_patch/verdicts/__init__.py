"""Verdicts on screened features, and their report section."""
