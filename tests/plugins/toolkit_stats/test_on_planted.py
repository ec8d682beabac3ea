"""Baselines, ranking and pathway against planted truth: the cause is found where it was put, and
nothing is where nothing was.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from toolkit._plugins.loading import load_parts
from toolkit.saes import space_id
from toolkit.tables import arrow_schema
from toolkit.testing.fakes import SilentReporter, make_work
from toolkit.testing.planted import Planted, prompts

pytestmark = pytest.mark.slow
PARTS = load_parts([])
CAUSE = {"by": "cause", "between": ["yes", "no"]}


class World:
    """The planted model, its SAEs, and what they did on labelled prompts."""

    def __init__(self, planted: Planted) -> None:
        self.planted = planted
        model, saes = PARTS.get("model", "huggingface"), PARTS.get("sae", "llama_scope")
        self.model = model.load(model.params(path=str(planted.model)), SilentReporter())
        self.saes = list(saes.load(saes.params(path=str(planted.llama_scope)), SilentReporter()))
        self.tables = self._samples(120)
        self.tables |= self.run("extract.activations", {})

    def run(self, name: str, params: dict[str, Any]) -> dict[str, pa.Table]:
        part = PARTS.get("stage", name)
        work = make_work(
            part.params.model_validate(params), self.tables, model=self.model, saes=self.saes
        )
        result: dict[str, list[pa.Table]] = {}
        for written, rows in part.run(work):
            result.setdefault(written, []).append(rows)
        return {written: pa.concat_tables(parts) for written, parts in result.items()}

    def direction(self, space: str, feature: int) -> str:
        sae = next(sae for sae in self.saes if space_id(self.model.identity, sae) == space)
        return (
            next(truth for truth in self.planted.truth.saes if truth.name == sae.name)
            .features[feature]
            .direction
        )

    def _samples(self, count: int) -> dict[str, pa.Table]:
        samples, meta = [], []
        for index, prompt in enumerate(prompts(self.planted, count)):
            tokens, name = self.model.tokenise(prompt.text), f"s{index:04d}"
            facts = {
                "unit": name,
                "cluster": name,
                "text": tokens.text,
                "prompt_hash": name,
                "spans": [],
            }
            samples.append(
                {
                    "sample": name,
                    "token_ids": list(tokens.ids),
                    "pieces": list(tokens.pieces),
                    **facts,
                }
            )
            for key in ("cause", "shield"):
                yes = getattr(prompt, key)
                meta.append(
                    {"sample": name, "key": key, "number": None, "string": "yes" if yes else "no"}
                )
                meta.append(
                    {"sample": name, "key": f"{key} level", "number": float(yes), "string": None}
                )
        rows = {"samples": samples, "sample_meta": meta}
        return {
            name: pa.Table.from_pylist(table_rows, schema=arrow_schema(name))
            for name, table_rows in rows.items()
        }


@pytest.fixture(scope="module")
def world(planted: Planted) -> World:
    return World(planted)


def test_the_stream_and_the_best_feature_read_the_cause_and_metadata_do_not(world: World) -> None:
    leak = world.run("compare.leak", {**CAUSE, "leave_out": ["cause level"]})[
        "baselines"
    ].to_pylist()
    areas = {row["name"]: row for row in leak if row["metric"] == "auroc"}
    assert set(areas) == {"prompt length (tokens)", "shield", "shield level", "all 3 keys"}
    assert all(row["low"] < 0.6 for row in areas.values())
    probe = world.run("compare.probe", CAUSE)["baselines"].to_pylist()
    results = {(row["kind"], row["name"]): row for row in probe}
    for layer in range(4):
        assert results["linear probe", f"resid_post.{layer}"]["value"] > 0.95
    best = results["best feature", "of all spaces"]
    assert best["value"] == 1.0
    addresses = (
        best["text"].removeprefix("chosen in the other folds: ").partition(";")[0].split(", ")
    )
    for address in addresses:
        name, _, index = address.rpartition(":")
        (space,) = [
            row["space"] for row in world.tables["spaces"].to_pylist() if row["address"] == name
        ]
        assert world.direction(space, int(index)) in ("u", "v", "w", "echo", "shadow")


def test_a_label_in_the_metadata_is_named_a_leak(world: World) -> None:
    leak = world.run("compare.leak", CAUSE)["baselines"].to_pylist()
    names = {row["name"] for row in leak if row["separates"]}
    assert names == {"cause level", "all 4 keys"}


def test_the_path_runs_from_u_to_v_to_w_and_the_links_say_so(world: World) -> None:
    results = world.run("trace.pathway", {**CAUSE, "top": 6})
    rows = [
        row for row in results["trajectories"].to_pylist() if row["stat"] == "d" and row["q"] < 1e-6
    ]
    assert {world.direction(row["space"], row["feature"]) for row in rows} >= {"u", "v", "w"}
    links = {
        (
            world.direction(row["space"], row["feature"]),
            world.direction(row["other_space"], row["other_feature"]),
        ): row
        for row in results["links"].to_pylist()
    }
    for pair in (("u", "v"), ("v", "w")):
        assert links[pair]["r"] > 0.8
        assert links[pair]["q"] < 1e-6
    assert all(row["space"] != row["other_space"] for row in links.values())


def test_the_ranking_puts_what_the_cause_writes_first(world: World) -> None:
    rows = world.run("compare.ranking", {"by": "cause level", "labels": [0, 1]})[
        "features"
    ].to_pylist()
    sound = {
        world.direction(row["space"], row["feature"])
        for row in rows
        if row["stat"] == "passes_sound" and row["number"]
    }
    assert {"u", "v", "w"} <= sound <= {"u", "v", "w", "echo", "shadow", "cause"}
