"""Features changed together: the joint effect against the sum of its parts."""
