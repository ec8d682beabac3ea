"""From a spec to a plan: names resolved, stages ordered, keys, costs. No torch, no store."""
