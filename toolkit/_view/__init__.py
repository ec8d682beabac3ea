"""The local pages of `toolkit view`: a store to browse, read-only."""
