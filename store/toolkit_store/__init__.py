"""The store: what a run has computed, kept so that a kill at any moment loses nothing and shows nothing half done.

Importing this package imports neither lancedb nor pyarrow; the first read or commit does.
"""

from __future__ import annotations

from toolkit_store.store import CleanReport, Store, open_store

__all__ = ["CleanReport", "Store", "open_store"]
