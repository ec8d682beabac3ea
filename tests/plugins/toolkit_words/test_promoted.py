"""`words.tokens`: products with the (un)embedding, compared with torch by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
import torch

from tests.plugins.toolkit_words.conftest import Random
from toolkit.errors import BadInput, DataError
from toolkit.parts import StagePart
from toolkit.saes import space_id
from toolkit.tables import arrow_schema
from toolkit.testing.contracts import check_part
from toolkit.testing.fakes import make_work
from toolkit_words import promoted, toolkit_parts

PART = next(
    part for part in toolkit_parts() if isinstance(part, StagePart) and part.name == "words.tokens"
)
VOCABULARY = 258


def rows_of(
    model: Any, saes: list[Random], tables: dict[str, pa.Table] | None = None, **params: Any
) -> dict[tuple[str, int, str], dict[str, Any]]:
    validated = promoted.PromotedTokens(**params)
    work = make_work(validated, tables, model=model, saes=saes)
    results = [row for name, rows in PART.run(work) if name != "spaces" for row in rows.to_pylist()]
    by_key = {(row["space"], row["feature"], row["method"]): row for row in results}
    assert len(by_key) == len(results)
    return by_key


@pytest.mark.parametrize(("name", "added"), [("llama", 0.0), ("gemma2", 1.0)])
def test_logits_of_a_decoder_row_are_those_of_the_norm_and_the_head_by_hand(
    loaded: Callable[[str], Any], name: str, added: float
) -> None:
    """Gemma's norm multiplies by one more than its weight."""
    model, sae = loaded(name), Random()
    module = model._module
    gain = module.model.norm.weight.detach().double() + added
    assert float(gain.std()) > 0.01
    row = sae.rows[7].double()
    scaled = row / row.square().mean().sqrt() * gain
    logits = module.get_output_embeddings().weight.detach().double() @ scaled
    logits -= logits.mean()
    result = rows_of(model, [sae], top=5)[space_id(model.identity, sae), 7, "unembedding"]
    best, worst = logits.topk(5), (-logits).topk(5)
    assert result["promoted"] == best.indices.tolist()
    assert result["suppressed"] == worst.indices.tolist()
    assert result["promoted_values"] == pytest.approx(best.values.tolist(), rel=1e-4)
    assert result["suppressed_values"] == pytest.approx((-worst.values).tolist(), rel=1e-4)
    assert result["promoted_pieces"] == [
        model.decode([token]) or f"<{token}>" for token in result["promoted"]
    ]


def test_a_step_along_the_direction_moves_the_real_logits_as_it_says(
    loaded: Callable[[str], Any],
) -> None:
    """A stream that is the row alone, through the model's own norm and head."""
    model, sae = loaded("llama"), Random()
    row = sae.rows[[3]]
    logits = model.unembed(row / row.norm() * row.shape[1] ** 0.5)[0]
    result = rows_of(model, [sae], top=3)[space_id(model.identity, sae), 3, "unembedding"]
    expected = (logits - logits.mean()).topk(3)
    assert result["promoted"] == expected.indices.tolist()
    assert result["promoted_values"] == pytest.approx(expected.values.tolist(), rel=1e-3)


def test_the_published_reading_is_the_cosine_with_the_input_embedding(
    loaded: Callable[[str], Any],
) -> None:
    model, sae = loaded("llama"), Random()
    embedding = model._module.get_input_embeddings().weight.detach()
    cosines = torch.nn.functional.cosine_similarity(embedding, sae.rows[[0]])
    result = rows_of(model, [sae], top=4)[space_id(model.identity, sae), 0, "input_embedding"]
    assert result["promoted"] == cosines.topk(4).indices.tolist()
    assert result["promoted_values"] == pytest.approx(cosines.topk(4).values.tolist(), rel=1e-4)


def test_tiles_give_what_one_product_gives(
    loaded: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, saes = loaded("gemma2"), [Random(1), Random(2)]
    whole = rows_of(model, saes)
    monkeypatch.setattr(promoted, "TILE_NUMBERS", 3 * VOCABULARY)
    tiled = rows_of(model, saes)
    assert {key: row["promoted"] for key, row in tiled.items()} == {
        key: row["promoted"] for key, row in whole.items()
    }
    assert len(whole) == 2 * 2 * 40


def test_steps_together_are_the_whole(loaded: Callable[[str], Any]) -> None:
    model, saes = loaded("llama"), [Random(1), Random(2)]
    params = promoted.PromotedTokens()
    assert promoted.feature_count(params, {"features": 80}) == 80
    base = make_work(params, None, model=model, saes=saes)
    results = []
    for first in range(0, 80, 30):
        work = type(base)(**{**vars(base), "features": (first, min(first + 30, 80))})
        results += [
            (row["space"], row["feature"], row["method"])
            for name, rows in PART.run(work)
            if name != "spaces"
            for row in rows.to_pylist()
        ]
    assert sorted(results) == sorted(rows_of(model, saes))


def test_features_that_fired_nowhere_are_left_out_and_named_ones_are_not(
    loaded: Callable[[str], Any],
) -> None:
    model, sae = loaded("llama"), Random()
    space = space_id(model.identity, sae)
    fired = [
        {"space": space, "sample": "a", "position": 1, "features": [4, 9], "values": [1.0, 2.0]}
    ]
    tables = {"activations": pa.Table.from_pylist(fired, schema=arrow_schema("activations"))}
    assert {key[1] for key in rows_of(model, [sae], tables)} == {4, 9}
    assert {key[1] for key in rows_of(model, [sae], tables, fired_only=False)} == set(range(40))
    assert {key[1] for key in rows_of(model, [sae], tables, features=("1/5",))} == {5}
    with pytest.raises(BadInput, match="its width is 40"):
        rows_of(model, [sae], tables, features=("1/40",))
    nothing = {"activations": tables["activations"].slice(0, 0)}
    with pytest.raises(DataError, match="no feature is active in the activations"):
        rows_of(model, [sae], nothing)


def test_a_decoder_that_does_not_write_into_the_stream_is_refused(
    loaded: Callable[[str], Any],
) -> None:
    with pytest.raises(DataError, match=r"writes at attn_z\.1.*Leave this SAE out"):
        rows_of(loaded("llama"), [Random(site="attn_z")])


def test_contract(loaded: Callable[[str], Any]) -> None:
    check_part(PART, work=make_work(None, None, model=loaded("llama"), saes=[Random()]))
