"""Encoding and decoding with SAE weights held as float32 blocks."""
