"""The stage `extract.activations`."""
