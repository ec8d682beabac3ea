"""What the sources of files share: resolving the path, identifying the file, reading its samples,
and the error where it is not UTF-8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import BadInput, DataError
from toolkit.files.local import check_regular, locate, sha256_of
from toolkit.identity import Identity
from toolkit.work import Rows, Work

from ._texts import Sample, labels_of, tables

UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class FileSource:
    """The functions of a source that reads one file."""

    kind: str
    """The file's kind, as messages name it."""
    read: Callable[[Path, Any], Sequence[Sample]]
    """Reads and checks the samples of a file, given its path and the params."""

    def identify(self, params: Any, folder: Path) -> Identity:
        """The file's SHA-256, and how much it holds. Every row is checked first, so that a bad file
        is reported before anything runs.
        """
        path = self._path(params)
        samples = self.read(path, params)
        digest = sha256_of(path)
        facts = {
            "bytes": path.stat().st_size,
            "rows": len(samples),
            "units": len({sample.unit for sample in samples}),
            "labels": labels_of(samples, params),
        }
        return Identity(name=path.name, revision=digest[:12], digest=digest, facts=facts)

    def max_rows(self, params: Any, available: Mapping[str, int]) -> Mapping[str, int]:
        """How many samples the file holds, known before anything runs."""
        return {"samples": len(self.read(self._path(params), params))}

    def read_samples(self, work: Work) -> Rows:
        """The tables that the file's rows become."""
        yield from tables(work, self.read(self._path(work.params), work.params))

    def _path(self, params: Any) -> Path:
        path = locate(params.path)
        if path.is_dir():
            raise BadInput(f"{path} is a folder; name a {self.kind} file in it.")
        check_regular(path)
        return path


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
