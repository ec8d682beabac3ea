"""Feature lists: which features of which spaces, as SAELens, SAEDashboard and Neuronpedia's quick
lists take them.

    quick-list.json    {"name", "features": [{"modelId", "layer", "index"}]}: Neuronpedia's names,
    in the order given
    MODEL-SOURCE.json  [3, 17, 2059]: the plain indices of one space, as
    `SaeVisConfig(features=...)` takes them
    lists.json         which file is of which space

Read back, a listed feature has a row in `features` with the stat `listed`; the group is the list's
name, the number its position in the list.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit.errors import BadInput, DataError, choices
from toolkit.features.addresses import from_neuronpedia, neuronpedia
from toolkit_store.interchange._commit import attach, digest_of
from toolkit_store.interchange._files import arrow, safe_names, write_json
from toolkit_store.interchange._incoming import check_json_size
from toolkit_store.interchange._run_tables import RunTables

LISTED = "listed"
QUICK = "quick-list.json"
_ABOUT = "lists.json"

_INDEX = re.compile("[0-9]{1,9}")

Feature = tuple[str, int]


def write(
    run: RunTables,
    folder: Path,
    *,
    spaces: Sequence[str] | None = None,
    features: Sequence[Feature] | None = None,
    name: str = "",
) -> list[Path]:
    """Write the given features (space, index); else those that a test calls significant; else all
    that have a row.
    """
    chosen = [
        feature
        for feature in (significant_features(run) if features is None else features)
        if spaces is None or feature[0] in spaces
    ]
    if not chosen:
        raise BadInput(
            f"Run {run.id} has no rows in table 'features', so there is nothing to list. "
            "Stages `compare.*` write them."
        )
    names = safe_names([run.spaces[space] for space in dict.fromkeys(space for space, _ in chosen)])
    by_space: dict[str, list[int]] = defaultdict(list)
    for space, index in chosen:
        by_space[space].append(index)
    quick = [
        dict(
            zip(
                ("modelId", "layer", "index"),
                (*neuronpedia(run.spaces[space]), str(index)),
                strict=True,
            )
        )
        for space, index in chosen
    ]
    files = [write_json(folder / QUICK, {"name": name or run.row.name, "features": quick})]
    files += [
        write_json(folder / f"{names[space]}.json", indices) for space, indices in by_space.items()
    ]
    about = {f"{names[space]}.json": run.spaces[space] for space in by_space}
    return [*files, write_json(folder / _ABOUT, {"name": name or run.row.name, "files": about})]


def significant_features(run: RunTables) -> list[Feature]:
    """The features that a test calls significant, or if there is no test, all with a row; by space
    and index.
    """
    rows = [row for row in run.read("features").to_pylist() if row["space"] in run.spaces]
    tested = [row for row in rows if row["stat"] == "significant"]
    significant = [row for row in tested if row["number"] == 1] if tested else rows
    return sorted({(row["space"], row["feature"]) for row in significant})


def read(store: object, folder: Path, *, run: RunTables, space: str | None = None) -> str:
    """Add the listed features to a run. `space`: the space of plain lists whose space `lists.json`
    does not name.
    """
    files = [path for path in sorted(folder.glob("*.json")) if path.name != _ABOUT]
    if not files:
        raise BadInput(f"{folder} holds no lists: no {QUICK} and no other .json file.")
    about = _load(folder / _ABOUT) if (folder / _ABOUT).is_file() else {}
    rows: dict[tuple[str, int, str], int] = {}
    for path in files:
        for number, (id, index, group) in enumerate(_listed(path, about, run, space)):
            rows.setdefault((id, index, group), number)
    table = [
        {
            "space": id,
            "feature": index,
            "stat": LISTED,
            "group": group,
            "number": float(number),
            "text": None,
        }
        for (id, index, group), number in rows.items()
    ]
    return attach(
        run, "import.lists", digest_of(files) + f" {space}", {"features": arrow("features", table)}
    )


def _load(path: Path) -> Any:
    check_json_size(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON: {str(error)[:300]}.") from None


def _listed(
    path: Path, about: Mapping[str, Any], run: RunTables, space: str | None
) -> list[tuple[str, int, str]]:
    content = _load(path)
    if isinstance(content, list) and all(
        isinstance(index, int) and not isinstance(index, bool) for index in content
    ):
        id = (about.get("files", {}).get(path.name) or {}).get("space", space)
        return [
            _checked(path, run, id, index, str(about.get("name") or path.stem)) for index in content
        ]
    listed = content.get("features") if isinstance(content, dict) else content
    if not isinstance(listed, list) or not all(
        isinstance(row, dict) and {"modelId", "layer", "index"} <= row.keys() for row in listed
    ):
        raise DataError(
            f"{path} is not a feature list: it must hold whole numbers, or objects with modelId, "
            "layer and index."
        )
    name = str(content.get("name") or path.stem) if isinstance(content, dict) else path.stem
    return [_named(path, run, row, name) for row in listed]


def _named(path: Path, run: RunTables, row: Mapping[str, Any], name: str) -> tuple[str, int, str]:
    (space, *others) = from_neuronpedia(str(row["modelId"]), str(row["layer"]), run.spaces.values())
    if others:
        raise BadInput(
            f"{path}: {row['modelId']}/{row['layer']} matches {1 + len(others)} spaces of "
            f"run {run.id}. Use plain lists with --space."
        )
    if not _INDEX.fullmatch(str(row["index"])):
        raise DataError(f"{path}: index {str(row['index'])[:80]!r} is not a whole number.")
    return _checked(path, run, space["space"], int(row["index"]), name)


def _checked(
    path: Path, run: RunTables, space: str | None, index: int, name: str
) -> tuple[str, int, str]:
    if space not in run.spaces:
        raise BadInput(
            f"{path} does not say which space it is about. Name it: --space ID. Spaces of run "
            f"{run.id}: {choices(run.spaces)}."
        )
    width = run.spaces[space]["width"]
    if not 0 <= index < width:
        raise DataError(
            f"{path}: there is no feature {index} in {run.spaces[space]['address']}; its width is "
            f"{width}."
        )
    return space, index, name
