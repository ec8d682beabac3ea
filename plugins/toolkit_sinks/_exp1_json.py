"""The sink `exp1_json`: a comparison of two groups in the JSON that the study of SAE layers 1 to 31
published, for scripts that read it.

Extra keys hold what the published format has no field for: the space of each layer (a feature
number means nothing without it), and how many features the corrected p alone would call
significant.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from toolkit.errors import DataError, choices, nearest
from toolkit.features.comparisons import Comparison, read_comparisons, rows_of
from toolkit.hookpoints import hookpoint
from toolkit.parts import SinkParams
from toolkit.work import SinkWork

from ._stamp import stamp

if TYPE_CHECKING:
    import pyarrow as pa

FILE = "features.json"
PUBLISHED = {"p_value": "p", "cohen_d": "d", "p_corrected": "q"}
"""The study's name of a statistic of both groups, and its name in table `features`."""
OF_GROUP = {"mean": "mean", "std": "std"}


class Exp1Json(SinkParams):
    """Where the file goes, and which comparison it holds."""

    groups: tuple[str, str] = Field(
        ("bankruptcy", "voluntary_stop"),
        description="The two compared groups; the file calls the first bankrupt and the second "
        "safe.",
    )

    half: Literal["all", "select", "confirm"] = Field(
        "all",
        description="The half of the units that was compared, if a run compares these groups more "
        "than once.",
    )

    @field_validator("groups")
    @classmethod
    def _check_groups_differ(cls, pair: tuple[str, str]) -> tuple[str, str]:
        if pair[0] == pair[1]:
            raise ValueError(f"both groups are '{pair[0]}'; name two different ones")
        return pair

    @property
    def contrast(self) -> str:
        """How rows of table `features` name the comparison."""
        return " vs ".join(self.groups)


def write_exp1_json(work: SinkWork) -> Iterator[tuple[str, bytes]]:
    """One file: totals, and for each layer its significant features, smallest p first."""
    import pyarrow as pa

    chosen = _chosen(read_comparisons(work.inputs), work.params)
    features = work.inputs.read("features")
    rows = pa.concat_tables([rows_of(features, comparison) for comparison in chosen])
    layers = _layers(work.inputs.read("spaces"), rows)
    size_of = {group.name: group.samples for group in chosen[0].groups}
    sizes = [size_of[group] for group in work.params.groups]
    results = {
        str(layer): _layer(layer, facts, rows, work.params, sizes)
        for layer, facts in sorted(layers.items())
    }
    document = {
        "timestamp": stamp(work.committed_at),
        "feature_type": _kind(layers),
        "sae_source": _source(layers),
        "total_experiments_processed": sum(sizes),
        "layers_analyzed": sorted(layers),
        "total_significant_features": sum(result["n_significant"] for result in results.values()),
        "total_significant_by_p": _total(
            [result["n_significant_by_p"] for result in results.values()]
        ),
        "significant_features_by_layer": {
            layer: result["n_significant"] for layer, result in results.items()
        },
        "layer_results": results,
    }
    yield FILE, (json.dumps(document, indent=1) + "\n").encode()


def _chosen(comparisons: Sequence[Comparison], params: Exp1Json) -> list[Comparison]:
    """The comparison to publish, from each stage that made it in its own spaces; two in one space
    are an error.
    """
    group_comparisons = [comparison for comparison in comparisons if comparison.effect == "d"]
    matching = [
        comparison for comparison in group_comparisons if comparison.group_names == params.groups
    ]
    if not matching:
        known = sorted({comparison.name for comparison in group_comparisons})
        available = (
            f" The run compares: {choices(known)}." if known else " The run compares no groups."
        )
        raise DataError(
            f"exp1_json: no row compares "
            f"{params.contrast}.{nearest(params.contrast, known)}{available}"
        )
    results = [comparison for comparison in matching if comparison.half == params.half]
    if not results:
        units = "all units" if params.half == "all" else f"the half '{params.half}'"
        raise DataError(
            f"exp1_json: {params.contrast} was compared, but not on {units}. Set `half:` as the "
            "stage that is to be published does."
        )
    spaces = Counter(space for comparison in results for space in comparison.tested)
    if max(spaces.values(), default=1) > 1:
        labels = choices([comparison.label for comparison in results])
        raise DataError(
            f"exp1_json: more than one stage compares {params.contrast} in one space (half: "
            f"{params.half}; {labels}), and the file has room for one. Put the other comparison "
            "into a spec of its own."
        )
    return results


