"""Scenarios as samples: spans of the prompt builder, flags, twins and changed copies."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import ValidationError

from tests.plugins.toolkit_tokens.conftest import PARTS, SCENARIOS, run
from toolkit.errors import BadInput
from toolkit_lab import model_path

SOURCE = PARTS.get("source", "scenarios")


def facts_of(tables: Any) -> dict[str, dict[str, Any]]:
    result: dict[str, dict[str, Any]] = {}
    for row in tables["sample_meta"].to_pylist():
        value = row["string"] if row["number"] is None else row["number"]
        result.setdefault(row["sample"], {})[row["key"]] = value
    return result


def validated(**params: Any) -> Any:
    return SOURCE.params.model_validate({**SCENARIOS, **params}, context={"parts": PARTS})


def test_flags_and_twins(scenarios: Any) -> None:
    facts = facts_of(scenarios)
    assert len(facts) == 13
    flagged = {name for name, of_sample in facts.items() if of_sample["consistent"] == "no"}
    assert flagged == {"Bankruptcy_90_all_in", "Safe_130_one_win", "Very_risky_25"}
    assert "history ends at $70" in facts["Bankruptcy_90_all_in"]["contradiction"]
    twin = facts["Bankruptcy_90_all_in_consistent"]
    assert (twin["twin_of"], twin["group"], twin["balance"]) == (
        "Bankruptcy_90_all_in",
        "risky",
        90.0,
    )
    units = {row["sample"]: row["unit"] for row in scenarios["samples"].to_pylist()}
    assert units["Bankruptcy_90_all_in_consistent"] == "Bankruptcy_90_all_in"


def test_spans_are_those_of_the_prompt_builder(scenarios: Any) -> None:
    """The history holds the same numbers; a search for the balance's digits would hit them."""
    row = next(row for row in scenarios["samples"].to_pylist() if row["sample"] == "Desperate_10")
    spans = {
        span["name"]: "".join(row["pieces"][span["start"] : span["end"]]) for span in row["spans"]
    }
    assert set(spans) == {"history", "balance", "goal", "win_rate", "payout", "options", "decision"}
    assert spans["balance"].strip() == "10"
    assert "Bet" in spans["options"]
    assert "Loss" not in spans["options"]
    last = next(span for span in row["spans"] if span["name"] == "decision")
    assert last["end"] == len(row["token_ids"])


def test_which_are_kept(lab: Any) -> None:
    def names(**params: Any) -> set[str]:
        tables = run("source", "scenarios", {**SCENARIOS, **params}, model=lab)
        return set(tables["samples"]["sample"].to_pylist())

    published = {name for name in names(inconsistent="only")}
    assert len(published) == 10
    replaced = names(inconsistent="replace")
    assert len(replaced) == 10
    assert {name for name in replaced if name.endswith("_consistent")} == replaced - published
    assert names(pick=["Very_risky_25"]) == {"Very_risky_25", "Very_risky_25_consistent"}


def test_a_changed_copy_names_what_it_was_made_from(lab: Any) -> None:
    changes = [{"of": "Initial_100_first_round", "set": {"balance": 10}}]
    params = {**SCENARIOS, "pick": ["Initial_100_first_round"], "changes": changes}
    tables = run("source", "scenarios", params, model=lab)
    facts = facts_of(tables)
    copy = facts["Initial_100_first_round:balance=10"]
    assert copy["changed_from"] == "Initial_100_first_round"
    assert copy["balance"] == 10.0
    texts = {row["sample"]: row["text"] for row in tables["samples"].to_pylist()}
    assert texts["Initial_100_first_round:balance=10"] == texts["Initial_100_first_round"].replace(
        "balance: $100", "balance: $10"
    )


def test_texts_and_their_tokens_are_known_before_a_run(lab: Any, scenarios: Any) -> None:
    part, loader = PARTS.get("source", "scenarios"), PARTS.get("model", "huggingface")
    params = part.params.model_validate(SCENARIOS, context={"parts": PARTS})
    texts = part.estimates.texts(params)
    rows = scenarios["samples"].to_pylist()
    assert sorted(texts) == sorted((row["unit"], row["text"]) for row in rows)
    counts = loader.count_tokens(loader.params(path=str(model_path())), [text for _, text in texts])
    expected = {row["text"]: len(row["token_ids"]) for row in rows}
    assert counts == [expected[text] for _, text in texts]


def test_labels_are_known_before_a_run() -> None:
    labels = SOURCE.labels.offered(validated())
    assert labels["consistent"] == ["no", "yes"]
    assert labels["group"] == ["risky", "safe"]
    assert labels["balance"] is None
    assert SOURCE.estimates.max_rows(validated(), {}) == {"samples": 13}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"pick": ["Desperate_1"]}, "no scenario 'Desperate_1'.*Did you mean.*Desperate_10"),
        ({"changes": [{"of": "x", "set": {"balance": 1}}]}, "no scenario 'x'"),
        ({"environment": {"uses": "investment"}}, "investment offers no scenarios"),
    ],
)
def test_what_is_not_there_is_named(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        validated(**params)


def test_a_state_entry_that_is_not_there_is_named(lab: Any) -> None:
    changes = [{"of": "Desperate_10", "set": {"balanse": 10}}]
    with pytest.raises(BadInput, match=r"no entry 'balanse'.*Did you mean.*balance"):
        run("source", "scenarios", {**SCENARIOS, "changes": changes}, model=lab)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"balance": "/root"}, "'balance' of 'Desperate_10' is a whole number, got '/root'"),
        ({"balance": 10.5}, "is a whole number, got '10.5'"),
        ({"mode": 3}, "'mode' of 'Desperate_10' is a text, got '3'"),
        ({"outcome": "won"}, "is an entry that no change can replace, got 'won'"),
    ],
)
def test_a_state_entry_of_another_kind_is_refused(entries: dict[str, Any], message: str) -> None:
    changes = [{"of": "Desperate_10", "set": entries}]
    with pytest.raises(BadInput, match=re.escape(message)):
        SOURCE.labels.offered(validated(changes=changes))
