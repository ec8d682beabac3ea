"""The C library's heap. LanceDB frees what it used for a commit in small pieces, and glibc keeps
them, so that the memory of a long run grows although it is not used.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress


def release_free_memory() -> None:
    """Give free memory back to the system, where the C library can (glibc)."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
