"""Screened features set to a row of doses, at decisions that the screen did not look at."""
