"""A report at the size of Exp1 (31 layers of 32,768 features, three comparisons, long prompts) is a
file of at most 5 MB.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from toolkit._plugins.registry import Parts, PluginInfo
from toolkit._report.page import write_report
from toolkit.tables import arrow_schema
from toolkit.testing.fakes import TableInputs, make_comparison, make_comparisons, make_samples
from toolkit_stats import toolkit_parts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
LAYERS, WIDTH, FIRED, ACTIVE, SAMPLES = 31, 32_768, 8_000, 50, 64
CONTRASTS = ("groups", "select", "confirm")
GROUPS = ("bankruptcy", "voluntary_stop")
MOST_BYTES = 5_000_000


def spaces() -> pa.Table:
    fixed = {"model": "llama", "revision": "1", "sae_hash": "h", "recipe": "jumprelu"}
    rows = [
        {
            **fixed,
            "space": f"s{layer}",
            "hookpoint": f"resid_post.{layer}",
            "sae": f"Llama3_1-8B-Base-L{layer}R-8x",
            "width": WIDTH,
            "address": f"llama/resid_post.{layer}/Llama3_1-8B-Base-L{layer}R-8x",
        }
        for layer in range(1, LAYERS + 1)
    ]
    return pa.Table.from_pylist(rows, schema=arrow_schema("spaces"))


def features(contrast: str, draw: np.random.Generator) -> pa.Table:
    """The features that fired at each layer, a third of them significant."""
    count = LAYERS * FIRED
    p = np.where(draw.random(count) < 0.3, 10.0 ** -draw.uniform(4, 60, count), draw.random(count))
    numbers = {"d": draw.normal(0, 1, count), "p": p, "q": np.minimum(1, 2 * p)}
    numbers["significant"] = (numbers["q"] <= 0.05).astype(float)
    space = pa.array(np.repeat([f"s{layer}" for layer in range(1, LAYERS + 1)], FIRED))
    feature = pa.array(np.tile(np.arange(FIRED, dtype="uint32") * 4, LAYERS))
    parts = [
        pa.table(
            {
                "space": space,
                "feature": feature,
                "stat": pa.repeat(stat, count),
                "group": pa.repeat(" vs ".join(GROUPS), count),
                "number": pa.array(values),
                "text": pa.nulls(count, pa.string()),
                "comparison": pa.repeat(contrast, count),
            },
            schema=arrow_schema("features"),
        )
        for stat, values in numbers.items()
    ]
    return pa.concat_tables(parts)


def activations(names: list[str], draw: np.random.Generator) -> pa.Table:
    """The last token of each sample at every layer."""
    rows = [
        {
            "space": f"s{layer}",
            "sample": name,
            "position": 255,
            "features": np.sort(draw.choice(FIRED, ACTIVE, replace=False)) * 4,
            "values": draw.exponential(1, ACTIVE),
        }
        for layer in range(1, LAYERS + 1)
        for name in names
    ]
    return pa.Table.from_pylist(rows, schema=arrow_schema("activations"))


def test_a_report_at_the_size_of_exp1_is_at_most_5_mb(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    text = " ".join(f"word{number}" for number in range(256))
    made = make_samples([text] * SAMPLES, outcome=list(GROUPS) * (SAMPLES // 2))
    compared = (make_comparison(*GROUPS, id=name, by="outcome") for name in CONTRASTS)
    tables = {
        **made,
        "spaces": spaces(),
        "comparisons": make_comparisons(*compared),
        "features": pa.concat_tables([features(name, draw) for name in CONTRASTS]),
        "activations": activations(made["samples"]["sample"].to_pylist(), draw),
    }
    parts = Parts([PluginInfo("stats", "", "", parts=tuple(toolkit_parts()))])
    manifest = {"run": "r", "name": "exp1", "spec": {}, "stages": []}
    page = write_report(tmp_path, manifest, [], TableInputs(tables), parts)
    text = page.read_text(encoding="utf-8")
    assert "This section failed" not in text
    for title in ("Layers", "Layers by features", "Effect and evidence", "Values by group"):
        assert f">{title}</h2>" in text
    print(f"{page.stat().st_size:,} bytes")
    assert page.stat().st_size <= MOST_BYTES
