"""What a causal screen costs at most, held against a screen of a planted model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from torch.utils.flop_counter import FlopCounterMode

from tests.plugins.toolkit_patch.test_delta import OUTCOMES, PARTS, World, make_world
from toolkit.costs import ROW, Workload
from toolkit.testing.fakes import SilentReporter
from toolkit_patch._cost import screening
from toolkit_patch._params import Delta


@pytest.fixture(scope="module")
def facts(planted: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    model, saes = PARTS.get("model", "huggingface"), PARTS.get("sae", "llama_scope")
    found = (
        model.identify(model.params(path=str(planted.model))),
        saes.identify(saes.params(path=str(planted.llama_scope))),
    )
    return dict(found[0].facts), dict(found[1].facts)


@pytest.fixture(scope="module")
def world(planted: Any) -> World:
    part = PARTS.get("model", "huggingface")
    return make_world(
        planted,
        part.load(part.params(path=str(planted.model)), SilentReporter()),
        planted.llama_scope,
    )


@pytest.mark.slow
def test_a_screen_costs_no_more_than_it_says(
    world: World, facts: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    """Passes are those that are made; operations within a factor of three (edits at high layers
    climb less), rows within a tenth.
    """
    read: list[tuple[int, ...]] = []
    prefix = world.model.prefix
    counting = type("Counting", (), {"__getattr__": lambda _, name: getattr(world.model, name)})()
    counting.prefix = lambda ids, capture=(): (read.append(tuple(ids)), prefix(ids, capture))[1]
    params = Delta(outcomes=OUTCOMES, top=6, points=20, half="all", min_effect=0.0)
    with FlopCounterMode(display=False) as counted:
        found = replace(world, model=counting).screen(top=6, points=20, half="all", min_effect=0.0)
    ids = [tuple(row) for row in world.tables["samples"]["token_ids"].to_pylist()]
    tokens = [len(one) for one in set(ids)]
    load = Workload(
        samples=len(ids),
        distinct=len(tokens),
        tokens=sum(tokens),
        longest=max(tokens),
        model=facts[0],
        saes=facts[1],
    )
    cost = screening(params, load)
    assert len(set(read)) + 1 == len(read) <= cost.forwards <= params.points + 1
    assert counted.get_total_flops() <= cost.flops <= 3 * counted.get_total_flops()
    written = found["effects"].num_rows * ROW
    assert 0.9 * cost.disk <= written <= cost.disk
    assert not cost.exact


def test_more_candidates_and_points_cost_more(facts: tuple[dict[str, Any], dict[str, Any]]) -> None:
    load = Workload(
        samples=500, distinct=500, tokens=10_000, longest=40, model=facts[0], saes=facts[1]
    )
    few, many, wide = (
        screening(Delta(outcomes=OUTCOMES, **more), load)
        for more in ({}, {"points": 400}, {"top": 16})
    )
    assert many.forwards - 1 == 2 * (few.forwards - 1)
    assert many.disk > few.disk < wide.disk
    assert few.flops < wide.flops < 2 * few.flops
    assert few.memory < wide.memory
