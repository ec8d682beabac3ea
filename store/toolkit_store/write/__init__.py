"""Writing rows into a store: check, sort and hash them, and enter their step into the ledger."""
