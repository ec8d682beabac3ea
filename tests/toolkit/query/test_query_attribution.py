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


def part(method: str, layer: int, position: int, value: float) -> dict[str, Any]:
    row = {"sample": "a3", "against": "", "outcome": "stop", "method": method, "part": "token"}
    blank = dict.fromkeys(("head", "space", "feature", "exact"))
    return row | blank | {"layer": layer, "position": position, "value": value}


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
