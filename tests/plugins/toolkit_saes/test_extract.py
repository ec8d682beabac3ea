"""`extract.activations` against a plain loop, computed once per distinct text, the same however it
is split.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
import torch

from tests.plugins.toolkit_saes.counted import CountedModel
from toolkit.errors import DataError
from toolkit.saes import space_id
from toolkit.testing.contracts import check_part
from toolkit_saes import toolkit_parts
from toolkit_saes.extract.stage import Extract, extract

PART = next(part for part in toolkit_parts() if part.name == "extract.activations")


def tables(work: Any) -> dict[str, pa.Table]:
    result: dict[str, list[pa.Table]] = {}
    for name, rows in extract(work):
        result.setdefault(name, []).append(rows)
    return {name: pa.concat_tables(parts) for name, parts in result.items()}


def rows(work: Any) -> dict[tuple[str, str, int], dict[int, float]]:
    """Active features of each space, sample and position."""
    result: dict[tuple[str, str, int], dict[int, float]] = {}
    for row in tables(work)["activations"].to_pylist():
        key = row["space"], row["sample"], row["position"]
        assert key not in result
        result[key] = dict(zip(row["features"], row["values"], strict=True))
    return result


def by_hand(
    world: Any, saes: Sequence[Any], texts: Sequence[Sequence[int]], at: str
) -> dict[Any, dict[int, float]]:
    """One text and one SAE after the other, dense."""
    results = {}
    for sae in saes:
        space = space_id(world.model.identity, sae)
        for number, ids in enumerate(texts):
            dense = sae.encode(world.model.run([ids], [sae.hookpoint])[sae.hookpoint][0])
            first = len(ids) - 1 if at == "last" else int(len(ids) > 1)
            for position in range(first, len(ids)):
                here = dense[position]
                active = {
                    feature: float(here[feature]) for feature in here.nonzero()[:, 0].tolist()
                }
                results[space, f"s{number:03d}", position] = active
    return results


def alike(result: dict[Any, dict[int, float]], expected: dict[Any, dict[int, float]]) -> None:
    assert result.keys() == expected.keys()
    for key, active in expected.items():
        assert list(result[key]) == sorted(active), key
        assert result[key] == pytest.approx(active, rel=1e-3, abs=1e-3), key


@pytest.mark.parametrize("at", ["last", "all"])
def test_rows_are_those_of_a_plain_loop(each: Any, at: str) -> None:
    saes = [*each.saes(layers=[0, 3]), *each.saes("gemma_scope", layers=2)]
    texts = [*(ids[:40] for ids in each.texts[:6]), [each.model.bos_id], each.texts[2][:40]]
    result = rows(each.work(saes, Extract(at=at, tokens=120), texts))
    alike(result, by_hand(each, saes, texts, at))
    assert any(result.values())


@pytest.mark.parametrize("at", ["last", "all"])
def test_the_contract_and_that_splitting_changes_nothing(each: Any, at: str) -> None:
    texts = [ids[:40] for ids in (*each.texts[:8], each.texts[1])]
    work = each.work([*each.saes(layers="1-2"), *each.saes("gemma_scope", layers=2)], None, texts)
    check_part(PART, params={"at": at, "tokens": 200}, work=work, tolerance=1e-4)


def test_bos_is_left_out_and_the_rest_is_not(small: Any) -> None:
    """A text that begins with another token keeps its first one."""
    texts = [small.texts[0][:5], small.texts[0][1:5]]
    result = rows(small.work(small.saes(layers=1), Extract(at="all"), texts))
    assert [position for _, sample, position in result if sample == "s000"] == [1, 2, 3, 4]
    assert [position for _, sample, position in result if sample == "s001"] == [0, 1, 2, 3]


def test_equal_texts_are_computed_once(small: Any) -> None:
    model = CountedModel(small.model)
    world = replace(small, model=model)
    texts = [small.texts[0], small.texts[1], small.texts[0], small.texts[0]]
    result = rows(world.work(small.saes(layers="1-2"), Extract(), texts))
    assert sorted(ids for batch in model.ran for ids in batch) == sorted(
        map(tuple, small.texts[:2])
    )
    assert len(model.ran) == 1
    space, last = next(iter(result))[0], len(texts[0]) - 1
    assert len(result) == 8
    assert result[space, "s000", last] == result[space, "s002", last] == result[space, "s003", last]


def test_a_pass_has_no_more_padded_tokens_than_allowed(small: Any) -> None:
    model = CountedModel(small.model)
    world = replace(small, model=model)
    rows(world.work(small.saes(layers=1), Extract(tokens=90), small.texts))
    sizes = [len(batch) * max(map(len, batch)) for batch in model.ran]
    assert max(sizes) <= 90
    assert max(map(len, model.ran)) > 1
    model.ran.clear()
    rows(world.work(small.saes(layers=1), Extract(tokens=1), small.texts[:3]))
    assert sorted(map(len, model.ran)) == [1, 1, 1]


def test_progress_counts_samples(small: Any) -> None:
    texts = [*small.texts[:3], small.texts[0]]
    work = small.work(small.saes(layers=1), Extract(tokens=1), texts)
    rows(work)
    assert work.report.steps[-1] == (4, 4)
    assert [done for done, _ in work.report.steps] == sorted(done for done, _ in work.report.steps)


def test_spaces_are_described(small: Any) -> None:
    saes = small.saes(layers=[1, 3])
    result = tables(small.work(saes, Extract(), small.texts[:2]))["spaces"].to_pylist()
    assert [(row["space"], row["sae"]) for row in result] == [
        (space_id(small.model.identity, sae), f"Planted-L{sae.layer}R-8x") for sae in saes
    ]


def test_no_samples_are_no_rows(small: Any) -> None:
    results = tables(small.work(small.saes(layers=1), Extract(), []))
    assert list(results) == ["spaces"]


@pytest.mark.parametrize("at", [{"window": (900, None)}, {"span": "balance"}, {"tokens": ("zzz",)}])
def test_a_selector_that_finds_nothing_is_a_warning(small: Any, at: Any) -> None:
    work = small.work(small.saes(layers=1), Extract(at=at), small.texts[:3])
    assert list(tables(work)) == ["spaces"]
    assert [facts["text"] for name, facts in work.report.events if name == "warning"] == [
        "`at` chose no token in any of the 3 samples of this step: it has no activations. "
        "Check that these texts have such tokens, spans or positions."
    ]
    some = small.work(small.saes(layers=1), Extract(at={"positions": (1,)}), small.texts[:3])
    rows(some)
    assert "warning" not in [name for name, _ in some.report.events]


def test_a_sample_without_tokens(small: Any) -> None:
    with pytest.raises(DataError) as caught:
        rows(small.work(small.saes(layers=1), Extract(), [small.texts[0], []]))
    assert (
        str(caught.value)
        == "sample 's001' has no tokens: its source has not tokenised it with the model."
    )


class Damaged(CountedModel):
    """A model whose stream at one hookpoint is broken from the fifth token of one text on."""

    def __init__(self, model: Any, ids: Sequence[int], hookpoint: str, value: float) -> None:
        super().__init__(model)
        self._ids, self._hookpoint, self._value = tuple(ids), hookpoint, value

    def run(self, batch: Sequence[Sequence[int]], capture: Sequence[str], edits: Any = ()) -> Any:
        results = {
            name: stream.clone() for name, stream in super().run(batch, capture, edits).items()
        }
        for row in (row for row, ids in enumerate(batch) if tuple(ids) == self._ids):
            results[self._hookpoint][row, 4:, 3] = self._value
        return results


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_stream_that_is_not_finite_is_named(small: Any, value: float) -> None:
    texts = [small.texts[0], small.texts[1][:9], small.texts[0][:7]]
    world = replace(small, model=Damaged(small.model, texts[1], "resid_post.2", value))
    with pytest.raises(DataError) as caught:
        rows(world.work(small.saes(layers=[2, 1]), Extract(at="all"), texts))
    assert str(caught.value) == (
        "sample 's001': the stream at resid_post.2, position 4, is not finite (NaN or infinity). "
        "The weights are damaged, or torch.float32 overflows: try `dtype: float32` or `bfloat16` "
        "under model.with."
    )


def test_damaged_weights_are_found(small: Any) -> None:
    """One number of one token is NaN: the text that has this token is named, at the first place
    that an SAE reads.
    """
    model, bad = copy.deepcopy(small.model), 7
    with torch.no_grad():
        model.decoder.embedding.weight[bad, 3] = float("nan")
    clean = [token if token != bad else 8 for token in small.texts[0]]
    texts = [clean, [*clean[:4], bad, *clean[5:9]], clean[:6]]
    with pytest.raises(
        DataError, match=r"^sample 's001': the stream at resid_post\.2, position 8, is not finite"
    ):
        rows(replace(small, model=model).work(small.saes(layers=[2, 3]), Extract(), texts))
