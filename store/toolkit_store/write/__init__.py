"""Rows on their way into a store: checked, ordered, hashed, entered in the ledger."""
