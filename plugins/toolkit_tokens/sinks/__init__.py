"""The published JSON of token tracking."""
