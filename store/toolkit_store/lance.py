"""The one module that imports lancedb, and how to do it in half the time.

lancedb imports the models of a client for catalogues on the network, and with them the client's whole interface, which no store
uses and which takes as long as all the rest. The interface is made by the `__init__` of the client's package; so that package is
entered without running it, and taken out afterwards: whoever imports it later gets it whole.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec
from typing import Any

_CLIENT = "lance_namespace_urllib3_client"
_guard = threading.Lock()


def lancedb() -> Any:
    """The module, imported with the first call."""
    with _guard:
        if "lancedb" not in sys.modules:
            os.environ.setdefault("LANCE_LOG", "error")  # else its warnings go to stderr
            with _without_client():
                import lancedb
        import lancedb

    return lancedb


@contextmanager
def _without_client() -> Iterator[None]:
    spec = find_spec(_CLIENT)
    if spec is None or _CLIENT in sys.modules:
        yield
        return
    sys.modules[_CLIENT] = module_from_spec(spec)
    try:
        yield
    finally:
        del sys.modules[_CLIENT]
