"""`words.contexts`: where every described feature fires most strongly, at any token."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.plugins.toolkit_words.reply_tables import PARTS, replied, run
from toolkit.errors import DataError
from toolkit.tables import arrow_schema
from toolkit.testing.contracts import check_part
from toolkit.testing.fakes import make_work
from toolkit_words import contexts


def tracked() -> dict[str, pa.Table]:
    """Three texts; feature 1 fires at every token, the later the harder, and 2 at the first."""
    tables = replied(["bet it all", "stop now", "bet it all"], np.zeros((3, 4)))
    samples = tables["samples"].to_pylist()
    samples[2]["prompt_hash"] = samples[0]["prompt_hash"]
    rows = [
        {
            "space": "s1",
            "sample": row["sample"],
            "position": at,
            "features": [1, 2] if at == 0 else [1],
            "values": [at + number / 10, 9.0 - number] if at == 0 else [at + number / 10],
        }
        for number, row in enumerate(samples)
        for at in range(len(row["pieces"]))
    ]
    made = {"samples": samples, "activations": rows}
    return {name: pa.Table.from_pylist(of, schema=arrow_schema(name)) for name, of in made.items()}


def described(table: str, **row: Any) -> dict[str, pa.Table]:
    schema = arrow_schema(table)
    empty = {field.name: None for field in schema}
    return {table: pa.Table.from_pylist([{**empty, "space": "s1", **row}], schema=schema)}


def test_contract() -> None:
    stage = PARTS["words.contexts"]
    check_part(stage, work=make_work(None, tracked()))


def test_contexts_are_tokens_of_all_positions_each_prompt_once() -> None:
    rows = run("words.contexts", tracked(), top=5)["feature_contexts"]
    of_one = [row for row in rows if row["feature"] == 1]
    assert [(row["sample"], row["position"], row["rank"]) for row in of_one] == [
        ("n0002", 3, 1),
        ("n0001", 2, 2),
    ]
    assert [(row["before"], row["piece"], row["after"]) for row in of_one][1] == (
        "prompt 1 stop",
        " now",
        "",
    )
    of_two = [row for row in rows if row["feature"] == 2]
    assert [row["after"].split() for row in of_two] == [["bet", "it", "all"], ["stop", "now"]]
    assert len(run("words.contexts", tracked(), top=1)["feature_contexts"]) == 2


@pytest.mark.parametrize(
    ("table", "row"),
    [
        (
            "promoted_tokens",
            {
                "method": "unembedding",
                **{
                    f"{end}{kind}": []
                    for end in ("promoted", "suppressed")
                    for kind in ("", "_pieces", "_values")
                },
            },
        ),
        ("features", {"stat": "label", "group": "human", "text": "first token"}),
    ],
)
def test_only_described_features_have_contexts(table: str, row: dict[str, Any]) -> None:
    """Whatever describes them, promoted tokens or a label, and whether or not they have words."""
    tables = {**tracked(), **described(table, feature=2, **row)}
    rows = run("words.contexts", tables)["feature_contexts"]
    assert {row["feature"] for row in rows} == {2}


def test_features_are_taken_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run("words.contexts", tracked())["feature_contexts"]
    monkeypatch.setattr(contexts, "BLOCK", 1)
    assert run("words.contexts", tracked())["feature_contexts"] == whole


def test_no_activations_is_an_error() -> None:
    tables = {**tracked(), "activations": arrow_schema("activations").empty_table()}
    with pytest.raises(DataError, match=r"have no activations.*track\.tokens"):
        run("words.contexts", tables)
