"""Neuronpedia's bulk layout: `v1/MODEL/SOURCE/` with features, activations and explanations in
numbered files of gzipped JSON lines.

A feature is identified by (modelId, layer, index) alone: batch number and line do not matter.
Features are in the order of their indices as text, as Neuronpedia sorts them. Labels come in as
rows of `features` with the stat `label`; the group says by which method and model a label was made,
since a feature has several. Those methods and models are entered in `v1/config/`.
"""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import BadInput
from toolkit.features.addresses import neuronpedia
from toolkit.features.labels import BETWEEN, LABEL, SourceName
from toolkit_store.interchange._run_tables import RunTables

if TYPE_CHECKING:
    import polars as pl

BATCH = 1024
BARS = 20
"""Bars of the histogram of a feature's values."""


def write(
    run: RunTables,
    folder: Path,
    *,
    spaces: Sequence[str] | None = None,
    k: int = 20,
    batch: int = BATCH,
) -> list[Path]:
    """Write a folder per space: for each feature that fires the `k` samples with its largest
    values, and all labels.
    """
    labels = _labels(run)
    files: list[Path] = []
    seen: dict[SourceName, str] = {}
    for space, rows in run.activations(spaces):
        name = neuronpedia(space)
        if name in seen:
            raise BadInput(
                f"spaces {seen[name]} and {space['space']} are both '{'/'.join(name)}' at "
                "Neuronpedia. Export one: --space ID."
            )
        seen[name] = space["space"]
        files += _write_space(
            run, space, rows, labels[space["space"]], folder.joinpath("v1", *name), k, batch
        )
    written_labels = [
        row for space in seen.values() for rows in labels[space].values() for row in rows
    ]
    return _write_config(folder / "v1" / "config", written_labels) + files


def _write_space(
    run: RunTables,
    space: Mapping[str, Any],
    rows: pl.DataFrame,
    labels: Mapping[int, Sequence[Mapping[str, Any]]],
    folder: Path,
    k: int,
    batch: int,
) -> list[Path]:
    entries = (
        rows.explode("features", "values")
        .drop_nulls("features")
        .rename({"features": "feature", "values": "value"})
    )
    by_feature = {
        int(index): mine for (index,), mine in entries.group_by("feature") if index is not None
    }
    indices = sorted({*by_feature, *labels}, key=str)
    nothing = entries.clear()
    best = {index: _best(by_feature.get(index, nothing), k) for index in indices}
    model, source = neuronpedia(space)
    key = {"modelId": model, "layer": source}
    files = _write_about(folder, space, run)
    for number, some in enumerate(_batches(indices, batch)):
        features = (
            _feature(key, space, index, by_feature.get(index, nothing), len(rows)) for index in some
        )
        texts = (
            row
            for index in some
            for row in _activations(key, index, best[index], by_feature.get(index, nothing), run)
        )
        explanations = (
            _explanation(key, index, row, order)
            for index in some
            for order, row in enumerate(labels.get(index, ()))
        )
        for kind, lines in (
            ("features", features),
            ("activations", texts),
            ("explanations", explanations),
        ):
            files += _write_batch(folder / kind / f"batch-{number}.jsonl.gz", lines)
    return files


def _batches(indices: Sequence[int], size: int) -> Iterator[list[int]]:
    left = iter(indices)
    while some := list(islice(left, size)):
        yield some


def _write_about(folder: Path, space: Mapping[str, Any], run: RunTables) -> list[Path]:
    """Write what Neuronpedia imports before the features: release, model, source set, source."""
    model, source = neuronpedia(space)
    group = source.partition("-")[2]
    release = f"toolkit-{run.row.name}"
    about = {
        "release": {"name": release, "description": f"Run {run.id}", "creatorName": "sae-toolkit"},
        "model": {"id": model, "displayName": str(space["model"]), "instruct": "-it" in model},
        "sourceset": {
            "modelId": model,
            "name": group,
            "releaseName": release,
            "type": str(space["recipe"]),
        },
        "source": {
            "modelId": model,
            "id": source,
            "setName": group,
            "hookName": space["hookpoint"],
            "dim": space["width"],
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, row in about.items():
        (folder / f"{name}.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    return [folder / f"{name}.jsonl" for name in about]


def _write_config(folder: Path, labels: Iterable[Mapping[str, Any]]) -> list[Path]:
    """The methods and models that explanations name; Neuronpedia enters them once for all its
    sources.
    """
    kinds, models = (
        sorted({*names} - {""})
        for names in zip(("", ""), *(_made_by(row) for row in labels), strict=True)
    )
    files = []
    for name, labels_of in (("explanation_type", kinds), ("explanation_model_type", models)):
        rows = [
            {"name": method, "displayName": method, "description": "", "creatorName": "sae-toolkit"}
            for method in labels_of
        ]
        if rows:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}.jsonl").write_text(
                "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
            )
            files.append(folder / f"{name}.jsonl")
    return files


def _made_by(row: Mapping[str, Any]) -> tuple[str, str]:
    """The method and model that made a label; empty if unknown."""
    kind, _, model = _plain(row["group"]).partition(BETWEEN)
    return kind, model


def _write_batch(path: Path, rows: Iterable[Mapping[str, Any]]) -> list[Path]:
    """Write rows as gzipped JSON lines, equal bytes for equal rows; without rows, no file."""
    lines = [json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows]
    if not lines:
        return []
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(b"".join(lines), mtime=0))
    return [path]


