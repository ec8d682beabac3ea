"""Steering along a direction of the raw stream, in doses, beside random directions."""
