"""The published JSON: its shape, what it leaves out, and its size at the scale of the study."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.plugins.toolkit_tokens.conftest import PARTS
from toolkit.tables import arrow_schema
from toolkit.testing.fakes import TableInputs
from toolkit.work import SinkWork

SINK = PARTS.get("sink", "exp6_json")
LIMIT = 200_000_000
"""Bytes that the study's three layers of ten prompts may take."""


def written(tables: dict[str, pa.Table]) -> bytes:
    work = SinkWork(SINK.params(), Path("nowhere"), "run", TableInputs(tables))
    ((name, pieces),) = SINK.run(work)
    assert name == "tokens.json"
    return b"".join(pieces)


@pytest.mark.slow
def test_each_token_has_its_features_and_each_head_its_weights(
    scenarios: Any, tracked: Any
) -> None:
    result = json.loads(written({**scenarios, **tracked}))
    assert result["n_scenarios"] == 13
    first = result["scenarios"][0]
    tokens = len(first["tokens"])
    assert set(first["layers"]) == {"L0", "L1", "L2", "L3"}
    layer = first["layers"]["L2"]
    assert len(layer["features"]) == tokens
    assert layer["features"][0] is None, "BOS was not looked at"
    assert [len(layer["attention"]), len(layer["attention"][0])] == [4, tokens]
    assert [len(row) for row in layer["attention"][0]] == list(range(1, tokens + 1))
    space = result["spaces"]["L2"]["space"]
    rows = [
        row
        for row in tracked["activations"].to_pylist()
        if (row["sample"], row["space"]) == (first["scenario"], space)
    ]
    for row in rows:
        features = layer["features"][row["position"]]
        assert sorted(map(int, features)) == sorted(row["features"])
        expected = dict(zip(map(str, row["features"]), row["values"], strict=True))
        assert all(np.isclose(features[key], expected[key], rtol=1e-3) for key in features)


@pytest.mark.slow
def test_without_attention_or_without_features(scenarios: Any, tracked: Any) -> None:
    names = {"activations", "spaces"}
    features = json.loads(written({**scenarios, **{name: tracked[name] for name in names}}))
    assert set(features["scenarios"][0]["layers"]["L0"]) == {"features"}
    attention = json.loads(written({**scenarios, "attention": tracked["attention"]}))
    assert set(attention["scenarios"][0]["layers"]["L0"]) == {"attention"}


def test_at_the_size_of_the_study_it_stays_under_its_limit() -> None:
    """One prompt at one layer of its size: 121 tokens, 32 heads, 474 features a token at most."""
    rng = np.random.default_rng(0)
    tokens, heads, active = 121, 32, 474
    sample = {"sample": "a", "unit": "a", "cluster": "a", "text": "x", "prompt_hash": "a"}
    sample |= {"token_ids": [1] * tokens, "pieces": ["x"] * tokens, "spans": [], "bos": True}
    space = {"space": "s", "model": "m", "revision": "1", "hookpoint": "resid_post.8", "sae": "x"}
    space |= {"sae_hash": "h", "recipe": "r", "width": 32768, "address": "m/resid_post.8/x"}
    activations = [
        {
            "space": "s",
            "sample": "a",
            "position": position,
            "features": sorted(rng.choice(32768, active, replace=False).tolist()),
            "values": rng.gamma(1.0, 2.0, active).tolist(),
        }
        for position in range(1, tokens)
    ]
    attention = [
        {
            "model": "m",
            "sample": "a",
            "layer": 8,
            "head": head,
            "query": query,
            "keys": None,
            "weights": rng.dirichlet(np.full(query + 1, 0.3)).astype(np.float16),
            "rest": 0.0,
        }
        for head in range(heads)
        for query in range(tokens)
    ]
    rows = {
        "samples": [sample],
        "spaces": [space],
        "activations": activations,
        "attention": attention,
    }
    tables = {
        name: pa.Table.from_pylist(of_table, schema=arrow_schema(name))
        for name, of_table in rows.items()
    }
    assert 10 * 3 * len(written(tables)) < LIMIT
