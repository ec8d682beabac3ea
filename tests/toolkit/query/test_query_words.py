"""`toolkit query words` and `toolkit query label`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.toolkit.query.asked import SPACES, STAGES, begin, commit, refused, rows
from tests.toolkit.query.asked import ask as _ask
from toolkit_store import open_store

RUN = "words-1"


def word(feature: int, word: str, **fields: Any) -> dict[str, Any]:
    base = {"space": "s1", "feature": feature, "method": "log_odds", "word": word, "value": 1.0}
    numbers = {"z": 3.0, "p": 0.001, "q": 0.01, "high": 0.9, "low": 0.1}
    confirm = dict.fromkeys(("confirm_value", "confirm_z", "confirm_p", "confirm_q"), 0.02)
    counts = {"high_clusters": 9, "low_clusters": 40, "family": 100, "verdict": "confirmed"}
    return base | numbers | confirm | counts | fields


def promoted(feature: int, pieces: list[str]) -> dict[str, Any]:
    lists = {"tokens": [1] * len(pieces), "values": [2.5] * len(pieces)}
    row: dict[str, Any] = {"space": "s1", "feature": feature, "method": "unembedding"}
    for end in ("promoted", "suppressed"):
        row |= {end: lists["tokens"], f"{end}_pieces": pieces, f"{end}_values": lists["values"]}
    return row


def label(feature: int, text: str) -> dict[str, Any]:
    row = {"space": "s1", "feature": feature, "stat": "label", "group": "auto", "number": None}
    return row | {"text": text}


VERDICT = {
    "space": "s1",
    "feature": 5,
    "comparison": "c",
    "contrast": "a vs b",
    "outcome": "stop",
    "verdict": "causal",
    "screen": "c1",
    "reason": "it moves",
    "effect": -0.125,
    "low": -0.2,
    "high": -0.1,
    "p": 0.001,
    "q": 0.01,
    "family": 9,
}


@pytest.fixture(scope="module")
def words_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = open_store(tmp_path_factory.mktemp("words") / "store", create=True)
    results = [
        word(5, "gamble"),
        word(5, "quit", value=-2.0),
        word(5, "hello", verdict="not confirmed", p=0.0001),
        word(5, "bet", method="tf_idf", z=None, p=None, q=None, verdict="as published, not tested"),
        word(7, "history"),
        word(8, "number"),
    ]
    tokens = [promoted(5, [" risk", "\n\x1b[31m"]), promoted(7, [" last"]), promoted(8, [" one"])]
    labels = [
        label(5, "risky gambling decisions"),
        label(7, "taking a risk"),
        label(8, "numbers and counting"),
    ]
    with store.writer():
        commit(store, "w1", "words", RUN, {"feature_words": results, "spaces": SPACES})
        commit(store, "w2", "tokens", RUN, {"promoted_tokens": tokens})
        commit(store, "w3", "import.neuronpedia", RUN, {"features": labels})
        commit(store, "w4", "verdicts", RUN, {"verdicts": [VERDICT]})
        begin(store, RUN, "2026-01-01", "done", ["w1", "w2", "w3", "w4"], STAGES)
        commit(store, "n1", "extract", "bare-1", {"spaces": SPACES})
        begin(store, "bare-1", "2026-01-01", "done", ["n1"], STAGES)
    return store.folder


def test_words_of_a_feature_are_shown_confirmed_ones_first(words_store: Path) -> None:
    result = rows(words_store, "words", "2/5", run=RUN)
    assert [row["word"] for row in result] == ["gamble", "quit", "hello", "bet"]
    assert result[0]["stage"] == "words"
    assert rows(words_store, "words", "2/5", "--k", "1", run=RUN) == result[:1]


def test_promoted_tokens_stand_above_and_steer_no_terminal(words_store: Path) -> None:
    shown = _ask(words_store, "words", "2/5", run=RUN).stdout
    assert "promoted (unembedding): ' risk' +2.50" in shown
    assert "\x1b" not in shown
    assert r"\x1b[31m" in shown


def test_a_feature_without_words_says_so(words_store: Path) -> None:
    result = _ask(words_store, "words", "2/50", run=RUN)
    assert "Run words-1 lists no words for feature 2/50." in result.stderr
    assert (
        "Table 'feature_words' has no rows"
        in _ask(words_store, "words", "2/5", run="bare-1").stderr
    )


def test_labels_about_a_subject_and_what_else_supports_them(words_store: Path) -> None:
    result = rows(words_store, "label", "risk taking", run=RUN)
    assert [row["address"] for row in result] == ["2/7", "2/5"]
    second = result[1]
    assert second["label"] == "risky gambling decisions"
    assert second["words"] == pytest.approx(1 / 3**0.5)
    assert second["words_p"] == pytest.approx(1 / 3)
    assert second["tokens"] > 0.3
    assert second["effect"] == -0.125
    assert result[0]["words"] == 0
    assert result[0]["words_p"] == 1
    assert result[0]["effect"] is None
    assert rows(words_store, "label", "numbers", "--layer", "2", run=RUN)[0]["address"] == "2/8"
    assert rows(words_store, "label", "numbers", "--layer", "9", run=RUN) == []


def test_labels_that_are_not_there_are_said(words_store: Path) -> None:
    assert (
        "No label of run words-1 is about 'zebra'"
        in _ask(words_store, "label", "zebra", run=RUN).stderr
    )
    bare = _ask(words_store, "label", "zebra", run="bare-1").stderr
    assert "has no labels. Add some: toolkit store import neuronpedia FOLDER" in bare
    refused(words_store, "label", "of the", message="has no word to search for", run=RUN)
