"""Import lancedb, here only, and in half the usual time. lancedb imports the models of a REST
client for network catalogues, and with them the client's whole interface, which no store uses and
which takes as long as everything else. The interface is imported by the `__init__` of the client's
package, so an empty package takes its place during the import and is removed afterwards; a later
import gets the complete client.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec, module_from_spec
from types import MappingProxyType
from typing import Any, TypeVar

from toolkit.errors import StoreError

Result = TypeVar("Result")
_CLIENT = "lance_namespace_urllib3_client"
_SETTINGS = MappingProxyType(
    {
        "LANCE_LOG": "error",  # else its warnings go to stderr
        "LANCE_DEFAULT_IO_BUFFER_SIZE": str(64 << 20),  # else joining files reads up to 2 GB ahead
        # else it takes 8,192 rows at a time, and one of `postings` may have 786 kB
        "LANCE_DEFAULT_BATCH_SIZE": "1024",
    }
)
"""Settings that LanceDB reads only from the environment, at first use; variables that are set
already are kept.
"""
_PANICS = ("RustPanic", "PanicException")
"""What a panic in LanceDB's Rust code is raised as; neither class can be imported."""
PATIENCE_SECONDS, PAUSE_SECONDS = 10.0, 0.5
"""For how long a call is repeated while faults pass, and the pause before a repetition. A holder of
a lease is at most 15 s behind when it begins, and loses it after 30.
"""
_PASSING = re.compile(
    r"response body|timed out|non-2xx status code: 5\d\d|SlowDown|ServiceUnavailable", re.I
)
"""Messages of faults that a repetition may not meet."""
_guard = threading.Lock()


class LanceFault(Exception):
    """LanceDB failed; its message, without its source location."""


def lancedb() -> Any:
    """The module, imported at the first call."""
    with _guard:
        if "lancedb" not in sys.modules:
            for name, value in _SETTINGS.items():
                os.environ.setdefault(name, value)
            with suppress(ImportError), _without_client():
                import lancedb
        # the complete import, if a newer release needs its client; a failure names what is missing
        import lancedb

    return lancedb


@contextmanager
def lance_faults() -> Iterator[None]:
    """Raise `LanceFault` for whatever LanceDB raises in the block: its errors have no class of
    their own, and a damaged file may make its Rust code panic.
    """
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        raise LanceFault(_reason(error)) from error
    except BaseException as error:
        if type(error).__name__ not in _PANICS:
            raise
        raise LanceFault(f"LanceDB panicked ({_reason(error)})") from error


class Patience:
    """Decides whether to repeat what a passing fault of an object store has stopped. LanceDB's
    client repeats a request that is refused, but not one whose answer, such as a list of files, is
    cut off.
    """

    def __init__(self) -> None:
        self._end = time.monotonic() + PATIENCE_SECONDS

    def covers(self, error: BaseException) -> bool:
        """Whether to try again, after a pause: the error, or a cause of it, is a passing fault of
        the store, and the time is not over.
        """
        if not _is_passing(error) or time.monotonic() + PAUSE_SECONDS > self._end:
            return False
        time.sleep(PAUSE_SECONDS)
        return True


def repeated(call: Callable[[], Result]) -> Result:
    """What a call returns, repeated while faults of the object store pass. Only for calls that may
    be carried out twice. Raises `LanceFault`, or the call's own `StoreError`.
    """
    patience = Patience()
    while True:
        try:
            with lance_faults():
                return call()
        except (LanceFault, StoreError) as error:
            if not patience.covers(error):
                raise


def _is_passing(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, LanceFault):
            return _PASSING.search(str(error)) is not None
        error = error.__cause__
    return False


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split()).removeprefix("lance error: ")
    return re.sub(r",? \S+\.rs:\d+:\d+", "", text)[:300].rstrip(".")


def without_blobs(query: Any) -> Any:
    """Tell an asynchronous query that its table has no blob columns; no table of a store has any.
    LanceDB otherwise reads the table's schema before each query to find that out, which takes a
    sixth of the query's time, and no public option skips it. A query without a table skips the
    check; if a release keeps the table under another name, it checks as before.
    """
    query._table = None
    return query


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


def caches(index_bytes: int, metadata_bytes: int) -> Any:
    """The caches of a connection: of indexes, and of descriptions of files."""
    return lancedb().Session(
        index_cache_size_bytes=index_bytes, metadata_cache_size_bytes=metadata_bytes
    )
