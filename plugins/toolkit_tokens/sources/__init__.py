"""Samples whose states have names."""
