"""Random draws, halves of units, corrections for multiple tests, and the types of arrays. Nothing
here imports another part of the host. Each module is imported by its own path; this one imports
nothing.
"""
