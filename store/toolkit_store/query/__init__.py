"""Queries of a store, answered as polars frames."""
