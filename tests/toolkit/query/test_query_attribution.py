"""`toolkit query attribution`."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from tests.toolkit.query.asked import SAMPLES, STAGES, ask, begin, commit, rows
from toolkit_store import open_store

RUN = "parts-1"
ALL = ("attribution", "--sample", "a3")
SHARES = (0.0, 0.01, 0.04, 0.1, 0.2, 0.3, 0.25, 0.1)


def part(
    method: str, layer: int, position: int, value: float, against: str = "", **factors: float
) -> dict[str, Any]:
    row = {"sample": "a3", "against": against, "outcome": "stop", "method": method, "part": "token"}
    blank = dict.fromkeys(("head", "space", "feature", "exact", "attention", "norm"))
    return row | blank | {"layer": layer, "position": position, "value": value} | factors


@pytest.fixture(scope="module")
def attributed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods, two layers, eight tokens each: the larger of each token at layer 9."""
    store = open_store(tmp_path_factory.mktemp("parts") / "store", create=True)
    parts = [
        part(method, layer, position, (-1) ** position * (position + layer / 10))
        for method in ("direct", "relp")
        for layer in (2, 9)
        for position in range(8)
    ]
    with store.writer():
        commit(store, "k1", "prompts", RUN, {"samples": SAMPLES})
        commit(store, "k2", "parts", RUN, {"attributions": parts})
        begin(store, RUN, "2026-01-01", "done", ["k1", "k2"], STAGES)
    return store.folder


def test_each_part_has_its_layer(attributed: Path) -> None:
    shown = rows(attributed, *ALL, "--top", "3", "--method", "direct", run=RUN)
    assert [(row["layer"], row["position"]) for row in shown] == [(9, 7), (2, 7), (9, 6)]
    at_two = rows(attributed, *ALL, "--layer", "2", run=RUN)
    assert {row["layer"] for row in at_two} == {2}
    assert [row["token"] for row in at_two[:2]] == ["word7", "word6"]


def test_k_limits_the_rows(attributed: Path) -> None:
    answer = ask(attributed, *ALL, "--csv", "--k", "3", run=RUN)
    assert len(list(csv.DictReader(answer.stdout.splitlines()))) == 3
    assert "3 of 20 rows; more: --k N" in answer.stderr


def test_without_k_all_parts_of_every_method_are_shown(attributed: Path) -> None:
    shown = rows(attributed, *ALL, "--top", "13", run=RUN)
    assert len(shown) == 26
    assert [row["rank"] for row in shown] == [*range(1, 14)] * 2


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published attribution and another method, against two changed prompts."""
    store = open_store(tmp_path_factory.mktemp("published") / "store", create=True)
    factors = [{"attention": 0.1 * position, "norm": 10.0 - position} for position in range(8)]
    parts = [
        part("attention_magnitude", 8, position, SHARES[position], "b", **numbers)
        for position, numbers in enumerate(factors)
    ]
    parts += [
        part("relp", 8, position, -float(position), against)
        for against in ("b", "c")
        for position in range(8)
    ]
    with store.writer():
        commit(store, "k1", "prompts", RUN, {"samples": SAMPLES})
        commit(store, "k2", "parts", RUN, {"attributions": parts})
        begin(store, RUN, "2026-01-01", "done", ["k1", "k2"], STAGES)
    return store.folder


def test_the_table_of_the_published_study(published: Path) -> None:
    """Rank, position, token, importance, attention and the norm of the features, best first."""
    asked = (*ALL, "--layer", "8", "--top", "3")
    shown = rows(published, *asked, run=RUN)
    columns = ("rank", "position", "token", "importance", "attention", "norm")
    assert [tuple(row[name] for name in columns) for row in shown[:3]] == [
        (1, 5, "word5", 0.3, pytest.approx(0.5), 5.0),
        (2, 6, "word6", 0.25, pytest.approx(0.6), 4.0),
        (3, 4, "word4", 0.2, pytest.approx(0.4), 6.0),
    ]
    text = ask(published, *asked, "--method", "attention_magnitude", run=RUN).stdout.splitlines()
    assert text[0].split() == ["method:", "attention_magnitude", "layer:", "8", "against:", "b"]
    assert [name.lower() for name in text[1].split()] == list(columns)


def test_other_methods_show_the_same_tokens(published: Path) -> None:
    """Of each changed prompt its own ranks, with what the last token pays and the norm."""
    shown = rows(published, *ALL, "--layer", "8", "--top", "2", "--method", "relp", run=RUN)
    assert [(row["against"], row["rank"], row["position"]) for row in shown] == [
        ("b", 1, 7), ("b", 2, 6), ("c", 1, 7), ("c", 2, 6)
    ]  # fmt: skip
    assert [row["attention"] for row in shown[:2]] == pytest.approx([0.7, 0.6])
    assert [row["norm"] for row in shown[:2]] == [3.0, 4.0]
