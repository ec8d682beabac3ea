"""Verdicts on screened features, and what the report shows of them."""
