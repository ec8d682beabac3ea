"""Runs as dataset repositories of the Hugging Face hub."""
