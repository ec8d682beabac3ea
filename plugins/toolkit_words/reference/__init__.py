"""What different sources say of the same feature, held against each other."""
