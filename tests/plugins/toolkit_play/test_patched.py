"""Games under a persistent patch: the identity changes nothing, an edit that matters does, and each
game has the draws of the game without it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from toolkit._plugins.loading import load_parts
from toolkit.edits import Tally
from toolkit.errors import BadInput, DataError
from toolkit.parts import StagePart
from toolkit.saes import space_id
from toolkit.tables import arrow_schema
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


def played(**settings: Any) -> dict[str, list[dict[str, Any]]]:
    """Rows of both tables, in the order of play."""
    part = PATCHED if "patch" in settings else PLAY
    units, inputs = settings.pop("units", (0, 8)), settings.pop("inputs", {})
    values = {"game": GAME, "reps": 4, "temperature": 1.0, **settings}
    params = part.params.model_validate(values, context={"parts": PARTS})
    used = saes() if "patch" in settings else None
    work = make_work(params, inputs, seed=1, model=model(), saes=used)
    tables = {name: rows.to_pylist() for name, rows in part.run(replace(work, units=units))}
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
    assert same["games"][0]["pair"] == plain["games"][0]["game"]
    assert {(row["arm"], row["null_arm"]) for row in same["games"]} == {("sham", False)}
    assert {(row["arm"], row["pair"]) for row in plain["games"]} == {(None, None)}


@pytest.mark.parametrize("tokens", ["all", "reply"])
def test_a_patch_that_matters_changes_the_games(tokens: str) -> None:
    strong = [{"feature": f"3/{index}", "add": 40.0} for index in range(8)]
    assert replies(played(arm="strong", patch=strong, tokens=tokens)) != replies(played())


def seen(space: str, feature: int, value: float) -> dict[str, pa.Table]:
    """Activations in which a feature had at most this value."""
    row = {"space": space, "sample": "s", "position": 0, "features": [feature], "values": [value]}
    return {"activations": pa.Table.from_pylist([row], schema=arrow_schema("activations"))}


def test_a_value_that_was_never_seen_is_warned_about() -> None:
    ids = {sae.layer: space_id(model().identity, sae) for sae in saes()}
    cases: list[tuple[int, float, tuple[int, int], list[str]]] = [
        (2, 5.0, (0, 2), ["1 of 1 features are set to values outside of the observed range"]),
        (2, 30.0, (0, 2), []),
        (2, 5.0, (2, 4), []),
        (1, 5.0, (0, 2), []),
    ]
    for layer, largest, units, expected in cases:
        report = SilentReporter()
        params = PATCHED.params.model_validate(
            {"game": GAME, "reps": 4, "arm": "x", "patch": [{"feature": "2/7", "set": 30.0}]},
            context={"parts": PARTS},
        )
        inputs = seen(ids[layer], 7, largest)
        work = make_work(params, inputs, seed=1, model=model(), saes=saes())
        list(PATCHED.run(replace(work, units=units, report=report)))
        warnings = [facts["text"] for name, facts in report.events if name == "warning"]
        assert [text.split(":")[0] for text in warnings] == expected
        assert all("feature 2/7 to 30, where at most 5 was seen" in text for text in warnings)


def test_several_layers_are_changed_at_once() -> None:
    both = [{"feature": "1/3", "set": 30.0}, {"feature": "3/5", "set": 30.0}]
    patched = played(arm="x", patch=both[:1])
    assert replies(played(arm="x", patch=both)) != replies(patched)


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        ([], "at least 1 item"),
        ([{"feature": "2/7"}], "give exactly one of set, add, scale"),
        ([{"scale": 0}], "give either `feature` or `verdicts`"),
        ([{"feature": "2/7", "verdicts": ["causal"], "scale": 0}], "give either `feature`"),
        ([{"feature": "2/7", "set": 1, "add": 1}], "give exactly one of set, add, scale"),
        ([{"feature": "two"}], "'two' is not a feature address"),
    ],
)
def test_patches_that_are_invalid(patch: Any, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        played(arm="x", patch=patch)
    assert message in str(caught.value)


def test_features_that_are_not_there_and_values_that_are_invalid() -> None:
    with pytest.raises(BadInput, match="99"):
        played(arm="x", patch=[{"feature": "99/1", "set": 1.0}])
    with pytest.raises(BadInput, match="never below zero"):
        played(arm="x", patch=[{"feature": "2/7", "set": -1.0}])


def test_random_directions_are_arms_of_their_own_with_the_same_draws() -> None:
    """The null of a patch: the first arms get a repetition before any gets its second."""
    strong = [{"feature": f"3/{index}", "add": 40.0} for index in range(8)]
    results = played(arm="random", patch=strong, random_directions=3, units=(0, 12))
    arms = Counter(row["arm"] for row in results["games"])
    assert all(row["null_arm"] for row in results["games"])
    assert arms == {"random_1": 4, "random_2": 4, "random_3": 4}
    assert {row["repetition"] for row in results["games"]} == {0, 1}
    names = {arm: {row["game"] for row in results["games"] if row["arm"] == arm} for arm in arms}
    by_arm = {
        arm: [row["reply"] for row in results["rounds"] if row["game"] in games]
        for arm, games in names.items()
    }
    assert len({tuple(arm_replies) for arm_replies in by_arm.values()}) == 3


def test_a_random_direction_of_no_change_leaves_every_game_as_it_is() -> None:
    results = played(
        arm="r", patch=[{"feature": "2/7", "scale": 1.0}], random_directions=2, units=(0, 16)
    )
    plain = [row["reply"] for row in played()["rounds"]]
    for number in (1, 2):
        mine = [row["reply"] for row in results["rounds"] if row["game"].endswith(f"-r_{number}")]
        assert mine == plain


def verdicts(*rows: tuple[int, int, str, float]) -> dict[str, pa.Table]:
    """(layer, feature, verdict, effect) of features of the lab's SAEs."""
    ids = {sae.layer: space_id(model().identity, sae) for sae in saes()}
    facts = {"screen": "s", "comparison": "c", "contrast": "a vs b", "outcome": "stop"}
    facts |= {"reason": "", "low": 0.0, "high": 0.0, "p": 0.0, "q": 0.0, "family": len(rows)}
    made = [
        {**facts, "space": ids[layer], "feature": feature, "verdict": verdict, "effect": effect}
        for layer, feature, verdict, effect in rows
    ]
    return {"verdicts": pa.Table.from_pylist(made, schema=arrow_schema("verdicts"))}


