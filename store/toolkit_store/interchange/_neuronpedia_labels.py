"""Labels of Neuronpedia's bulk layout, added to a run as rows of `features`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit.errors import BadInput, choices, nearest
from toolkit.features.addresses import neuronpedia
from toolkit.features.labels import FILES, SourceName, label_files, read_labels
from toolkit_store.interchange._commit import attach, digest_of
from toolkit_store.interchange._files import arrow
from toolkit_store.interchange._run_tables import RunTables


def read(
    store: object, folder: Path, *, run: RunTables, sources: Mapping[str, str] | None = None
) -> str:
    """Add the labels that the folder has for features of the run's spaces. `sources`: source id ->
    space id, where names differ.
    """
    files = label_files(folder)
    if not files:
        raise BadInput(
            f"{folder} holds no {FILES}. Name a folder of Neuronpedia's bulk data: "
            "v1/MODEL/SOURCE or above."
        )
    spaces = _by_name(run, sources or {})
    rows = _label_rows(files, spaces, folder, run)
    digest = digest_of(files) + json.dumps(
        sorted((*name, space["space"]) for name, space in spaces.items())
    )
    return attach(run, "import.neuronpedia", digest, {"features": arrow("features", rows)})


def _by_name(run: RunTables, sources: Mapping[str, str]) -> dict[SourceName, Mapping[str, Any]]:
    """(modelId, source id) -> the space that it stands for in this run."""
    out: dict[SourceName, Mapping[str, Any]] = {}
    for space in run.spaces.values():
        name = neuronpedia(space)
        if name in out:
            raise BadInput(
                f"spaces {out[name]['space']} and {space['space']} of run {run.id} are both "
                f"'{'/'.join(name)}'. Choose one: --source {name[1]}=SPACE."
            )
        out[name] = space
    for source, id in sources.items():
        if id not in run.spaces:
            raise BadInput(
                f"--source {source}={id}: run {run.id} has no space {id}. Spaces: "
                f"{choices(run.spaces)}."
            )
        model = neuronpedia(run.spaces[id])[0]
        out = {name: row for name, row in out.items() if row["space"] != id}
        out[model, source] = run.spaces[id]
    return out


def _label_rows(
    files: Sequence[Path],
    spaces: Mapping[SourceName, Mapping[str, Any]],
    folder: Path,
    run: RunTables,
) -> list[dict[str, Any]]:
    """Rows of `features`; a folder without a label of the run's spaces is refused."""
    labels = read_labels(files, spaces)
    if not labels.rows:
        known = ["/".join(name) for name in spaces]
        others = labels.other_sources
        raise BadInput(
            f"{folder} has labels of {', '.join(others[:5]) or 'nothing'}, run {run.id} has "
            f"{', '.join(known) or 'no spaces'}.{nearest(min(others, default=''), known)} If "
            "they are the same space, say so: --source SOURCE=SPACE."
        )
    return labels.rows
