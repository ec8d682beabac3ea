"""Features changed together: a pair that only acts together is found, parts of one path do not add
up, and several layers are edited as a plain pass would.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.plugins.toolkit_patch.worlds import OUTCOMES, PARTS, run, table
from toolkit.edits import Editing
from toolkit.identity import Identity
from toolkit.models import Encoded, Model
from toolkit.saes import Sae, space_id, space_row
from toolkit.testing.contracts import check_part
from toolkit.testing.fakes import make_work


@pytest.fixture(scope="module")
def together(world, screened):
    params = {"outcomes": OUTCOMES, "points": 12, "sets": 19, "pairs": 3}
    return run("patch.joint", params, world.tables | screened, world.model, world.saes)


def arms(result: Any, name: str) -> dict[str, Any]:
    return {row["arm"]: row for row in result["joint_effects"].to_pylist() if row["name"] == name}


def test_the_parts_of_one_path_do_together_what_each_does_alone(together):
    whole = arms(together, "all")
    assert len(whole["joint"]["members"]) == 4
    assert whole["joint"]["effect"] == pytest.approx(0.48, abs=0.05)
    assert whole["sum"]["effect"] == pytest.approx(4 * whole["joint"]["effect"], rel=0.1)
    assert whole["interaction"]["p"] < 1e-6
    assert whole["joint"]["beyond"] == 0
    assert whole["ablated"]["effect"] < -0.1


def test_pairs_are_corrected_over_all_pairs(together):
    rows = [row for row in together["joint_effects"].to_pylist() if " + " in row["name"]]
    assert len(rows) == 3 * 3
    assert all((row["q"] is None) == (row["arm"] != "interaction") for row in rows)


def test_the_part_keeps_its_contract(world, screened):
    work = make_work(None, world.tables | screened, model=world.model, saes=world.saes)
    few = {"outcomes": OUTCOMES, "points": 4, "sets": 19}
    check_part(PARTS.get("stage", "patch.joint"), params=few, work=work)


def test_without_two_features_there_is_nothing_to_join(world, screened):
    params = {"outcomes": OUTCOMES, "points": 4, "verdicts": ["sham fails"]}
    results = run("patch.joint", params, world.tables | screened, world.model, world.saes)
    assert not results


# --- a pair that only acts together ---------------------------------------------------------------


class Conjunction(Model):
    """Two blocks that do nothing; token 0 is likely where the first two numbers exceed 1.5
    together.
    """

    identity = Identity("conjunction", "1", "c0")
    layers, width, context = 2, 24, 8

    def encode(self, text: str, *, chat: bool = False) -> Encoded:
        ids = tuple(int(word) for word in text.split())
        return Encoded(text, ids, tuple((2 * n, 2 * n + 1) for n in range(len(ids))))

    def decode(self, ids: Any) -> str:
        return " ".join(map(str, ids))

    def run(self, batch: Any, capture: Any, edits: Any = ()) -> dict[str, torch.Tensor]:
        editing = Editing(
            edits, batch, editable=self.editable, layers=self.layers, model=self.identity.name
        )
        stream = torch.zeros((len(batch), max(map(len, batch)), self.width))
        stream[:, :, 23] = torch.tensor([[float(ids[-1])] * stream.shape[1] for ids in batch])
        seen = {}
        for layer in range(self.layers):
            stream = editing.apply(f"resid_pre.{layer}", stream)
            seen[f"resid_pre.{layer}"] = stream
            stream = editing.apply(f"resid_post.{layer}", stream)
            seen[f"resid_post.{layer}"] = stream
        return {name: seen[name] for name in capture}

    def unembed(self, states: torch.Tensor) -> torch.Tensor:
        both = torch.relu(states[:, 0] + states[:, 1] - 1.5)
        drift = 0.05 * states[:, 23]
        return torch.stack([8 * both + drift, torch.ones_like(both), torch.zeros_like(both)], 1)


class Axes(Sae):
    """A feature for each number of the stream."""

    name, release, hookpoint, digest, recipe = "axes", "axes", "resid_post.0", "a0", "relu"
    width, inputs, pointwise = 24, 24, True

    def encode(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.relu(rows)

    def decode(self, activations: torch.Tensor) -> torch.Tensor:
        return activations

    def decoder_rows(self, features: Any) -> torch.Tensor:
        return torch.eye(24)[torch.as_tensor(features)]

    def encoder_columns(self, features: Any) -> torch.Tensor:
        return torch.eye(24)[torch.as_tensor(features)]

    def encoder_bias(self, features: Any) -> torch.Tensor:
        return torch.zeros(len(features))

    def thresholds(self, features: Any) -> torch.Tensor:
        return torch.zeros(len(features))


def test_a_pair_that_acts_only_together_is_found_by_the_joint_arm(world):
    model, sae = Conjunction(), Axes()
    space = space_id(model.identity, sae)
    comparison = world.tables["comparisons"].to_pylist()[0]
    stats = {("mean", "yes"): 1.0, ("mean", "no"): 0.0, ("fired", ""): 30.0}
    stats |= {("density", "yes"): 0.5, ("density", "no"): 0.1}
    stats |= {("d", "yes vs no"): 1.0, ("q", "yes vs no"): 0.001}
    features = [
        {"space": space, "feature": feature, "stat": stat, "group": group, "number": number}
        | {"text": None, "comparison": comparison["comparison"]}
        for feature in range(24)
        for (stat, group), number in stats.items()
    ]
    samples = [
        {"sample": f"s{n}", "unit": f"s{n}", "cluster": f"s{n}", "text": f"1 {n}"}
        | {"token_ids": [1, n], "pieces": ["1", f"{n}"], "spans": [], "prompt_hash": f"{n}"}
        | {"bos": None}
        for n in range(40)
    ]
    tables = {
        "samples": table("samples", samples),
        "features": table("features", features),
        "comparisons": world.tables["comparisons"],
        "spaces": table("spaces", [space_row(model.identity, sae)]),
    }
    params = {"outcomes": {"a": ["0"], "b": ["1"]}, "points": 12}
    some = {"candidates": {"features": ["0/0", "0/1", "0/2"]}, "arms": [], "directions": 19}
    tables |= run("patch.delta", params | some, tables, model, [sae])
    tables |= run("patch.verdicts", {}, tables)
    alone = {row["verdict"] for row in tables["verdicts"].to_pylist()}
    assert alone <= {"no effect", "silent here"}
    pair = {"features": ["0/0", "0/1"], "sets": 19}
    results = run("patch.joint", params | pair, tables, model, [sae])
    whole = arms(results, "all")
    assert whole["joint"]["effect"] > 0.3
    assert abs(whole["sum"]["effect"]) < 1e-6
    assert whole["joint"]["beyond"] <= 1
