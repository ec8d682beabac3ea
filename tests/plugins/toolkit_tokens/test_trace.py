"""Paths: the planted one is found with its strength, a false one is not."""

from __future__ import annotations

import copy
from typing import Any

import pyarrow as pa
import pytest

from tests.plugins.toolkit_tokens.conftest import SCENARIOS, run, samples_of
from toolkit.errors import BadInput
from toolkit.testing.planted import prompts

SIDES = {"plus": [" stop"], "minus": [" bet"]}


def traced(params: Any, tables: Any, *, model: Any, saes: Any) -> dict[str, pa.Table]:
    """What `trace.path` writes, with the rows of `trace.summary`."""
    results = run("stage", "trace.path", params, tables, model=model, saes=saes)
    summary = run("stage", "trace.summary", {}, {**tables, "paths": results["paths"]})
    return {**results, "paths": pa.concat_tables([results["paths"], summary["paths"]])}


@pytest.fixture(scope="module")
def tables(planted: Any, small: Any) -> Any:
    """Prompts with the cause, its word marked; each a unit."""
    texts = {}
    for number, prompt in enumerate(prompts(planted, 24)):
        if prompt.cause:
            position = prompt.text.index("losing")
            texts[f"s{number:02d}"] = (prompt.text, [("cause", position, position + 6)])
    return samples_of(small, texts)


def address(planted: Any, layer: int, direction: str) -> str:
    return f"{layer}/{planted.truth.sae('wide', layer).named(direction).index}"


@pytest.fixture(scope="module")
def true_path(planted: Any, small: Any, small_saes: Any, tables: Any) -> Any:
    through = [address(planted, layer, name) for layer, name in ((2, "w"), (1, "v"), (0, "u"))]
    params = {**SIDES, "through": through, "to": {"span": "cause"}, "name": "true"}
    return traced(params, tables, model=small, saes=small_saes)


def hops(result: Any, sample: str | None = None) -> list[dict[str, Any]]:
    rows = [
        row
        for row in result["paths"].to_pylist()
        if (row["sample"] == sample if sample else row["sample"] != "*")
    ]
    return sorted(rows, key=lambda row: (row["sample"], row["hop"]))


def test_the_planted_path_is_found_with_its_strength(planted: Any, true_path: Any) -> None:
    """w adds the effect to the outcome; v, u and the word each carry the amplitude of 4."""
    summary = hops(true_path, "*")
    assert [row["verdict"] for row in summary] == ["confirmed"] * 4
    assert [row["units"] for row in summary] == [12] * 4
    first = summary[0]
    assert first["effect"] == pytest.approx(planted.truth.effect, rel=0.02)
    assert first["strength"] == pytest.approx(planted.truth.effect, rel=0.02)
    for row in summary[1:]:
        assert row["strength"] == pytest.approx(4.0, rel=0.1)
        assert row["effect"] == pytest.approx(4.0, rel=0.1)
        assert row["low"] <= row["effect"] <= row["high"]
        assert row["q"] <= 0.05


def test_parts_add_up_to_the_edge(true_path: Any) -> None:
    """Positions, other features, the SAE's error and its bias: nothing is dropped."""
    for row in hops(true_path):
        assert row["parts"] == pytest.approx(row["whole"], abs=1e-5)
    parts = true_path["path_parts"].to_pylist()
    for row in hops(true_path):
        rows_of_path = [
            part for part in parts if (part["sample"], part["hop"]) == (row["sample"], row["hop"])
        ]
        kind = "token" if row["hop"] == 3 else "feature"
        assert sum(part["value"] for part in rows_of_path if part["part"] == kind) == pytest.approx(
            row["strength"], abs=1e-9
        )


