"""What playing costs at most, compared with games that are played."""

from __future__ import annotations

from typing import Any

import pytest
from torch.utils.flop_counter import FlopCounterMode

from toolkit._plugins.loading import load_parts
from toolkit.costs import Workload
from toolkit.models import Model
from toolkit.parts import StagePart
from toolkit.testing.fakes import SilentReporter, TableInputs
from toolkit.work import Work
from toolkit_hf._identity import HuggingFace, identify
from toolkit_hf._load import load
from toolkit_lab import model_path

PARTS = load_parts()
PLAY = PARTS.get("stage", "play.games")
assert isinstance(PLAY, StagePart)
ROUNDS = 3


class Counted:
    """A model that counts the prompts it is asked about."""

    def __init__(self, model: Model) -> None:
        self.model, self.prompts, self.longest = model, 0, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def session(self, budget: int | None = None) -> Any:
        session = self.model.session(budget)
        submit = session.submit

        def counted(id: Any, ids: Any, draw: Any = None, **how: Any) -> None:
            self.prompts += 1
            self.longest = max(self.longest, len(ids))
            submit(id, ids, draw, **how)

        session.submit = counted  # type: ignore[method-assign]
        return session


def params_of(game: dict[str, Any], **settings: Any) -> Any:
    game = {"uses": "slot_machine", "with": game}
    return PLAY.params.model_validate({"game": game, **settings}, context={"parts": PARTS})


@pytest.fixture(scope="module")
def params() -> Any:
    game = {"components": ["", "G"], "modes": ["variable"], "max_rounds": ROUNDS}
    return params_of(game, reps=3, max_new_tokens=12, temperature=1.0)


def test_games_cost_no_more_than_is_said(params: Any) -> None:
    """Rows, prompts and operations: bounds, met where no game stops early and no two prompts are
    equal.
    """
    where = HuggingFace(path=str(model_path()), dtype="float32", device="cpu", attention="eager")
    model = Counted(load(where, SilentReporter()))
    work = Work(params, 0, TableInputs({}), SilentReporter(), model=model)
    with FlopCounterMode(display=False) as counted:
        rows = {name: table.num_rows for name, table in PLAY.run(work)}
    assert PLAY.estimates.max_rows is not None
    assert PLAY.estimates.cost is not None
    most = PLAY.estimates.max_rows(params, {"units": 6})
    assert most == {"games": 6, "rounds": 6 * ROUNDS}
    assert rows["games"] == most["games"]
    assert most["games"] <= rows["rounds"] <= most["rounds"]
    load_ = Workload(
        samples=0,
        distinct=0,
        tokens=0,
        longest=model.longest,
        units=6,
        exact=False,
        model=identify(where).facts,
    )
    cost = PLAY.estimates.cost(params, load_)
    assert rows["rounds"] == model.prompts <= cost.forwards == most["rounds"]
    assert counted.get_total_flops() <= cost.flops
    assert not cost.exact


def test_one_game_of_one_round_costs_what_torch_counts() -> None:
    """The reply is asked to be as long as it may be: then only the prompt's logits are fewer than a
    bound would have.
    """
    where = HuggingFace(path=str(model_path()), dtype="float32", device="cpu", attention="eager")
    game = {"components": ["G"], "modes": ["fixed"], "max_rounds": 1}
    params = params_of(game, max_new_tokens=8, min_new_tokens=8)
    model = Counted(load(where, SilentReporter()))
    with FlopCounterMode(display=False) as counted:
        list(PLAY.run(Work(params, 0, TableInputs({}), SilentReporter(), model=model)))
    facts = identify(where).facts
    load_ = Workload(
        samples=0, distinct=0, tokens=0, longest=model.longest, units=1, exact=False, model=facts
    )
    assert PLAY.estimates.cost is not None
    assert PLAY.estimates.cost(params, load_).flops == pytest.approx(
        counted.get_total_flops(), rel=0.15
    )
