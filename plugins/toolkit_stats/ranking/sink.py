"""The sink `ranking`: exports results of compare.ranking in the formats of the published trait
pipeline, and the sound ranking.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from toolkit.activations.kept_positions import Activations, asked_of
from toolkit.errors import DataError
from toolkit.features.addresses import layer_of, neuronpedia_page
from toolkit.features.comparisons import Comparison, read_comparisons, rows_of
from toolkit.parts import SinkParams
from toolkit.saes import average_l0s
from toolkit.tables import written
from toolkit.work import Inputs, SinkWork
from toolkit_stats.ranking.stage import mean_group

if TYPE_CHECKING:
    import pyarrow as pa

PUBLISHED = {
    "interpretability_score": "score",
    "pearson_corr": "pearson",
    "spearman_corr": "spearman",
    "separation_score": "separation",
    "tpr": "tpr",
    "fpr": "fpr",
}
"""Columns of the published CSV and the statistics that they hold."""
SOUND = (
    "score_sound",
    "pearson_confirm",
    "spearman_confirm",
    "separation_confirm",
    "tpr_confirm",
    "fpr_confirm",
    "p",
    "q",
)

RANKS = ("rank", "rank_sound")


class RankingFiles(SinkParams):
    """The folder, and how many examples."""

    top: int = Field(
        50, ge=1, description="Number of features of the published ranking that get examples."
    )
    per_label: int = Field(5, ge=1, description="Number of examples per label.")


def write_ranking(work: SinkWork) -> Iterator[tuple[str, bytes]]:
    """`ranked_features.csv`, `feature_examples.json` and `ranked_features_sound.csv`; a folder for
    each label where there are several.
    """
    ranking = _read(work)
    if not ranking:
        raise DataError(
            "The run has no ranking: no stage `compare.ranking` wrote one. Add the stage, or "
            "remove the sink `ranking`."
        )
    for comparison, features in ranking:
        by = comparison.by
        folder = "" if len(ranking) == 1 else f"{re.sub(r'[^A-Za-z0-9._-]+', '-', by)}/"
        published = _ordered(features, "rank")
        examples = _examples(work, comparison, published[: work.params.top])
        yield f"{folder}ranked_features.csv", _published_csv(published)
        yield f"{folder}feature_examples.json", examples
        yield f"{folder}ranked_features_sound.csv", _sound_csv(_ordered(features, "rank_sound"))


# --- ranked features ------------------------------------------------------------------------------


def rankings(inputs: Inputs) -> list[Comparison]:
    """The rankings among the comparisons of a run."""
    return [
        comparison
        for comparison in read_comparisons(inputs)
        if comparison.part == "compare.ranking"
    ]


def _read(work: SinkWork) -> list[tuple[Comparison, list[dict[str, Any]]]]:
    """Each ranking with its ranked features: statistics, space, and where Neuronpedia has it."""
    ranked = rankings(work.inputs)
    count = Counter(ranking.by for ranking in ranked)
    twice = next((by for by in count if count[by] > 1), None)
    if twice is not None:
        raise DataError(
            f"ranking: more than one stage ranks by {twice}, and the files have room for one. "
            "Put the other ranking into a spec of its own."
        )
    rows = work.inputs.read("features")
    spaces = {row["space"]: row for row in work.inputs.read("spaces").to_pylist()}
    average = average_l0s(work.inputs)
    return [
        (
            comparison,
            [
                _placed(spaces[space], feature, stats, average)
                for (space, feature), stats in _ranked(rows, comparison, spaces).items()
            ],
        )
        for comparison in ranked
    ]


def _ranked(
    features: pa.Table, comparison: Comparison, spaces: Mapping[str, Mapping[str, Any]]
) -> dict[tuple[str, int], dict[str, Any]]:
    """By space and feature, the statistics of the features that have a rank."""
    rows = rows_of(features, comparison).to_pylist()
    label_of = {mean_group(comparison.by, label): label for label in comparison.group_names}
    results: dict[tuple[str, int], dict[str, Any]] = {
        (row["space"], row["feature"]): {"means": {}}
        for row in rows
        if row["stat"] in RANKS and row["number"] is not None
    }
    for row in rows:
        stats = results.get((row["space"], row["feature"]))
        if stats is None:
            continue
        if row["stat"] == "mean":
            stats["means"][label_of[row["group"]]] = row["number"]
        elif row["stat"].startswith("same_as"):
            stats[row["stat"]] = f"{spaces[row['text']]['address']}:{row['number']:.0f}"
        else:
            stats[row["stat"]] = row["number"]
    return results


def _placed(
    space: Mapping[str, Any], feature: int, stats: dict[str, Any], average: Mapping[str, float]
) -> dict[str, Any]:
    l0, url = average.get(space["space"]), neuronpedia_page(space, feature)
    return {
        "space": space["space"],
        "layer": layer_of(space),
        "l0": l0,
        "feature": feature,
        "url": url,
        **stats,
    }


def _ordered(features: Sequence[dict[str, Any]], rank: str) -> list[dict[str, Any]]:
    return sorted(
        (feature for feature in features if feature.get(rank) is not None),
        key=lambda row: float(row[rank]),
    )


# --- files ----------------------------------------------------------------------------------------


def _published_csv(features: Sequence[Mapping[str, Any]]) -> bytes:
    labels = sorted({label for feature in features for label in feature["means"]}, key=float) or [
        "0",
        "1",
        "2",
        "3",
    ]
    heads = ["rank", "layer", "average_l0", "feature_id", "neuronpedia_url", *PUBLISHED]
    heads += [*(f"mean_label_{label}" for label in labels), "monotonic"]
    lines = [
        [number + 1, *_location(feature), *_published_numbers(feature, labels)]
        for number, feature in enumerate(features)
    ]
    return _csv(heads, lines)


def _published_numbers(row: Mapping[str, Any], labels: Sequence[str]) -> list[Any]:
    means = [row["means"].get(label) for label in labels]
    return [*(row[stat] for stat in PUBLISHED.values()), *means, bool(row["monotonic"])]


def _sound_csv(features: Sequence[Mapping[str, Any]]) -> bytes:
    """Every feature that passes; `same_as` is the address of the feature that a row duplicates, and
    empty for all others.
    """
    heads = ["rank", "layer", "average_l0", "feature_id", "neuronpedia_url", *SOUND, "same_as"]
    numbers = [
        [*(feature[stat] for stat in SOUND), feature.get("same_as_sound")] for feature in features
    ]
    return _csv(
        heads,
        [
            [number + 1, *_location(feature), *numbers[number]]
            for number, feature in enumerate(features)
        ],
    )


def _location(row: Mapping[str, Any]) -> list[Any]:
    return [row["layer"], row["l0"], row["feature"], row["url"]]


def _csv(heads: Sequence[str], lines: Sequence[Sequence[Any]]) -> bytes:
    """CSV; unknown values are empty cells."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(heads)
    writer.writerows(["" if cell is None else cell for cell in line] for line in lines)
    return out.getvalue().encode()


