"""Steering along a direction of the raw stream, in doses, compared with random directions."""
