"""Gradient pre-screens, held against the exact screen."""
