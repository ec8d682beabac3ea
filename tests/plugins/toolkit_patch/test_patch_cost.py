"""What the stages of patching are said to cost, held against what they do on a planted model:
passes, operations and stored bytes are within a factor of two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from torch.utils.flop_counter import FlopCounterMode

from tests.plugins.toolkit_patch.worlds import OUTCOMES, PARTS, World, run
from toolkit.costs import Cost, Workload
from toolkit.testing.fakes import make_step
from toolkit_patch.costs import screening
from toolkit_patch.screen.params import Delta
from toolkit_store import open_store


@pytest.fixture(scope="module")
def facts(planted: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    model, saes = PARTS.get("model", "huggingface"), PARTS.get("sae", "llama_scope")
    result = (
        model.identify(model.params(path=str(planted.model))),
        saes.identify(saes.params(path=str(planted.llama_scope))),
    )
    return dict(result[0].facts), dict(result[1].facts)


class Counting:
    """A model that counts the token sequences that it reads."""

    def __init__(self, model: Any) -> None:
        self._model, self.read = model, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def prefix(self, ids: Any, capture: Any = ()) -> Any:
        self.read += 1
        return self._model.prefix(ids, capture)

    def run(self, batch: Any, *more: Any) -> Any:
        self.read += len(batch)
        return self._model.run(batch, *more)

    def gradients(self, batch: Any, *more: Any, **named: Any) -> Any:
        self.read += len(batch)
        return self._model.gradients(batch, *more, **named)


@dataclass(frozen=True)
class Took:
    """What a stage did: sequences read, operations, and bytes that a store keeps of its rows."""

    forwards: int
    flops: float
    disk: int


def took(world: World, name: str, params: Mapping[str, Any], tables: Any, folder: Path) -> Took:
    """Run a stage, count, and store what it writes."""
    model = Counting(world.model)
    with FlopCounterMode(display=False) as counted:
        written = run(name, params, tables, model, world.saes)
    store = open_store(folder, create=True)
    store.commit(make_step("s"), written)
    data = [
        file.stat().st_size
        for table in written
        for file in (folder / "tables" / f"{table}.lance").glob("data/*")
    ]
    return Took(model.read, counted.get_total_flops(), sum(data))


def load_of(world: World, facts: Any, totals: Mapping[str, int]) -> Workload:
    """The workload that a plan makes of the samples."""
    ids = [tuple(row) for row in world.tables["samples"]["token_ids"].to_pylist()]
    tokens = [len(text) for text in set(ids)]
    return Workload(
        samples=len(ids),
        distinct=len(tokens),
        tokens=sum(tokens),
        longest=max(tokens),
        model=facts[0],
        saes=facts[1],
        totals=totals,
    )


FEW = {"candidates": {"top": 6}, "points": 20, "min_effect": 1.0, "directions": 19}
FEW |= {"direction_points": 2}
ALL = {"candidates": {"top": 16}, "points": 20, "arms": ["reconstruct"], "keep": "all"}
ALL |= {"min_effect": 1.0, "directions": 19, "direction_points": 2}
STEER = {"by": "cause", "between": ["yes", "no"], "points": 20, "axis_samples": 20}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        pytest.param("patch.delta", FEW, marks=pytest.mark.slow),
        pytest.param(
            "patch.delta", ALL | {"control_saes": "random_decoder"}, marks=pytest.mark.slow
        ),
        ("patch.joint", {"points": 4, "top": 4, "sets": 19}),
        ("patch.doses", {"points": 4, "top": 4}),
        ("patch.steer", {**STEER, "layers": [1], "points": 4, "axis_samples": 6}),
        ("patch.attribution", {"points": 4}),
        ("patch.verdicts", {}),
    ],
)
def test_a_stage_costs_what_it_says_within_a_factor_of_two(
    world: World,
    screened: Mapping[str, pa.Table],
    facts: Any,
    tmp_path: Path,
    name: str,
    settings: Any,
) -> None:
    part = PARTS.get("stage", name)
    params = settings if name == "patch.verdicts" else {"outcomes": OUTCOMES, **settings}
    screen = Delta.model_validate({"outcomes": OUTCOMES, "candidates": {"top": 20}, "points": 40})
    totals = screening(screen, load_of(world, facts, {})).totals
    tables = world.tables if name == "patch.delta" else world.tables | screened
    actual = took(world, name, params, tables, tmp_path / "store")
    cost: Cost = part.estimates.cost(
        part.params.model_validate(params), load_of(world, facts, totals)
    )
    forecast = {"forwards": cost.forwards, "flops": cost.flops, "disk": cost.disk}
    for what, amount in vars(actual).items():
        assert amount / 2 <= forecast[what], (what, forecast[what], amount)
        if what == "disk" and settings is FEW:
            continue  # how many features pass is not known beforehand: rows of the most that may
        assert forecast[what] <= 2 * amount, (what, forecast[what], amount)
    assert not cost.exact


def test_more_candidates_and_points_cost_more(facts: tuple[dict[str, Any], dict[str, Any]]) -> None:
    load = Workload(
        samples=500, distinct=500, tokens=10_000, longest=40, model=facts[0], saes=facts[1]
    )
    few, many, wide, controlled = (
        screening(Delta.model_validate({"outcomes": OUTCOMES, **more}), load)
        for more in (
            {"arms": []},
            {"arms": [], "points": 400},
            {"arms": [], "candidates": {"top": 64}},
            {"arms": [], "control_saes": "random_decoder"},
        )
    )
    assert many.forwards - few.forwards == 3 * 200  # read, and searched in half of 4 spaces
    assert many.disk > few.disk < wide.disk
    assert few.flops < wide.flops
    assert few.memory < wide.memory
    assert controlled.forwards - few.forwards > 200
    assert controlled.flops > few.flops
    assert controlled.totals["judged_features"] == 2 * few.totals["judged_features"]


def test_a_stage_that_reads_a_screen_costs_what_the_screen_tries(facts: Any) -> None:
    load = Workload(samples=9, distinct=9, tokens=90, longest=10, model=facts[0], saes=facts[1])
    part = PARTS.get("stage", "patch.verdicts")
    none, few, many = (
        part.estimates.cost(part.params(), replace(load, totals={"judged_features": count})).disk
        for count in (0, 100, 1000)
    )
    assert many - none == 10 * (few - none) > 0
