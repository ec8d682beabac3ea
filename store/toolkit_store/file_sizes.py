"""Sizes of a table's files: whether they are small enough to be joined, and the disk space that
they take.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

LARGE_FILE = 16 << 20
"""Files of at least this many bytes are not joined: LanceDB counts rows only, rows of `postings`
are long, and joining takes memory.
"""


def small_files(table: Any) -> int:
    """The number of small files of a table, as LanceDB counts them."""
    stats = table.stats()
    return int(stats["fragment_stats"]["num_small_fragments"])


def is_mostly_large(table: Any) -> bool:
    """Whether a file of usual size is too large to be joined."""
    stats = table.stats()
    usual = (
        stats["fragment_stats"]["lengths"]["p50"] * stats["total_bytes"] / max(stats["num_rows"], 1)
    )
    return bool(usual >= LARGE_FILE)


def is_large(name: str, table: Any) -> bool:
    """Whether a table has postings in large files."""
    return name == "postings" and is_mostly_large(table)


def would_join(name: str, table: Any) -> bool:
    """Whether LanceDB would join large files of postings: there are several."""
    return int(table.stats()["fragment_stats"]["num_fragments"]) > 1 and is_large(name, table)


def folder_usage(folder: Path) -> tuple[int, int]:
    """The files in a folder, and their bytes."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return len(files), sum(path.stat().st_size for path in files)
