"""The rules of a published screen, applied to the same features."""
