"""Features at every token, and the attention of every head."""
