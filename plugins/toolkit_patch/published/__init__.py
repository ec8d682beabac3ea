"""A published screen's own rules, applied to the same features: what they call causal, and why."""
