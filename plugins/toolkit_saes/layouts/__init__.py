"""SAE file layouts: each finds its files, says what they are, and reads them."""
