"""Texts: the rows of the tables of samples, games that a model plays to produce them, and selectors
of their tokens. Each module is imported by its own path; this one imports nothing.
"""
