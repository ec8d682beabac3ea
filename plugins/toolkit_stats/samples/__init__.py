"""Who is compared: groups, labels, metadata, positions, and the values they are compared by."""
