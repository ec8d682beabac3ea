"""The sink exp1_json: the published shape, the other entries, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from toolkit.errors import DataError
from toolkit.features.comparisons import Comparison
from toolkit.parts import SinkPart
from toolkit.tables import arrow_schema
from toolkit.testing.contracts import check_part
from toolkit.testing.fakes import TableInputs, make_comparison, make_comparisons, make_work
from toolkit.work import SinkWork
from toolkit_sinks import toolkit_parts

SINK = next(
    part for part in toolkit_parts() if isinstance(part, SinkPart) and part.name == "exp1_json"
)
BOTH = "bankruptcy vs voluntary_stop"
PUBLISHED = {
    "timestamp",
    "feature_type",
    "sae_source",
    "total_experiments_processed",
    "layers_analyzed",
    "total_significant_features",
}
OF_A_LAYER = {
    "layer",
    "n_features",
    "n_bankrupt",
    "n_safe",
    "n_significant",
    "significant_features",
}
OF_A_FEATURE = {
    "feature_idx",
    "p_value",
    "cohen_d",
    "bankrupt_mean",
    "safe_mean",
    "bankrupt_std",
    "safe_std",
    "p_corrected",
}


def space(
    name: str, layer: int, sae: str | None = "lab", site: str = "resid_post"
) -> dict[str, Any]:
    place = f"{site}.{layer}"
    columns = {
        "space": name,
        "hookpoint": place,
        "address": f"m/{place}/{sae}",
        "width": 64,
        "recipe": "relu",
    }
    return {
        **columns,
        "model": "m",
        "revision": "1",
        "sae": sae and f"Lab-L{layer}R-4x",
        "sae_hash": sae and "h",
    }


def compared(half: str = "all", sizes: Sequence[int] = (12, 1), **fields: Any) -> Comparison:
    """What a stage recorded of its comparison of both groups."""
    made = make_comparison("bankruptcy", "voluntary_stop", id=f"c-{half}", half=half, **fields)
    groups = [replace(group, samples=size) for group, size in zip(made.groups, sizes, strict=True)]
    return replace(made, groups=tuple(groups), tested={"s1": 64, "s2": 64, "s3": 64})


def feature(
    space: str,
    number: int,
    *,
    p: float,
    d: float,
    significant: bool,
    discovered: bool,
    comparison: str = "c-all",
) -> list[dict[str, Any]]:
    """The rows of one feature, as a comparison writes them."""
    groups = ("bankruptcy", "voluntary_stop")
    rows = [("mean", group, 2.0 - index) for index, group in enumerate(groups)]
    rows += [("std", group, 0.5 + index) for index, group in enumerate(groups)]
    rows += [("d", BOTH, d), ("p", BOTH, p), ("q", BOTH, 2 * p), ("t", BOTH, 9.0)]
    rows += [("significant", BOTH, float(significant))]
    rows += [("discovered", BOTH, 1.0)] * discovered
    fixed = {"space": space, "feature": number, "comparison": comparison}
    return [{**fixed, "stat": stat, "group": group, "number": of} for stat, group, of in rows]


FEATURES = [
    *feature("s1", 7, p=0.01, d=-0.4, significant=True, discovered=True),
    *feature("s1", 3, p=0.001, d=1.5, significant=True, discovered=True),
    *feature("s1", 9, p=0.002, d=0.1, significant=False, discovered=True),
    *feature("s2", 5, p=0.5, d=0.9, significant=False, discovered=False),
    {
        "space": "s1",
        "feature": 3,
        "stat": "mean",
        "group": "truncated",
        "number": 9.0,
        "comparison": "another",
    },
]
SPACES = (space("s2", 12), space("s1", 4), space("s3", 20))


def made(
    features: Sequence[Mapping[str, Any]] = FEATURES,
    spaces: Sequence[Mapping[str, Any]] = SPACES,
    comparisons: Sequence[Comparison] = (compared(),),
) -> dict[str, pa.Table]:
    """The tables of a run."""
    tables = {
        name: pa.Table.from_pylist(list(rows), schema=arrow_schema(name))
        for name, rows in {"features": features, "spaces": spaces}.items()
    }
    return {**tables, "comparisons": make_comparisons(*comparisons)}


def written(
    features: Sequence[Mapping[str, Any]] = FEATURES,
    spaces: Sequence[Mapping[str, Any]] = SPACES,
    comparisons: Sequence[Comparison] = (compared(),),
    **params: Any,
) -> dict[str, Any]:
    tables = made(features, spaces, comparisons)
    validated = SINK.params.model_validate(params)
    work = SinkWork(
        validated,
        Path("nowhere"),
        "run-1",
        TableInputs(tables),
        committed_at="2026-11-21T19:45:54.123456+00:00",
    )
    files = dict(SINK.run(work))
    assert set(files) == {"features.json"}
    result: dict[str, Any] = json.loads(files["features.json"])
    return result


def test_it_keeps_the_contract() -> None:
    check_part(SINK, params={"path": "out"}, work=make_work(tables=made()))


def test_it_has_every_key_of_the_published_shape() -> None:
    result = written()
    assert set(result) >= PUBLISHED
    assert set(result["layer_results"]["4"]) >= OF_A_LAYER
    assert set(result["layer_results"]["4"]["significant_features"][0]) == OF_A_FEATURE


def test_totals_and_layers() -> None:
    result = written()
    assert result["timestamp"] == "20261121_194554"
    assert result["feature_type"] == "SAE_features_64_per_layer"
    assert result["sae_source"] == "Lab-LXR-4x"
    assert result["total_experiments_processed"] == 13
    assert result["layers_analyzed"] == [4, 12, 20]
    assert (result["total_significant_features"], result["total_significant_by_p"]) == (2, 3)
    assert result["significant_features_by_layer"] == {"4": 2, "12": 0, "20": 0}
    layer = result["layer_results"]["4"]
    assert {name: layer[name] for name in sorted(set(layer) - {"significant_features"})} == {
        "address": "m/resid_post.4/lab",
        "layer": 4,
        "n_bankrupt": 12,
        "n_features": 64,
        "n_safe": 1,
        "n_significant": 2,
        "n_significant_by_p": 3,
        "space": "s1",
    }


def test_features_come_by_p_with_what_each_group_did() -> None:
    first, second = written()["layer_results"]["4"]["significant_features"]
    assert first == {
        "feature_idx": 3,
        "p_value": 0.001,
        "cohen_d": 1.5,
        "p_corrected": 0.002,
        "bankrupt_mean": 2.0,
        "safe_mean": 1.0,
        "bankrupt_std": 0.5,
        "safe_std": 1.5,
    }
    assert second["feature_idx"] == 7


def test_a_number_that_no_stage_wrote_is_null_and_not_0() -> None:
    rows = [row for row in FEATURES if row["stat"] not in ("std", "discovered")]
    result = written(rows)
    assert result["layer_results"]["4"]["significant_features"][0]["safe_std"] is None
    assert result["layer_results"]["4"]["n_significant_by_p"] is None
    assert result["total_significant_by_p"] is None


def test_dimensions_of_the_raw_stream_are_not_called_features_of_an_sae() -> None:
    spaces = (space("s1", 4, sae=None), space("s2", 12, sae=None), space("other", 4))
    result = written(spaces=spaces)
    assert result["feature_type"] == "raw_residual_64_per_layer"
    assert result["sae_source"] is None
    assert result["layers_analyzed"] == [4, 12]


def test_other_groups_may_be_named() -> None:
    with pytest.raises(DataError) as caught:
        written(groups=("bankrupcy", "voluntary_stop"))
    assert str(caught.value) == (
        "exp1_json: no row compares bankrupcy vs voluntary_stop. Did you mean 'bankruptcy vs "
        "voluntary_stop'? The run compares: bankruptcy vs voluntary_stop."
    )
    with pytest.raises(ValidationError, match="both groups are 'a'; name two different ones"):
        SINK.params.model_validate({"groups": ("a", "a")})


def test_a_run_without_a_comparison() -> None:
    with pytest.raises(
        DataError,
        match=r"no row compares bankruptcy vs voluntary_stop\. The run compares no groups\.",
    ):
        written([], comparisons=())


def test_several_saes_at_a_layer_do_not_fit_the_shape() -> None:
    with pytest.raises(
        DataError,
        match=r"several spaces are at resid_post\.4; the file has room for one per layer",
    ):
        written(spaces=(*SPACES, space("s4", 4)))
    with pytest.raises(DataError, match="several sites of one layer were compared"):
        written(spaces=(*SPACES, space("s4", 4, site="mlp_out")))


def test_two_stages_with_one_comparison_do_not_fit_either() -> None:
    other = replace(compared(test="auroc"), id="c-other")
    with pytest.raises(
        DataError,
        match=r"more than one stage compares bankruptcy vs voluntary_stop in one space \(half: "
        r"all; auroc, welch\)",
    ):
        written(comparisons=(compared(), other))


def test_stages_that_compare_the_same_groups_in_other_spaces_are_one_file() -> None:
    rows = [
        {**row, "comparison": f"c-{row['space']}"}
        for row in FEATURES
        if row["comparison"] == "c-all"
    ]
    parts = [
        replace(compared(), id=f"c-{space}", tested=dict.fromkeys(names, 64))
        for space, names in (("s1", ["s1", "s3"]), ("s2", ["s2"]))
    ]
    assert written(rows, comparisons=parts) == written()


def test_of_a_run_that_chose_and_confirmed_the_comparison_of_one_half_is_published() -> None:
    def of_half(half: str, number: int, p: float) -> list[dict[str, Any]]:
        rows = feature(
            "s1", number, p=p, d=1.0, significant=True, discovered=True, comparison=f"c-{half}"
        )
        return [{**row, "number": row["number"] + p} for row in rows]

    joined = [
        *FEATURES,
        *of_half("select", 3, 0.25),
        *of_half("select", 8, 0.25),
        *of_half("confirm", 3, 0.5),
    ]
    every = (compared(), compared("select", (8, 8)), compared("confirm", (3, 3)))
    assert written(joined, comparisons=every) == written()
    confirmed = written(joined, comparisons=every, half="confirm")
    assert confirmed["total_experiments_processed"] == 6
    (published,) = confirmed["layer_results"]["4"]["significant_features"]
    assert tuple(
        published[name] for name in ("feature_idx", "bankrupt_mean", "safe_std", "cohen_d")
    ) == (
        3,
        2.5,
        2.0,
        1.5,
    )
    chosen = written(joined, comparisons=every, half="select")
    assert chosen["total_significant_features"] == 2
    with pytest.raises(DataError) as caught:
        written(half="confirm")
    assert str(caught.value) == (
        "exp1_json: bankruptcy vs voluntary_stop was compared, but not on the half 'confirm'. Set "
        "`half:` as the stage that is to be published does."
    )
