"""Gradient pre-screens, compared with the exact screen."""