def _layers(spaces: pa.Table, rows: pa.Table) -> dict[int, dict[str, Any]]:
    """The space of each layer, also where nothing fired; two spaces at one layer are an error."""
    import pyarrow.compute as pc

    described = {row["space"]: row for row in spaces.to_pylist()}
    tested = {space for space in pc.unique(rows["space"]).to_pylist() if space in described}
    kinds = {described[space]["sae"] is None for space in tested}
    chosen = [row for row in described.values() if (row["sae"] is None) in kinds]
    duplicate = next(
        (
            hookpoint_name
            for hookpoint_name, count in Counter(row["hookpoint"] for row in chosen).items()
            if count > 1
        ),
        None,
    )
    layers = {hookpoint(row["hookpoint"]).layer: row for row in chosen}
    if duplicate is not None or len(layers) < len(chosen):
        several = f"spaces are at {duplicate}" if duplicate else "sites of one layer were compared"
        raise DataError(
            f"exp1_json: several {several}; "
            "the file has room for one per layer. Use the sink `json`, which keeps the space in "
            "every row."
        )
    return layers


def _total(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _layer(
    layer: int, space: Mapping[str, Any], rows: pa.Table, params: Exp1Json, sizes: list[int]
) -> dict[str, Any]:
    import pyarrow.compute as pc

    rows_of_space = rows.filter(pc.equal(rows["space"], space["space"]))
    features = _features(rows_of_space, params)
    return {
        "layer": layer,
        "space": space["space"],
        "address": space["address"],
        "n_features": space["width"],
        "n_bankrupt": sizes[0],
        "n_safe": sizes[1],
        "n_significant": len(features),
        "n_significant_by_p": _count_by_p(rows_of_space, len(features)),
        "significant_features": features,
    }


def _count_by_p(rows: pa.Table, significant: int) -> int | None:
    """How many features the corrected p alone calls significant; None after a stage that does not
    mark them.
    """
    import pyarrow.compute as pc

    count = int(pc.sum(pc.equal(rows["stat"], "discovered")).as_py() or 0)
    return count if count >= significant else None


def _features(rows: pa.Table, params: Exp1Json) -> list[dict[str, Any]]:
    """The significant features of a layer, with the statistics that the study published; a missing
    number is null.
    """
    import pyarrow.compute as pc

    marked = rows.filter(
        pc.and_(pc.equal(rows["stat"], "significant"), pc.greater(rows["number"], 0))
    )["feature"]
    marked_rows = rows.filter(pc.is_in(rows["feature"], value_set=marked.combine_chunks()))
    number = {
        (row["feature"], row["stat"], row["group"]): row["number"]
        for row in marked_rows.to_pylist()
    }
    results = []
    for feature in marked.to_pylist():
        facts: dict[str, Any] = {"feature_idx": feature}
        facts |= {
            name: number.get((feature, stat, params.contrast)) for name, stat in PUBLISHED.items()
        }
        for side, group in zip(("bankrupt", "safe"), params.groups, strict=True):
            facts |= {
                f"{side}_{name}": number.get((feature, stat, group))
                for name, stat in OF_GROUP.items()
            }
        results.append(facts)
    return sorted(results, key=lambda entry: (entry["p_value"], entry["feature_idx"]))


def _kind(layers: Mapping[int, Mapping[str, Any]]) -> str:
    """`SAE_features_32768_per_layer`, as published; the raw stream has its own name, so that its
    dimensions are not taken for features.
    """
    widths = sorted({row["width"] for row in layers.values()})
    kind = "raw_residual" if all(row["sae"] is None for row in layers.values()) else "SAE_features"
    return f"{kind}_{'_or_'.join(map(str, widths))}_per_layer"


def _source(layers: Mapping[int, Mapping[str, Any]]) -> str | None:
    """The common part of the SAEs' names, as a release is named: `Lab-LXR-4x` of Lab-L0R-4x,
    Lab-L1R-4x. None for the raw stream.
    """
    names = {
        str(row["sae"]).replace(f"L{layer}", "LX", 1)
        for layer, row in layers.items()
        if row["sae"] is not None
    }
    return ", ".join(sorted(names)) or None
