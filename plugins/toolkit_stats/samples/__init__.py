"""The compared samples: groups, labels, metadata, positions and values."""
