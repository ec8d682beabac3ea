"""Export runs to the formats of other programs, and import them: each export has its own folder,
each import becomes a run of the store.

    parquet      a whole run (tables, ledger, manifest); what is read back is identical
    safetensors  activations of each space in coordinates (COO)
    rows         npz, one per space: text fragments by features, dense
    tokens       npz, a folder per sample and a file per layer: tokens by features, dense, and
                 attention
    neuronpedia  Neuronpedia's bulk layout: features, activations and labels out, labels in
    lists        feature lists, as SAELens, SAEDashboard and Neuronpedia's quick lists take them

An import is a step like any other: its key is the hash of its input, so that repeating an import
changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from toolkit.errors import BadInput, choices, nearest
from toolkit_store.interchange import (
    _lists,
    _neuronpedia,
    _neuronpedia_labels,
    _npz_rows,
    _npz_tokens,
    _parquet,
    _safetensors,
)
from toolkit_store.interchange._incoming import reading
from toolkit_store.interchange._run_tables import RunTables, run_tables
from toolkit_store.store import Store

__all__ = ["ATTACHED", "FORMATS", "RunTables", "export_run", "import_run", "run_tables"]

_WRITERS: Mapping[str, Callable[..., list[Path]]] = {
    "parquet": _parquet.write,
    "safetensors": _safetensors.write,
    "rows": _npz_rows.write,
    "tokens": _npz_tokens.write,
    "neuronpedia": _neuronpedia.write,
    "lists": _lists.write,
}
_READERS: Mapping[str, Callable[..., str]] = {
    "parquet": _parquet.read,
    "safetensors": _safetensors.read,
    "rows": _npz_rows.read,
    "tokens": _npz_tokens.read,
}
ATTACHED: Mapping[str, Callable[..., str]] = {
    "neuronpedia": _neuronpedia_labels.read,
    "lists": _lists.read,
}
"""Formats that are imported into an existing run: labels and lists need its spaces."""
FORMATS = tuple(_WRITERS)


def export_run(run: RunTables, form: str, folder: Path, **options: Any) -> list[Path]:
    """Export a run to a new or empty folder; return the files. The last file written marks the
    export as complete.
    """
    check_format(form)
    try:
        _check_empty(folder)
        folder.mkdir(parents=True, exist_ok=True)
        return _WRITERS[form](run, folder, **options)
    except OSError as error:
        raise BadInput(
            f"{str(folder)[:200]} cannot be written to: {error.strerror or error}. Name another "
            "folder."
        ) from error


def import_run(
    store: Store, form: str, folder: Path, *, run: RunTables | None = None, **options: Any
) -> str:
    """Import what `export_run` or another program wrote; return the id of its run."""
    check_format(form)
    if form in ATTACHED and run is None:
        raise BadInput(f"Format '{form}' is imported into an existing run: name it with --run.")
    with reading(folder, form):
        if not folder.is_dir():
            raise BadInput(f"There is no folder {folder}. Name the folder that holds the files.")
        if run is None or form not in ATTACHED:
            return _READERS[form](store, folder, **options)
        return ATTACHED[form](store, folder, run=run, **options)


def check_format(form: str) -> None:
    """Refuse an unknown format."""
    if form not in FORMATS:
        raise BadInput(
            f"There is no format '{form}'.{nearest(form, FORMATS)} Formats: {choices(FORMATS)}."
        )


def _check_empty(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder} is a file. An export needs a folder; name a new one.")
    if folder.is_dir() and (results := sorted(path.name for path in folder.iterdir())):
        raise BadInput(
            f"{folder} is not empty: it holds {', '.join(results[:5])}. Name a new or an empty "
            "folder."
        )
