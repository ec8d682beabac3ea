"""The exact screen: every candidate at every decision point, with its control arms."""
