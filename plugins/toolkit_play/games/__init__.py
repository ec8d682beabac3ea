"""The built-in environments: each is one file, and nothing else here knows which there are."""
