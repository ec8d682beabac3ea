"""Sinks that pass a run on to experiment trackers."""
