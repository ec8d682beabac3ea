"""Exports: tables as JSON lines and activations as NumPy archives."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit import hookimpl
from toolkit.records import Part, SinkPart

from . import _json_lines, _npz


@hookimpl
def toolkit_parts() -> Iterator[Part]:
    """Every part of this subject."""
    yield SinkPart(name="json", help="Tables as JSON lines.", params=_json_lines.Json, run=_json_lines.write_json)
    yield SinkPart(
        name="npz",
        help="Activations as NumPy archives, one a space: sparse, or dense when asked.",
        params=_npz.Npz,
        run=_npz.write_npz,
        reads=("activations", "spaces", "samples", "sample_meta", "saes"),
        disk=_npz.disk,
    )
