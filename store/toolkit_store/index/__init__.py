"""Indexes derived from committed rows: postings and projections."""