def _best(entries: pl.DataFrame, k: int) -> list[str]:
    """The samples on which a feature fires most strongly."""
    import polars as pl

    ranked = (
        entries.group_by("sample")
        .agg(pl.col("value").max())
        .sort(["value", "sample"], descending=[True, False])
    )
    return ranked["sample"].head(k).to_list()


def _feature(
    key: Mapping[str, str], space: Mapping[str, Any], index: int, entries: pl.DataFrame, rows: int
) -> dict[str, Any]:
    import numpy as np

    values = entries["value"].to_numpy()
    heights, edges = np.histogram(values, BARS) if len(values) else (np.zeros(0), np.zeros(1))
    return {
        **key,
        "index": str(index),
        "sourceSetName": key["layer"].partition("-")[2],
        "maxActApprox": float(values.max(initial=0.0)),
        "frac_nonzero": len(values) / rows if rows else 0.0,
        "freq_hist_data_bar_heights": [int(height) for height in heights],
        "freq_hist_data_bar_values": [float(edge) for edge in edges[:-1]],
        "pos_str": [],
        "pos_values": [],
        "neg_str": [],
        "neg_values": [],
        "hasVector": False,
        "vector": [],
        "hookName": space["hookpoint"],
    }


def _activations(
    key: Mapping[str, str], index: int, best: Sequence[str], entries: pl.DataFrame, run: RunTables
) -> Iterator[dict[str, Any]]:
    import polars as pl

    mine = {
        str(name): rows
        for (name,), rows in entries.filter(pl.col("sample").is_in(best)).group_by("sample")
    }
    for name in best:
        tokens = run.samples[name]["pieces"] if name in run.samples else []
        fired = {
            row["position"]: row["value"]
            for row in mine[name].to_dicts()
            if row["position"] < len(tokens)
        }
        if fired:
            values = [fired.get(i, 0.0) for i in range(len(tokens))]
            yield _activation(key, index, name, tokens, values)


def _activation(
    key: Mapping[str, str], index: int, name: str, tokens: list[str], values: list[float]
) -> dict[str, Any]:
    largest = max(values)
    return {
        "id": f"{key['modelId']}-{key['layer']}-{index}-{name}",
        **key,
        "index": str(index),
        "tokens": tokens,
        "values": values,
        "maxValue": largest,
        "maxValueTokenIndex": values.index(largest),
        "minValue": min(values),
        "binMin": None,
        "binMax": None,
        "binContains": None,
        "dfaValues": [],
        "dfaTargetIndex": None,
    }


def _explanation(
    key: Mapping[str, str], index: int, row: Mapping[str, Any], number: int
) -> dict[str, Any]:
    kind, model = _made_by(row)
    return {
        "id": f"{key['modelId']}-{key['layer']}-{index}-{number:04d}",
        **key,
        "index": str(index),
        "description": row["text"],
        "embedding": None,
        "typeName": kind or None,
        "explanationModelName": model or None,
    }


def _labels(run: RunTables) -> dict[str, dict[int, list[dict[str, Any]]]]:
    """Space -> feature -> its rows with the stat `label`, in the order of the numbers in their
    groups.
    """
    out: dict[str, dict[int, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in run.read("features").to_pylist():
        if row["stat"] == LABEL and row["text"]:
            out[row["space"]][row["feature"]].append(row)
    for features in out.values():
        for rows in features.values():
            rows.sort(key=lambda row: (_plain(row["group"]), _number(row["group"])))
    return out


def _plain(group: str) -> str:
    """A label's group without the number that separates labels of one method and model."""
    head, separator, number = group.rpartition(" #")
    return head if separator and number.isdigit() else group


def _number(group: str) -> int:
    number = group.rpartition(" #")[2]
    return int(number) if _plain(group) != group else 1
