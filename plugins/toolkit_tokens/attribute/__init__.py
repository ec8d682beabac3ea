"""What a token, head, block or feature gives to an outcome."""
