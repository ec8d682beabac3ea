"""Games under a persistent patch: the identity changes nothing, an edit that matters does, and each
game has the draws of the game without it.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from pydantic import ValidationError

from toolkit._plugins.loading import load_parts
from toolkit.errors import BadInput
from toolkit.parts import StagePart
from toolkit.testing.fakes import SilentReporter, make_work
from toolkit_hf._identity import HuggingFace
from toolkit_hf._load import load
from toolkit_lab import model_path

PARTS = load_parts()
PLAY, PATCHED = (PARTS.get("stage", name) for name in ("play.games", "play.patched"))
assert isinstance(PATCHED, StagePart)
GAME = {
    "uses": "slot_machine",
    "with": {"components": ["", "G"], "modes": ["variable"], "max_rounds": 3},
}


@cache
def model() -> Any:
    return load(
        HuggingFace(path=str(model_path()), dtype="float32", device="cpu"), SilentReporter()
    )


@cache
def saes() -> Any:
    part = PARTS.get("sae", "llama_scope")
    folder = model_path().parent / "saes" / "Lab-LXR-4x"
    return part.load(part.params(path=str(folder), layers="all"), SilentReporter())


def played(**given: Any) -> dict[str, list[dict[str, Any]]]:
    """Rows of both tables, in the order of play."""
    part = PATCHED if "patch" in given else PLAY
    values = {"game": GAME, "reps": 4, "temperature": 1.0, **given}
    params = part.params.model_validate(values, context={"parts": PARTS})
    work = make_work(params, seed=1, model=model(), saes=saes() if "patch" in given else None)
    tables = {name: rows.to_pylist() for name, rows in part.run(replace(work, units=(0, 8)))}
    tables["rounds"].sort(key=lambda row: (row["game"], row["round"]))
    tables["games"].sort(key=lambda row: row["game"])
    return tables


def replies(tables: dict[str, list[dict[str, Any]]]) -> list[tuple[Any, ...]]:
    return [
        (row["game"].split("-r")[1][:4], row["round"], tuple(row["reply_ids"]))
        for row in tables["rounds"]
    ]


@pytest.mark.parametrize("tokens", ["all", "reply"])
def test_a_patch_that_changes_nothing_leaves_every_game_as_it_is(tokens: str) -> None:
    plain = played()
    same = played(arm="sham", patch=[{"feature": "2/7", "scale": 1.0}], tokens=tokens)
    assert replies(same) == replies(plain)
    assert same["games"][0]["game"] == plain["games"][0]["game"] + "-sham"
    assert same["games"][0]["condition"] == plain["games"][0]["condition"] + "-sham"
    assert '"arm":"sham"' in same["games"][0]["meta"]


@pytest.mark.parametrize("tokens", ["all", "reply"])
def test_a_patch_that_matters_changes_the_games(tokens: str) -> None:
    strong = [{"feature": f"3/{index}", "add": 40.0} for index in range(8)]
    assert replies(played(arm="strong", patch=strong, tokens=tokens)) != replies(played())


def test_several_layers_are_changed_at_once() -> None:
    both = [{"feature": "1/3", "set": 30.0}, {"feature": "3/5", "set": 30.0}]
    one = played(arm="x", patch=both[:1])
    assert replies(played(arm="x", patch=both)) != replies(one)


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        ([], "at least 1 item"),
        ([{"feature": "2/7"}], "give exactly one of set, add, scale"),
        ([{"feature": "2/7", "set": 1, "add": 1}], "give exactly one of set, add, scale"),
        ([{"feature": "two"}], "'two' is not a feature address"),
    ],
)
def test_patches_that_cannot_be(patch: Any, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        played(arm="x", patch=patch)
    assert message in str(caught.value)


def test_features_that_are_not_there_and_values_that_cannot_be() -> None:
    with pytest.raises(BadInput, match="99"):
        played(arm="x", patch=[{"feature": "99/1", "set": 1.0}])
    with pytest.raises(BadInput, match="never below zero"):
        played(arm="x", patch=[{"feature": "2/7", "set": -1.0}])