@pytest.mark.slow
@pytest.mark.parametrize("false", [((1, "shadow"), (0, "u")), ((0, "echo"),), ((2, "v"), (1, "u"))])
def test_a_planted_false_path_is_not_found(
    planted: Any, small: Any, small_saes: Any, tables: Any, false: Any
) -> None:
    """These features fire whenever the cause is there, and nothing reads them."""
    through = [address(planted, layer, name) for layer, name in false]
    params = {**SIDES, "through": through, "to": {"span": "cause"}}
    results = traced(params, tables, model=small, saes=small_saes)
    first = hops(results, "*")[0]
    assert abs(first["strength"]) < 1e-3
    assert abs(first["effect"]) < 1e-3
    assert first["verdict"] == "no strength"


def test_a_feature_that_does_not_fire_ends_the_path(
    planted: Any, small: Any, small_saes: Any
) -> None:
    tables = samples_of(small, {"a": "the a calm have choose"})
    params = {
        **SIDES,
        "through": [address(planted, 2, "w"), address(planted, 1, "v")],
        "to": {"positions": [2]},
    }
    results = traced(params, tables, model=small, saes=small_saes)
    (row,) = hops(results)
    assert row["verdict"] == "inactive at this position"
    assert (row["strength"], row["effect"]) == (None, None)
    (summary,) = hops(results, "*")
    assert (summary["verdict"], summary["p"]) == ("inactive at this position", None)


def test_features_are_named_from_the_outcome_down(
    planted: Any, small: Any, small_saes: Any, tables: Any
) -> None:
    through = [address(planted, 0, "u"), address(planted, 1, "v")]
    params = {**SIDES, "through": through, "to": {"span": "cause"}}
    with pytest.raises(BadInput, match="is not below"):
        traced(params, tables, model=small, saes=small_saes)
    params["through"] = ["9/1"]
    with pytest.raises(BadInput, match="no space at layer 9"):
        traced(params, tables, model=small, saes=small_saes)


def test_features_that_are_not_of_the_stream_are_refused(
    small: Any, small_saes: Any, tables: Any
) -> None:
    class Transcoder(type(small_saes[1])):  # type: ignore[misc]
        output_hookpoint = "mlp_out.1"

    sae = copy.copy(small_saes[1])
    sae.__class__ = Transcoder
    assert (small_saes[1].feature_type, sae.feature_type) == ("sae", "transcoder")
    params = {**SIDES, "through": ["1/3"], "to": {"span": "cause"}}
    with pytest.raises(BadInput, match="1/3 is a feature of a transcoder"):
        traced(params, tables, model=small, saes=[sae])


@pytest.mark.slow
def test_on_the_lab_every_hop_adds_up(lab: Any, lab_saes: Any) -> None:
    """Real norms, heads and errors: parts still add up, and every hop has a verdict."""
    samples = run("source", "scenarios", {**SCENARIOS, "inconsistent": "replace"}, model=lab)
    kept = run(
        "stage",
        "track.tokens",
        {"attention": None, "at": "last"},
        samples,
        model=lab,
        saes=lab_saes,
    )
    spaces = {row["space"]: row["hookpoint"] for row in kept["spaces"].to_pylist()}
    sums: dict[str, dict[int, float]] = {}
    for row in kept["activations"].to_pylist():
        of_place = sums.setdefault(spaces[row["space"]], {})
        for feature, value in zip(row["features"], row["values"], strict=True):
            of_place[feature] = of_place.get(feature, 0.0) + value
    top = {place: max(values, key=values.__getitem__) for place, values in sums.items()}
    through = [f"{layer}/{top[f'resid_post.{layer}']}" for layer in (3, 1)]
    params = {"plus": ["1"], "minus": ["2"], "through": through, "to": {"span": "balance"}}
    results = traced(params, samples, model=lab, saes=lab_saes)
    rows = hops(results)
    assert len(rows) >= 20
    for row in rows:
        if row["whole"] is not None:
            assert row["parts"] == pytest.approx(row["whole"], abs=1e-5, rel=1e-5)
        assert row["verdict"]
    assert {row["hop"] for row in hops(results, "*")} == {0, 1, 2}
