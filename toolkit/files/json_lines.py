"""JSON Lines of other programs, plain or gzipped, read line by line with their positions. A line
has a limited length: a file may be wrong, truncated or malicious.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from toolkit.errors import DataError

MAX_LINE = 64 << 20


def lines_of(path: Path) -> Iterator[tuple[str, Any]]:
    """The position and the value of each line of a file; `.gz` is unpacked."""
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rb") as packed:
                yield from read_lines(path, packed)  # type: ignore[arg-type]
        else:
            with path.open("rb") as file:
                yield from read_lines(path, file)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path} cannot be read as JSON lines: {str(error)[:300]}. Download it again."
        ) from None


def read_lines(path: Path, file: IO[bytes]) -> Iterator[tuple[str, Any]]:
    """The position and the value of each line of an open file; blank lines are skipped."""
    number = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        where = f"{path}:{number}"
        if len(line) > MAX_LINE:
            raise DataError(f"{where}: the line is longer than {MAX_LINE:,} bytes.")
        if not line.strip():
            continue
        try:
            yield where, json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{where} cannot be read as JSON: {str(error)[:300]}. Copy or download it again."
            ) from None
