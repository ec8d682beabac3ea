"""Queries of a run's tables, for the command line, Python and the explorer."""
