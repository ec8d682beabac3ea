"""Labels of Neuronpedia's bulk layout, added to a run as rows of `features`."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from toolkit.addresses import neuronpedia
from toolkit.errors import BadInput, DataError, choices, nearest
from toolkit_store.interchange._commit import attach, digest_of
from toolkit_store.interchange._files import arrow
from toolkit_store.interchange._incoming import read_lines
from toolkit_store.interchange._neuronpedia import BETWEEN, LABEL, Key
from toolkit_store.interchange._run_tables import RunTables

_INDEX = re.compile("[0-9]{1,9}")


def read(
    store: object, folder: Path, *, run: RunTables, sources: Mapping[str, str] | None = None
) -> str:
    """Add the labels that the folder has for features of the run's spaces. `sources`: source id ->
    space id, where names differ.
    """
    files = [
        *folder.rglob("explanations/batch-*.jsonl.gz"),
        *folder.rglob("explanations/batch-*.jsonl"),
    ]
    if not files:
        raise BadInput(
            f"{folder} holds no explanations/batch-N.jsonl.gz. Name a folder of Neuronpedia's bulk "
            "data: v1/MODEL/SOURCE or above."
        )
    spaces = _by_name(run, sources or {})
    rows = list(_label_rows(sorted(files), spaces, folder, run))
    digest = digest_of(files) + json.dumps(
        sorted((*name, space["space"]) for name, space in spaces.items())
    )
    return attach(run, "import.neuronpedia", digest, {"features": arrow("features", rows)})


def _by_name(run: RunTables, sources: Mapping[str, str]) -> dict[Key, Mapping[str, Any]]:
    """(modelId, source id) -> the space that it means in this run."""
    out: dict[Key, Mapping[str, Any]] = {}
    for space in run.spaces.values():
        name = neuronpedia(space)
        if name in out:
            raise BadInput(
                f"spaces {out[name]['space']} and {space['space']} of run {run.id} are both "
                f"'{'/'.join(name)}'. Say which is meant: --source {name[1]}=SPACE."
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
    files: Sequence[Path], spaces: Mapping[Key, Mapping[str, Any]], folder: Path, run: RunTables
) -> Iterator[dict[str, Any]]:
    """Rows of `features`, one per label; numbered if a method and model gave several."""
    results: dict[tuple[str, int, str], list[tuple[str, str]]] = defaultdict(list)
    others: set[str] = set()
    for path in files:
        for where, row in _lines(path):
            model, layer, index, group, text = _parsed(where, row)
            space = spaces.get((model, layer))
            if space is None:
                others.add(f"{model}/{layer}")
            elif index >= space["width"]:
                raise DataError(
                    f"{where}: feature {index} of {model}/{layer}, whose width here is "
                    f"{space['width']}."
                )
            elif text:
                results[space["space"], index, group].append((str(row.get("id", "")), text))
    if not results:
        known = ["/".join(name) for name in spaces]
        some = ", ".join(sorted(others)[:5]) or "nothing"
        raise BadInput(
            f"{folder} has labels of {some}, run {run.id} has "
            f"{', '.join(known) or 'no spaces'}.{nearest(min(others, default=''), known)} If one "
            "is the other, say so: --source SOURCE=SPACE."
        )
    for (id, index, group), said in sorted(results.items()):
        for number, text in zip(
            count(1), dict.fromkeys(text for _, text in sorted(said)), strict=False
        ):
            name = group if number == 1 else f"{group} #{number}"
            yield {
                "space": id,
                "feature": index,
                "stat": LABEL,
                "group": name,
                "number": None,
                "text": text,
            }


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
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


def _parsed(where: str, row: Any) -> tuple[str, str, int, str, str]:
    """Model, source, index, group and text of an explanation; its index may be a number or a
    text.
    """
    needed = ("modelId", "layer", "index", "description")
    missing = [name for name in needed if not isinstance(row, dict) or name not in row]
    if missing or not _INDEX.fullmatch(str(row["index"])):
        wrong = f"no '{missing[0]}'" if missing else f"index {row['index']!r}"
        raise DataError(
            f"{where}: an explanation needs {', '.join(needed)}; it has {wrong}. Download the file "
            "again."
        )
    kind, model = (str(row.get(name) or "") for name in ("typeName", "explanationModelName"))
    group = f"{kind}{BETWEEN}{model}" if model else kind
    return (
        str(row["modelId"]),
        str(row["layer"]),
        int(row["index"]),
        group,
        str(row["description"] or ""),
    )
