"""Labels of features in Neuronpedia's bulk format: below a folder, `explanations/batch-N.jsonl.gz`
with a label a line.

A feature is identified by (modelId, layer, index) alone: batch number and line do not matter. A
label becomes a row of the table `features` with the stat `label`; its group says by which method
and model it was made, since a feature has several.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from toolkit.errors import DataError
from toolkit.files.json_lines import lines_of

LABEL = "label"
BETWEEN = " / "
"""Separates the method from the model in a label's group."""
FILES = "explanations/batch-N.jsonl.gz"

_INDEX = re.compile("[0-9]{1,9}")

SourceName = tuple[str, str]
"""Neuronpedia's model id and source id."""


@dataclass(frozen=True)
class ReadLabels:
    """Rows of `features`, and the sources with labels that belong to none of the spaces."""

    rows: list[dict[str, Any]]
    other_sources: list[str]


def label_files(folder: Path) -> list[Path]:
    """The files with labels below a folder, sorted."""
    patterns = ("explanations/batch-*.jsonl.gz", "explanations/batch-*.jsonl")
    return sorted(path for pattern in patterns for path in folder.rglob(pattern))


def read_labels(
    files: Iterable[Path], spaces: Mapping[SourceName, Mapping[str, Any]]
) -> ReadLabels:
    """The labels of features of these spaces (rows of `spaces`), numbered where a method and model
    gave several.
    """
    texts: dict[tuple[str, int, str], list[tuple[str, str]]] = defaultdict(list)
    others: set[str] = set()
    for path in files:
        for where, line in lines_of(path):
            label = _parsed(where, line)
            space = spaces.get((label.model, label.source))
            if space is None:
                others.add(f"{label.model}/{label.source}")
            elif label.feature >= space["width"]:
                raise DataError(
                    f"{where}: feature {label.feature} of {label.model}/{label.source}, whose "
                    f"width here is {space['width']}."
                )
            elif label.text:
                key = (space["space"], label.feature, label.group)
                texts[key].append((str(line.get("id", "")), label.text))
    return ReadLabels(_rows(texts), sorted(others))


def _rows(
    texts: Mapping[tuple[str, int, str], Iterable[tuple[str, str]]],
) -> list[dict[str, Any]]:
    rows = []
    for (space, feature, group), labels in sorted(texts.items()):
        distinct = dict.fromkeys(text for _, text in sorted(labels))
        for number, text in zip(count(1), distinct, strict=False):
            name = group if number == 1 else f"{group} #{number}"
            row = {"space": space, "feature": feature, "stat": LABEL, "group": name}
            rows.append({**row, "number": None, "text": text})
    return rows


class _LabelLine(NamedTuple):
    """A label as a line of a file has it."""

    model: str
    source: str
    feature: int
    group: str
    text: str


def _parsed(where: str, line: Any) -> _LabelLine:
    """The label in a line; its index may be a number or a text."""
    needed = ("modelId", "layer", "index", "description")
    missing = [name for name in needed if not isinstance(line, dict) or name not in line]
    if missing or not _INDEX.fullmatch(str(line["index"])):
        wrong = f"no '{missing[0]}'" if missing else f"index {line['index']!r}"
        raise DataError(
            f"{where}: an explanation needs {', '.join(needed)}; it has {wrong}. Download the file "
            "again."
        )
    kind, model = (str(line.get(name) or "") for name in ("typeName", "explanationModelName"))
    group = f"{kind}{BETWEEN}{model}" if model else kind
    return _LabelLine(
        str(line["modelId"]),
        str(line["layer"]),
        int(line["index"]),
        group,
        str(line["description"] or ""),
    )
