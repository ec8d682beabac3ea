"""Samples from files: CSV."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit import hookimpl
from toolkit.records import Part, SourcePart

from . import _csv_file


@hookimpl
def toolkit_parts() -> Iterator[Part]:
    """Every part of this subject."""
    yield SourcePart(
        name="csv",
        help="Samples from a CSV file: a text a row, other columns as metadata.",
        params=_csv_file.Csv,
        run=_csv_file.read_samples,
        identify=_csv_file.identify,
        uses_model=True,
    )