def test_features_are_chosen_by_their_verdict() -> None:
    judged = verdicts(
        (3, 5, "causal", -0.3), (1, 3, "causal", 0.2), (2, 9, "causal", 0.1), (2, 7, "no effect", 1)
    )
    chosen = [{"verdicts": ["causal"], "top": 2, "add": 40.0}]
    named = [{"feature": "1/3", "add": 40.0}, {"feature": "3/5", "add": 40.0}]
    result = replies(played(arm="x", patch=chosen, inputs=judged))
    assert result == replies(played(arm="x", patch=named)) != replies(played())


def test_a_verdict_that_no_feature_has_is_refused() -> None:
    patch = [{"verdicts": ["causal"], "scale": 0.0}]
    with pytest.raises(DataError, match=r"no feature has the verdict causal\. .*no effect"):
        played(arm="x", patch=patch, inputs=verdicts((2, 7, "no effect", 0.1)))
    with pytest.raises(DataError, match=r"Need a stage of `patch.verdicts`, or name features"):
        played(arm="x", patch=patch)


def test_edits_that_are_not_made_at_every_token_fail_the_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A session that forgets one count in ten."""
    record, calls = Tally.record, []

    def forgetful(tally: Any, rows: Any, positions: Any, prompts: Any) -> None:
        calls.append(1)
        record(tally, rows[1:], positions[1:], prompts[1:])

    monkeypatch.setattr(Tally, "record", forgetful)
    with pytest.raises(DataError, match=r"was planned at .* tokens of the prompt"):
        played(arm="x", patch=[{"feature": "2/7", "scale": 0.0}])
    assert calls
