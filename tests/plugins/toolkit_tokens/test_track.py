"""Tracking: features as an extraction gives them, attention as the model's plain attention has it,
and what is refused.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tests.plugins.toolkit_tokens.conftest import PARTS, run, samples_of
from toolkit.errors import BadInput, DataError
from toolkit.models.encoders import Encoder

HALF = 1e-3
"""What float16 keeps of a weight of at most 1."""


def rows_of(tables: Any, name: str, **where: Any) -> list[dict[str, Any]]:
    return [
        row
        for row in tables[name].to_pylist()
        if all(row[key] == value for key, value in where.items())
    ]


def test_last_position_rows_equal_those_of_an_extraction(
    lab: Any, lab_saes: Any, scenarios: Any, tracked: Any
) -> None:
    """What Exp1 keeps of the same prompts, entry for entry."""
    results = run(
        "stage", "extract.activations", {"at": "last"}, scenarios, model=lab, saes=lab_saes
    )
    last = {row["sample"]: len(row["token_ids"]) - 1 for row in scenarios["samples"].to_pylist()}
    mine = {
        (row["space"], row["sample"]): row
        for row in tracked["activations"].to_pylist()
        if row["position"] == last[row["sample"]]
    }
    expected = results["activations"].to_pylist()
    assert len(expected) == len(mine) == 13 * 4
    for row in expected:
        expected_row = mine[row["space"], row["sample"]]
        assert expected_row["features"] == row["features"]
        np.testing.assert_allclose(expected_row["values"], row["values"], rtol=1e-4, atol=1e-5)


def test_every_token_but_bos_has_a_row_in_every_space(scenarios: Any, tracked: Any) -> None:
    tokens = sum(len(row["token_ids"]) for row in scenarios["samples"].to_pylist())
    assert len(tracked["activations"]) == 4 * (tokens - 13)
    assert min(row["position"] for row in tracked["activations"].to_pylist()) == 1
    assert len(tracked["spaces"]) == 4


def test_attention_equals_the_plain_weights(lab: Any, scenarios: Any, tracked: Any) -> None:
    row = scenarios["samples"].to_pylist()[1]
    ids = row["token_ids"]
    plain = lab.run([ids], ["attn_probs.2"])["attn_probs.2"][0].float().numpy()
    result = rows_of(tracked, "attention", sample=row["sample"], layer=2)
    assert len(result) == 4 * len(ids)
    for entry in result:
        assert entry["keys"] is None
        assert len(entry["weights"]) == entry["query"] + 1
        expected = plain[entry["head"], entry["query"], : entry["query"] + 1]
        np.testing.assert_allclose(np.array(entry["weights"], float), expected, atol=HALF)
        assert abs(sum(map(float, entry["weights"])) - 1) < 0.02


def test_the_largest_weights_and_the_mass_of_the_others(
    lab: Any, scenarios: Any, tracked: Any
) -> None:
    results = run(
        "stage", "track.attention", {"top": 3, "queries": "last", "layers": 1}, scenarios, model=lab
    )
    assert len(results["attention"]) == 13 * 4
    whole = {
        (row["sample"], row["head"], row["query"]): np.array(row["weights"], float)
        for row in rows_of(tracked, "attention", layer=1)
    }
    for row in results["attention"].to_pylist():
        weights = whole[row["sample"], row["head"], row["query"]]
        assert len(row["keys"]) == 3
        assert row["keys"] == sorted(row["keys"])
        assert sorted(map(float, row["weights"])) == sorted(weights)[-3:]
        np.testing.assert_allclose(weights[row["keys"]], np.array(row["weights"], float))
        assert abs(row["rest"] + sum(map(float, row["weights"])) - 1) < 0.02


def test_short_rows_have_nothing_left(lab: Any) -> None:
    tables = samples_of(lab, {"a": "Bet $10"})
    params = {"top": 50, "layers": [0], "queries": {"positions": [0, 1], "exclude": {"bos": False}}}
    result = run("stage", "track.attention", params, tables, model=lab)["attention"].to_pylist()
    assert [row["keys"] for row in result if row["head"] == 0] == [[0], [0, 1]]
    assert all(row["rest"] == 0 for row in result)


def test_equal_texts_are_computed_once(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = samples_of(lab, {"a": "Bet $10", "b": "Bet $10", "c": "Stop"})
    passed: list[int] = []
    real = lab.attention
    monkeypatch.setattr(
        lab,
        "attention",
        lambda batch, *rest, **more: (passed.append(len(batch)), real(batch, *rest, **more))[1],
    )
    result = run("stage", "track.attention", {"layers": "0-1"}, tables, model=lab)["attention"]
    assert sum(passed) == 2
    by_sample = {
        name: [
            {key: value for key, value in row.items() if key != "sample"}
            for row in rows_of({"attention": result}, "attention", sample=name)
        ]
        for name in "ab"
    }
    assert by_sample["a"] == by_sample["b"]
    assert by_sample["a"]


def test_batches_change_nothing(lab: Any, lab_saes: Any, scenarios: Any, tracked: Any) -> None:
    by_token = run("stage", "track.tokens", {"tokens": 1}, scenarios, model=lab, saes=lab_saes)
    order = [("space", "ascending"), ("sample", "ascending"), ("position", "ascending")]
    mine, expected = (
        result["activations"].sort_by(order).to_pylist() for result in (by_token, tracked)
    )
    assert [row["features"] for row in mine] == [row["features"] for row in expected]


def test_features_alone_ask_for_no_attention(
    lab: Any, lab_saes: Any, scenarios: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("attention was computed")

    monkeypatch.setattr(lab, "attention", refuse)
    results = run("stage", "track.tokens", {"attention": None}, scenarios, model=lab, saes=lab_saes)
    assert set(results) == {"activations", "spaces"}
    part = PARTS.get("stage", "track.tokens")
    assert part.tables(part.params.model_validate({"attention": None})) == ("activations", "spaces")


def test_attention_alone_asks_for_no_sae() -> None:
    part = PARTS.get("stage", "track.attention")
    assert not part.uses_saes
    assert part.tables(part.params.model_validate({})) == ("attention",)


def test_memory_that_runs_out_halves_a_pass(
    lab: Any, scenarios: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, sizes = lab.attention, []

    def small_memory(batch: Any, *rest: Any, **more: Any) -> Any:
        sizes.append(len(batch))
        if len(batch) > 3:
            raise torch.OutOfMemoryError("no room")
        return real(batch, *rest, **more)

    monkeypatch.setattr(lab, "attention", small_memory)
    results = run(
        "stage", "track.attention", {"layers": 0, "queries": "last"}, scenarios, model=lab
    )
    assert len(results["attention"]) == 13 * 4
    assert max(sizes) > 3
    assert min(sizes) <= 3
    monkeypatch.setattr(lab, "attention", lambda *_, **__: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(DataError, match=r"its \d+ tokens do not fit in memory with the attention"):
        run("stage", "track.attention", {}, scenarios, model=lab)


# --- bad input ------------------------------------------------------------------------------------


def test_layers_that_are_not_there_are_refused_before_a_run() -> None:
    params = PARTS.get("stage", "track.attention").params
    check = PARTS.get("stage", "track.attention").check
    assert check is not None
    assert check(params(layers="2-9"), {"layers": 4}) == (
        "layers: '2-9' names layer 4; the model has the layers 0 to 3."
    )
    assert check(params(layers="1-"), {"layers": 4}) is None
    assert check(params(layers=40), {}) is None


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (4, "names layer 4; .* has the layers 0 to 3"),
        ("2-9", "names layer 4"),
        ("x", "is not understood"),
        ([], "names no layer"),
    ],
)
def test_layers_that_are_not_there(lab: Any, scenarios: Any, layers: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        run("stage", "track.attention", {"layers": layers}, scenarios, model=lab)


def test_a_prompt_over_the_context(lab: Any) -> None:
    tables = samples_of(lab, {"long": "Bet $10"})
    model = copy.copy(lab)
    model.context = 2
    with pytest.raises(DataError, match=r"sample 'long' has \d tokens; .* reads at most 2"):
        run("stage", "track.attention", {}, tables, model=model)


def test_an_sae_beyond_the_model(lab: Any, lab_saes: Any, scenarios: Any) -> None:
    sae = copy.copy(lab_saes[0])
    sae.hookpoint = "resid_post.9"
    with pytest.raises(BadInput, match=r"resid_post\.9; .* has the layers 0 to 3"):
        run("stage", "track.tokens", {}, scenarios, model=lab, saes=[sae])


def test_a_model_that_shows_no_attention(lab: Any, scenarios: Any) -> None:
    class Hidden(Encoder):
        """Reads both ways, and has no attention to show."""

        identity, layers, width, context = lab.identity, lab.layers, lab.width, lab.context
        encode: Callable[..., Any]
        decode: Callable[..., Any]

        def encode(self, text: str, *, chat: bool = False) -> Any:  # type: ignore[no-redef]
            return lab.encode(text, chat=chat)

        def decode(self, ids: Any) -> str:  # type: ignore[no-redef]
            return str(lab.decode(ids))

        def run(self, batch: Any, capture: Any, edits: Any = ()) -> Any:
            raise BadInput(f"hookpoint '{capture[0]}': this model has no such site.")

    with pytest.raises(BadInput, match=r"attn_probs\.0': this model has no such site"):
        run("stage", "track.attention", {"layers": 0}, scenarios, model=Hidden())


def test_a_sample_without_tokens(lab: Any, scenarios: Any) -> None:
    rows = scenarios["samples"].to_pylist()
    rows[0]["token_ids"] = []
    tables = {"samples": type(scenarios["samples"]).from_pylist(rows, scenarios["samples"].schema)}
    with pytest.raises(DataError, match="has no tokens"):
        run("stage", "track.attention", {}, tables, model=lab)


def test_a_stream_that_is_not_finite(lab: Any, lab_saes: Any, scenarios: Any) -> None:
    model = copy.copy(lab)

    def broken(batch: Any, capture: Any, edits: Any = ()) -> Any:
        results = lab.run(batch, capture, edits)
        results["resid_post.1"] = results["resid_post.1"].clone()
        results["resid_post.1"][0, 3] = float("nan")
        return results

    model.run = broken
    with pytest.raises(DataError, match=r"the stream at resid_post\.1, position 3, is not finite"):
        run("stage", "track.tokens", {"attention": None}, scenarios, model=model, saes=lab_saes)
