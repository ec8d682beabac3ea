"""Contrasts between groups: differences that were planted, and p-values that are withheld."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.plugins.toolkit_tokens.conftest import run, table
from toolkit.errors import BadInput, DataError
from toolkit.statistics.corrections import q_values
from toolkit_tokens.statistics import permutation_p, sign_flip_p

SPAN = [{"name": "balance", "start": 1, "end": 2}]


def world(count: int, share: dict[str, float], firing: dict[str, float]) -> dict[str, Any]:
    """So many samples a group; the last of three tokens attends to the middle one so much."""
    samples, meta, attention, activations = [], [], [], []
    for group in ("a", "b"):
        for number in range(count):
            name = f"{group}{number}"
            facts = {"sample": name, "unit": name, "cluster": name, "text": "x y z"}
            facts |= {"token_ids": [1, 2, 3], "pieces": ["x", "y", "z"], "prompt_hash": name}
            samples.append({**facts, "spans": SPAN, "bos": False})
            meta.append({"sample": name, "key": "group", "number": None, "string": group})
            jitter = 0.01 * number
            weights = [0.5 - share[group] - jitter, share[group] + jitter, 0.5]
            for head in (0, 1):
                row = {"model": "m", "sample": name, "layer": 4, "head": head, "query": 2}
                attention.append({**row, "keys": None, "weights": weights, "rest": 0.0})
            values = [firing[group] + jitter, 1.0]
            row = {"space": "s", "sample": name, "position": 1, "features": [3, 5]}
            activations.append({**row, "values": values})
    space = {"space": "s", "model": "m", "revision": "1", "hookpoint": "resid_post.4", "sae": "x"}
    space |= {"sae_hash": "h", "recipe": "r", "width": 8, "address": "m/resid_post.4/x"}
    rows = {
        "samples": samples,
        "sample_meta": meta,
        "attention": attention,
        "activations": activations,
        "spaces": [space],
    }
    return {name: table(name, of_table) for name, of_table in rows.items()}


PARAMS = {"by": "group", "between": ["a", "b"]}


def contrast(tables: Any, **params: Any) -> dict[tuple[str, str], dict[str, Any]]:
    result = run("stage", "track.contrasts", {**PARAMS, **params}, tables)["span_contrasts"]
    return {(row["statistic"], row["group"]): row for row in result.to_pylist()}


def test_a_planted_difference_is_found_with_its_interval() -> None:
    result = contrast(world(8, {"a": 0.1, "b": 0.3}, {"a": 2.0, "b": 1.0}))
    share = result["attention_share", "a - b"]
    assert share["value"] == pytest.approx(-0.2, abs=1e-3)
    assert share["low"] < -0.2 < share["high"] < 0
    assert share["p"] < 0.01
    assert share["q"] <= 2 * share["p"]
    assert share["units"] == 16
    assert result["attention_share", "a"]["value"] == pytest.approx(0.135, abs=1e-3)
    firing = result["activation", "a - b"]
    assert firing["value"] == pytest.approx(1.0)
    assert firing["text"] == "largest difference: 4/3 +1"


def test_p_is_withheld_where_a_group_is_small() -> None:
    result = contrast(world(4, {"a": 0.1, "b": 0.3}, {"a": 2.0, "b": 1.0}))
    row = result["attention_share", "a - b"]
    assert (row["p"], row["q"]) == (None, None)
    assert row["low"] < row["value"] < row["high"]
    assert row["text"] == "p withheld: 4 and 4 units, fewer than 5 in a group"
    assert (
        contrast(world(4, {"a": 0.1, "b": 0.3}, {"a": 2.0, "b": 1.0}), min_units=4)[
            "attention_share", "a - b"
        ]["p"]
        is not None
    )


def test_samples_of_one_unit_count_once() -> None:
    tables = world(8, {"a": 0.1, "b": 0.3}, {"a": 2.0, "b": 1.0})
    rows = [{**row, "unit": row["sample"][0]} for row in tables["samples"].to_pylist()]
    result = contrast({**tables, "samples": table("samples", rows)})
    row = result["attention_share", "a - b"]
    assert (row["units"], row["p"], row["low"]) == (2, None, None)


def test_what_is_not_there_is_named() -> None:
    tables = world(3, {"a": 0.1, "b": 0.3}, {"a": 2.0, "b": 1.0})
    with pytest.raises(DataError, match=r"no sample has group = 'c'.*Values of group: a, b"):
        contrast(tables, between=["a", "c"])
    with pytest.raises(BadInput, match=r"no sample has a span 'balanse'.*Did you mean.*balance"):
        contrast(tables, spans=["balanse"])
    alone = {name: tables[name] for name in ("samples", "sample_meta")}
    with pytest.raises(DataError, match="kept neither attention nor activations"):
        contrast(alone)


def test_on_the_scenarios(scenarios: Any, tracked: Any) -> None:
    params = {"by": "group", "between": ["risky", "safe"], "where": {"consistent": "yes"}}
    result = run("stage", "track.contrasts", params, {**scenarios, **tracked})["span_contrasts"]
    rows = result.to_pylist()
    spans = {row["span"] for row in rows}
    assert spans >= {"balance", "goal", "win_rate", "options", "decision"}
    differences = [row for row in rows if row["group"] == "risky - safe"]
    assert {row["layer"] for row in differences} == {0, 1, 2, 3}
    assert all(row["units"] == 8 and row["p"] is None for row in differences)


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=20))
def test_q_is_never_below_p_and_keeps_its_order(values: list[float | None]) -> None:
    result = q_values(values)
    tested = sorted(
        (p, q) for p, q in zip(values, result, strict=True) if p is not None and q is not None
    )
    assert [q is None for q in result] == [p is None for p in values]
    assert all(p <= q <= 1 for p, q in tested)
    assert [q for _, q in tested] == sorted(q for _, q in tested)


def test_p_values_of_nulls_are_spread_evenly() -> None:
    rng = np.random.default_rng(0)
    permuted = [permutation_p(rng.normal(size=8), rng.normal(size=8), rng) for _ in range(200)]
    flipped = [sign_flip_p(rng.normal(size=10), rng) for _ in range(200)]
    for values in (permuted, flipped):
        assert 0.4 < np.mean(values) < 0.6
        assert np.mean(np.array(values) < 0.05) < 0.12
