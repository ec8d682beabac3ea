"""Features at every token, and attention of every head."""
