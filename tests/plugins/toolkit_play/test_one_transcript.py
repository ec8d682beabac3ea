"""A game's text is the same for any batch, any number of replies under way, and from any step: the
packaged model plays, in float32 and in bfloat16.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from toolkit._plugins.loading import load_parts
from toolkit.models import Model
from toolkit.models.sessions import Session
from toolkit.testing.fakes import SilentReporter, make_work
from toolkit_hf._identity import HuggingFace
from toolkit_hf._load import load
from toolkit_lab import model_path

PARTS = load_parts()
PLAY = PARTS.get("stage", "play.games")
GAMES = 12


@cache
def lab(dtype: str) -> Model:
    where = HuggingFace(path=str(model_path()), dtype=dtype, device="cpu")  # type: ignore[arg-type]
    model: Model = load(where, SilentReporter())
    return model


class Narrow:
    """The model with another budget for its sessions: fewer replies are under way at a time."""

    def __init__(self, model: Model, budget: int | None) -> None:
        self._model, self._budget = model, budget

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def session(self, budget: int | None = None) -> Session:
        return self._model.session(self._budget or budget)


def params(layout: str) -> Any:
    game = {"layout": layout, "components": ["", "GM", "P"], "modes": ["variable"], "max_rounds": 4}
    settings = {
        "game": {"uses": "slot_machine", "with": game},
        "reps": GAMES // 3,
        "reask": {"max": 1},
        "max_new_tokens": 32,
        "temperature": 1.0,
    }
    return PLAY.params.model_validate(settings, context={"parts": PARTS})


def transcripts(
    dtype: str, layout: str, *, size: int = GAMES, budget: int | None = None, first: int = 0
) -> dict[str, list[tuple[Any, ...]]]:
    """The replies of every game, played in steps of `size`, from the game `first` on."""
    texts: dict[str, list[tuple[Any, ...]]] = {}
    for start in range(first, GAMES, size):
        work = make_work(params(layout), seed=3, model=Narrow(lab(dtype), budget))
        tables = dict(PLAY.run(replace(work, units=(start, min(start + size, GAMES)))))
        rounds = tables["rounds"].to_pylist()
        for row in sorted(rounds, key=lambda row: (row["game"], row["round"], row["attempt"])):
            decision = (row["round"], row["attempt"], tuple(row["reply_ids"]), row["balance_after"])
            texts.setdefault(row["game"], []).append((*decision, row["close_draws"]))
    return texts


def clear(texts: dict[str, list[tuple[Any, ...]]]) -> set[str]:
    """Games without a token that another order of computation could have drawn differently."""
    return {game for game, rows in texts.items() if not any(row[-1] for row in rows)}


SIZES = [
    pytest.param(1, marks=pytest.mark.slow),
    pytest.param(2, marks=pytest.mark.slow),
    7,
    pytest.param(64, marks=pytest.mark.slow),
]


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["restart", "corrected"])
@pytest.mark.parametrize("size", SIZES)
def test_float32_transcripts_do_not_depend_on_the_batch(layout: str, size: int) -> None:
    whole = transcripts("float32", layout)
    parts = transcripts("float32", layout, size=size)
    sure = clear(whole) & clear(parts)
    assert len(sure) >= GAMES - 1
    assert {game: parts[game] for game in sure} == {game: whole[game] for game in sure}


@pytest.mark.slow
@pytest.mark.parametrize("budget", [200, 900])
def test_transcripts_do_not_depend_on_how_many_replies_are_under_way(budget: int) -> None:
    whole = transcripts("float32", "restart")
    narrow = transcripts("float32", "restart", budget=budget)
    sure = clear(whole) & clear(narrow)
    assert len(sure) >= GAMES - 1
    assert {game: narrow[game] for game in sure} == {game: whole[game] for game in sure}


def test_games_behind_a_stop_are_those_of_an_undisturbed_run() -> None:
    """After a kill the steps that are not committed are played again, by themselves."""
    whole = transcripts("float32", "restart", size=5)
    resumed = transcripts("float32", "restart", size=5, first=5)
    assert resumed == {game: whole[game] for game in resumed}


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_bfloat16_transcripts_differ_only_behind_a_close_draw(size: int) -> None:
    """Up to the first reply with a counted token the text is the same."""
    whole = transcripts("bfloat16", "restart")
    parts = transcripts("bfloat16", "restart", size=size)
    assert whole.keys() == parts.keys()
    same = 0
    for game, rows in whole.items():
        for ours, theirs in zip(rows, parts[game], strict=False):
            if ours[-1] or theirs[-1]:
                break
            assert ours == theirs, game
            same += 1
    assert same >= GAMES // 2
