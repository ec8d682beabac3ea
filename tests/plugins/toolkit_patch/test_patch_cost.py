"""What a causal screen costs at most, compared with a screen of a planted model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from torch.utils.flop_counter import FlopCounterMode

from tests.plugins.toolkit_patch.worlds import OUTCOMES, PARTS, World
from toolkit.costs import Workload
from toolkit_patch.screen.cost import screening
from toolkit_patch.screen.params import Delta


@pytest.fixture(scope="module")
def facts(planted: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    model, saes = PARTS.get("model", "huggingface"), PARTS.get("sae", "llama_scope")
    result = (
        model.identify(model.params(path=str(planted.model))),
        saes.identify(saes.params(path=str(planted.llama_scope))),
    )
    return dict(result[0].facts), dict(result[1].facts)


@pytest.mark.slow
def test_a_screen_costs_no_more_than_it_says(
    world: World, facts: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    """Operations and passes are within a factor of two of the forecast; without candidates that
    pass, no random direction is tried: then it is an upper bound.
    """
    read: list[tuple[int, ...]] = []
    prefix = world.model.prefix
    counting = type("Counting", (), {"__getattr__": lambda _, name: getattr(world.model, name)})()
    counting.prefix = lambda ids, capture=(): (read.append(tuple(ids)), prefix(ids, capture))[1]
    run = world.model.run
    counting.run = lambda ids, *more: (read.extend(map(tuple, ids)), run(ids, *more))[1]
    given = {"candidates": {"top": 6}, "points": 20, "min_effect": 1.0, "directions": 19}
    given |= {"direction_points": 2}
    params = Delta.model_validate({"outcomes": OUTCOMES, **given})
    with FlopCounterMode(display=False) as counted:
        results = replace(world, model=counting).screen(**given)
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
    assert len(read) <= cost.forwards <= 2 * len(read)
    assert counted.get_total_flops() <= cost.flops <= 2 * counted.get_total_flops()
    assert results["screens"].num_rows == 6
    assert not cost.exact


def test_more_candidates_and_points_cost_more(facts: tuple[dict[str, Any], dict[str, Any]]) -> None:
    load = Workload(
        samples=500, distinct=500, tokens=10_000, longest=40, model=facts[0], saes=facts[1]
    )
    few, many, wide = (
        screening(Delta.model_validate({"outcomes": OUTCOMES, **more}), load)
        for more in (
            {"arms": []},
            {"arms": [], "points": 400},
            {"arms": [], "candidates": {"top": 64}},
        )
    )
    assert many.forwards - 1 == 2 * (few.forwards - 1)
    assert many.disk > few.disk < wide.disk
    assert few.flops < wide.flops
    assert few.memory < wide.memory
