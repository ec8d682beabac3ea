"""The store of computed results. A kill at any moment loses no committed step and leaves no partial
step visible.

Importing this package imports neither lancedb nor pyarrow; the first read or commit does. `open`
opens a store for queries.
"""

from __future__ import annotations

from toolkit_store.location import local_part, uri_of
from toolkit_store.query.features import Features
from toolkit_store.query.features import open_features as open
from toolkit_store.query.run_view import RunView
from toolkit_store.remote import NoStore, check_uri
from toolkit_store.store import Store, open_store
from toolkit_store.upkeep.check import CheckReport
from toolkit_store.write.keeping import CleanReport

__all__ = [
    "CheckReport",
    "CleanReport",
    "Features",
    "NoStore",
    "RunView",
    "Store",
    "check_uri",
    "local_part",
    "open",
    "open_store",
    "uri_of",
]
