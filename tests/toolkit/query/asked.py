"""A small store that is asked: its rows, and how it is asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner, Result

from toolkit._cli import query
from toolkit.errors import BadInput
from toolkit.tables import arrow_schema
from toolkit.testing.fakes import make_step
from toolkit_store import Store

STAGES = [
    {"id": "prompts", "part": "count", "writes": ["samples", "sample_meta"]},
    {"id": "extract", "part": "extract.activations", "writes": ["activations", "spaces"]},
    {"id": "groups", "part": "compare.welch", "writes": ["features"]},
    {"id": "cause", "part": "patch.delta", "writes": ["effects", "features"]},
]


WORDS = [f"word{number}" for number in range(40)]


CONTRAST = "lost vs won"


def space(id: str, layer: int, sae: str) -> dict[str, Any]:
    base = {
        "space": id,
        "model": "m/gpt",
        "revision": "r",
        "hookpoint": f"resid_post.{layer}",
        "sae": sae,
        "sae_hash": "h",
    }
    return base | {"recipe": "topk", "width": 100, "address": f"m/gpt/resid_post.{layer}/{sae}"}


def text(name: str, text: str, pieces: list[str]) -> dict[str, Any]:
    row = {
        "sample": name,
        "unit": f"unit of {name}",
        "cluster": name,
        "text": text,
        "token_ids": list(range(len(pieces))),
    }
    return row | {"pieces": pieces, "spans": [], "prompt_hash": name}


def fired(space: str, sample: str, position: int, **values: float) -> dict[str, Any]:
    features = [int(name[1:]) for name in values]
    return {
        "space": space,
        "sample": sample,
        "position": position,
        "features": features,
        "values": list(values.values()),
    }


def stat(
    feature: int,
    stat: str,
    group: str,
    number: float | None,
    text: str | None = None,
    space: str = "s1",
) -> dict[str, Any]:
    return {
        "space": space,
        "feature": feature,
        "stat": stat,
        "group": group,
        "number": number,
        "text": text,
    }


def compared(
    feature: int, d: float, q: float | None, significant: bool, space: str = "s1"
) -> list[dict[str, Any]]:
    results = {
        "d": d,
        "t": d * 2,
        "df": 9.5,
        "p": q and q / 10,
        "q": q,
        "significant": float(significant),
    }
    rows = [stat(feature, name, CONTRAST, number, space=space) for name, number in results.items()]
    rows += [
        stat(feature, "mean", group, d + index, "4 samples in 4 clusters", space)
        for index, group in enumerate(("lost", "won"))
    ]
    return [
        *rows,
        stat(feature, "density", "lost", 0.25, space=space),
        stat(feature, "fired", "", 12345.0, space=space),
    ]


def effect(
    feature: int, sample: str, arm: str, effect: float | None, q: float | None, space: str = "s1"
) -> dict[str, Any]:
    row = {
        "screen": "c1",
        "space": space,
        "feature": feature,
        "sample": sample,
        "arm": arm,
        "outcome": "stop",
        "probability": 0.123456,
    }
    return row | {"effect": effect, "low": None, "high": None, "p": q, "q": q, "kl": 0.5}


SAMPLES = [
    text("a1", "one two three", ["one", " two", " three"]),
    text("a2", "line\nnext\x1b[31m", ["line", "\n", "next", "\x1b[31m"]),
    text("a3", " ".join(WORDS), WORDS),
]


FIRED = [
    fired("s1", "a1", 0, f5=1.0, f7=0.5),
    fired("s1", "a1", 2, f5=3.0),
    fired("s1", "a2", 1, f5=2.0),
    fired("s1", "a3", 20, f5=0.25),
    fired("s2", "a1", 2, f5=9.0, f6=0.125),
    fired("s3", "a1", 2),
]


SPACES = [space("s1", 2, "sparse"), space("s2", 9, "thin"), space("s3", 9, "thick")]


FEATURES = [
    *(row for feature in range(30, 60) for row in compared(feature, -0.5, None, False)),
    *compared(5, 0.75, 0.01, True),
    *compared(7, -1.25, 0.01, True),
    *compared(8, 0.1, 0.9, False),
    *compared(6, 0.2, 0.5, False, "s2"),
]


OTHER = [row | {"group": "early vs late"} for row in compared(5, 0.3, 0.4, False)[:6]]


VERDICTS = [
    stat(5, "verdict", "stop", 1.0, "drives stop"),
    stat(99, "verdict", "stop", 0.0, "no effect"),
]


EFFECTS = [
    effect(5, "*", "zero", 0.25, 0.001),
    effect(5, "*", "sham", 0.0, 0.9),
    effect(7, "*", "zero", -0.5, 0.9),
    effect(5, "a1", "zero", 0.3, None),
    effect(5, "a2", "zero", None, None),
    effect(0, "*", "clean", None, None, space=""),
]


TOY = [
    stat(feature, "toy_mean", group, float(feature))
    for feature in (1, 2)
    for group in ("even", "odd")
]


def commit(
    store: Store, key: str, stage: str, run: str, tables: Mapping[str, list[dict[str, Any]]]
) -> None:
    row = make_step(key, stage=stage, run=run)
    store.commit(
        row,
        {
            name: pa.Table.from_pylist(rows, schema=arrow_schema(name))
            for name, rows in tables.items()
        },
    )


def begin(
    store: Store,
    run: str,
    at: str,
    state: str,
    steps: list[str],
    stages: list[dict[str, Any]] | None,
) -> None:
    store.record_run(run=run, name=run, state=state, at=at, done=len(steps), total=7, steps=steps)
    folder = store.folder / "runs" / run
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"run": run, "stages": stages or []}))


def ask(folder: Path, *args: str, run: str = "full-1") -> Result:
    result = CliRunner().invoke(
        query.command, [*args, "--store", str(folder), "--run", run], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    return result


def rows(folder: Path, *args: str, run: str = "full-1") -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = json.loads(ask(folder, *args, "--json", run=run).stdout)
    return result


def refused(folder: Path, *args: str, message: str, run: str = "full-1") -> None:
    with pytest.raises(BadInput, match=message):
        ask(folder, *args, run=run)
