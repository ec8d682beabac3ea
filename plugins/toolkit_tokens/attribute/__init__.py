"""What each token, head, block and feature contributes to an outcome."""
