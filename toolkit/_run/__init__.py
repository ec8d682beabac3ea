"""Running a plan: scheduling steps, talking to workers, committing to the store."""
