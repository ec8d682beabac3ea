"""Screened features set to a series of doses, at decisions that the screen did not use."""
