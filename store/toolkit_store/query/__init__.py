"""Questions to a store, answered as polars frames."""
