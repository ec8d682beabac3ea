"""Features followed through the layers: stage and report section."""
