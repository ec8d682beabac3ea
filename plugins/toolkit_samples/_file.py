"""A file of samples: its path, its identity, and the error where it is not UTF-8."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from toolkit.errors import BadInput, DataError
from toolkit.files import check_regular, locate
from toolkit.identity import Identity

from ._texts import Sample, Texts, labels_of

UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def resolve_file(text: str, kind: str) -> Path:
    """The file that a param names."""
    path = locate(text)
    if path.is_dir():
        raise BadInput(f"{path} is a folder; name a {kind} file in it.")
    check_regular(path)
    return path


def identity(path: Path, samples: Sequence[Sample], params: Texts) -> Identity:
    """The identity of a file of samples: its SHA-256, and how much it holds."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    facts = {
        "bytes": path.stat().st_size,
        "rows": len(samples),
        "units": len({sample.unit for sample in samples}),
        "labels": labels_of(samples, params),
    }
    return Identity(name=path.name, revision=digest[:12], digest=digest, facts=facts)


def not_utf8(path: Path, row_at: Callable[[int], int | None] = lambda line: None) -> DataError:
    """The error for a file that is not UTF-8: it names the line and the byte, and the row where
    `row_at` knows it.
    """
    with path.open(
        encoding="latin-1", newline=""
    ) as file:  # one character per byte, lines cut as in a text file
        for number, text in enumerate(file, 1):
            line = text.encode("latin-1")
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                row = row_at(number)
                where = f"{path}:{number}" + (f" (row {row})" if row else "")
                return DataError(f"{where}: {_bad_byte(line, error, is_first=number == 1)}")
    return DataError(
        f"{path}: the file changed while it was read. Run again when it is no longer written to."
    )


def _bad_byte(line: bytes, error: UnicodeDecodeError, *, is_first: bool) -> str:
    if is_first and line.startswith(UTF16_MARKS):
        return "the file is UTF-16. Save it as UTF-8."
    before = line[max(0, error.start - 20) : error.start].decode("utf-8", "ignore")
    after = f", after {before!r}," if before else ""
    return (
        f"byte {error.start + 1} of this line (0x{line[error.start]:02x}){after} is not UTF-8 "
        f"({error.reason}). Save the whole file as UTF-8; it may hold Latin-1 or Windows-1252 in "
        "places."
    )