def _examples(
    work: SinkWork, comparison: Comparison, features: Sequence[Mapping[str, Any]]
) -> bytes:
    made: dict[str, Any] = {}
    hits = _hits(work, comparison, features)
    for number, feature in enumerate(features):
        name = f"layer_{feature['layer']}_l0_{feature['l0']}_feature_{feature['feature']}"
        made[name if name not in made else f"{name}_{feature['space']}"] = {
            "rank": number + 1,
            "layer": feature["layer"],
            "average_l0": feature["l0"],
            "feature_id": feature["feature"],
            "neuronpedia_url": feature["url"],
            "interpretability_score": feature["score"],
            "pearson_correlation": feature["pearson"],
            "tpr": feature["tpr"],
            "fpr": feature["fpr"],
            "examples_by_label": {label: hits[number].get(label, []) for label in feature["means"]},
        }
    return (json.dumps(made, indent=2, ensure_ascii=False) + "\n").encode()


def _hits(
    work: SinkWork, comparison: Comparison, features: Sequence[Mapping[str, Any]]
) -> list[dict[str, list[dict[str, Any]]]]:
    """For each feature and label the sentences with its largest activations at the final token."""
    import pyarrow.compute as pc

    samples = {
        row["sample"]: row
        for row in work.inputs.read("samples").select(["sample", "text", "token_ids"]).to_pylist()
    }
    meta = work.inputs.read("sample_meta")
    rows = meta.filter(pc.equal(meta["key"], comparison.by)).to_pylist()
    label = {row["sample"]: written(row["number"]) for row in rows if row["number"] is not None}
    read = _reader(work, comparison, [sample for sample in samples if sample in label])
    results = []
    by_space: dict[str, dict[str, dict[int, float]]] = {}
    for feature in features:
        if feature["space"] not in by_space:
            by_space[feature["space"]] = _largest(read(feature["space"]))
        fired = [
            (values[feature["feature"]], sample)
            for sample, values in by_space[feature["space"]].items()
            if feature["feature"] in values
        ]
        fired.sort(key=lambda pair: (-pair[0], pair[1]))
        mine: dict[str, list[dict[str, Any]]] = {}
        for value, sample in fired:
            hits = mine.setdefault(label[sample], [])
            if value > 0 and len(hits) < work.params.per_label:
                hits.append({"sentence": samples[sample]["text"], "activation": value})
        results.append(mine)
    return results


def _reader(
    work: SinkWork, comparison: Comparison, names: Sequence[str]
) -> Callable[[str], pa.Table]:
    """A function that returns the rows of a space in these samples, at the positions that the
    ranking read.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    activations = Activations(work.inputs, asked_of(comparison.positions))
    values = pa.array(names, pa.string())

    def read(space: str) -> pa.Table:
        rows = activations.of(space, names, space)
        return rows.filter(pc.is_in(rows["sample"], value_set=values))

    return read


def _largest(rows: pa.Table) -> dict[str, dict[int, float]]:
    """By sample, the largest value of each feature that fired."""
    results: dict[str, dict[int, float]] = {}
    for row in rows.to_pylist():
        values = results.setdefault(row["sample"], {})
        for feature, value in zip(row["features"], row["values"], strict=True):
            values[feature] = max(values.get(feature, value), value)
    return results
