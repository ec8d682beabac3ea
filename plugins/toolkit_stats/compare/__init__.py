"""The stages `compare.*` that test features between groups."""
