"""Statistics over arrays: NumPy and SciPy only, no tables and no params."""
