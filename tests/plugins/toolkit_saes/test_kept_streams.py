"""`extract.activations` with `stream`: the raw stream at the places of the SAEs, each row once,
from the pass that feeds the SAEs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.plugins.toolkit_saes.test_extract import PART, CountedModel, tables
from tests.plugins.toolkit_saes.test_memory import Memory, Scarce, Tight
from toolkit.errors import DataError
from toolkit.models.streams import Pass, Text
from toolkit.parts import StagePart
from toolkit.saes import raw_space_row
from toolkit.samples.selectors import Selector
from toolkit.testing.contracts import check_part
from toolkit_saes.extract import streams as _streams
from toolkit_saes.extract.stage import Extract, extract
from toolkit_saes.extract.streams import StreamRecorder


def stream_rows(work: Any) -> dict[tuple[str, str, int], list[float]]:
    """The rows of table `streams` by place, sample and position; their spaces are those of the
    stream itself.
    """
    results = {}
    for name, table in extract(work):
        for row in table.to_pylist() if name == "streams" else ():
            key = row["hookpoint"], row["sample"], row["position"]
            assert key not in results
            assert (
                row["space"]
                == raw_space_row(work.model.identity, row["hookpoint"], len(row["values"]))["space"]
            )
            results[key] = row["values"]
    return results


def by_hand(
    world: Any, saes: Sequence[Any], texts: Sequence[Sequence[int]], positions: Any
) -> dict[Any, Any]:
    """One text and one place after the other."""
    results = {}
    for place in {sae.hookpoint for sae in saes}:
        for number, ids in enumerate(texts):
            stream = world.model.run([ids], [place])[place][0]
            results |= {
                (place, f"s{number:03d}", index): stream[index].tolist() for index in positions(ids)
            }
    return results


def alike(result: dict[Any, Any], expected: dict[Any, Any]) -> None:
    assert result.keys() == expected.keys()
    for key, row in expected.items():
        np.testing.assert_allclose(result[key], row, rtol=1e-4, atol=1e-4, err_msg=str(key))


def test_without_it_nothing_is_kept(small: Any) -> None:
    assert isinstance(PART, StagePart)
    assert PART.tables(Extract()) == ("activations", "spaces")
    assert PART.tables(Extract(stream="last")) == ("activations", "spaces", "streams")
    assert set(tables(small.work(small.saes(layers=1), Extract(), small.texts[:3]))) == {
        "activations",
        "spaces",
    }


@pytest.mark.parametrize(
    ("at", "stream"),
    [("last", "last"), ("all", "last"), ("all", "all"), ("all", Selector(positions=(2, -1)))],
)
def test_what_is_kept_is_the_stream_of_a_plain_loop(small: Any, at: Any, stream: Any) -> None:
    saes = [*small.saes(layers=[0, 2]), *small.saes("gemma_scope", layers=2)]
    texts = [*(ids[:20] for ids in small.texts[:5]), small.texts[1][:20]]
    chosen = {"last": lambda ids: [len(ids) - 1], "all": lambda ids: range(1, len(ids))}
    positions = chosen.get(stream if isinstance(stream, str) else "", lambda ids: [2, len(ids) - 1])
    alike(
        stream_rows(small.work(saes, Extract(at=at, stream=stream, tokens=50), texts)),
        by_hand(small, saes, texts, positions),
    )


def test_no_pass_is_made_for_it_and_no_feature_changes(small: Any) -> None:
    texts = [ids[:20] for ids in small.texts[:5]]
    model = CountedModel(small.model)
    alone, both = (
        tables(
            replace(small, model=model).work(
                small.saes(layers="0-2"), Extract(stream=stream), texts
            )
        )
        for stream in (None, "last")
    )
    assert len(model.ran) == 2
    assert alone["activations"].equals(both["activations"])
    assert alone["spaces"].equals(both["spaces"])


def test_the_contract_and_that_splitting_changes_nothing(small: Any) -> None:
    work = small.work(
        small.saes(layers="1-2"), None, [ids[:20] for ids in (*small.texts[:4], small.texts[1])]
    )
    check_part(
        PART, params={"at": "all", "stream": "last", "tokens": 60}, work=work, tolerance=1e-4
    )


@pytest.mark.parametrize("way", ["stream", "spill", "rerun"])
def test_each_row_comes_once_whichever_way_short_memory_takes(
    small: Any, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two SAEs read one place: a pass for the second shows a stream that is kept already, in
    batches of another size.
    """
    monkeypatch.setattr("toolkit_saes.extract.groups.cheapest", lambda prices: way)
    memory = Memory(saes=1, tokens=90)
    saes = [
        Scarce(sae, memory)
        for sae in (*small.saes(layers=[0, 2]), *small.saes("gemma_scope", layers=2))
    ]
    texts = [ids[:12] for ids in small.texts[:8]]
    model = Tight(small.model, memory, each=20)
    work = replace(small, model=model).work(saes, Extract(stream="last", tokens=200), texts)
    alike(
        stream_rows(replace(work, batch={"together": 2})),
        by_hand(small, saes, texts, lambda ids: [len(ids) - 1]),
    )


def test_a_text_that_another_pass_shows_again_is_not_kept_again(small: Any) -> None:
    first, second, third = (Text((number, 9), (f"s{number}",), (1,)) for number in range(3))
    result = StreamRecorder(small.model, {"s0": (1,), "s1": (1,), "s2": (1,)})
    for texts in ((first, second), (second, third), (second,)):
        result.take(
            Pass(texts, {"resid_post.0": torch.tensor([[float(text.ids[0])] for text in texts])})
        )
    result.take(Pass((second,), {"resid_post.1": torch.tensor([[7.0]])}))
    rows = [
        (row["hookpoint"], row["sample"], row["values"])
        for _, table in result.rows()
        for row in table.to_pylist()
    ]
    expected = [(f"s{number}", [float(number)]) for number in range(3)]
    assert rows == [*(("resid_post.0", *row) for row in expected), ("resid_post.1", "s1", [7.0])]
    assert list(result.rows()) == []


def test_rows_are_cut_into_tables_of_a_bounded_size(
    small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    saes, texts = small.saes(layers=1), [ids[:20] for ids in small.texts[:5]]
    whole = stream_rows(small.work(saes, Extract(at="all", stream="all"), texts))
    monkeypatch.setattr(_streams, "NUMBERS", 3 * small.model.width)
    results = [
        rows
        for name, rows in extract(small.work(saes, Extract(at="all", stream="all"), texts))
        if name == "streams"
    ]
    assert max(map(len, results)) == 3
    assert stream_rows(small.work(saes, Extract(at="all", stream="all"), texts)) == whole


def test_bfloat16_is_kept_exactly(small: Any) -> None:
    class Half(CountedModel):
        def run(self, *asked: Any, **how: Any) -> Any:
            return {
                name: stream.to(torch.bfloat16)
                for name, stream in super().run(*asked, **how).items()
            }

    saes, texts = small.saes(layers=1), [ids[:20] for ids in small.texts[:2]]
    for row in stream_rows(
        replace(small, model=Half(small.model)).work(saes, Extract(stream="last"), texts)
    ).values():
        assert torch.tensor(row).to(torch.bfloat16).float().tolist() == row


def test_what_nobody_looks_at_cannot_be_kept(small: Any) -> None:
    with pytest.raises(
        DataError,
        match=r"stream: sample 's000': position 1 is not among those that `at` "
        r"looks "
        r"at. "
        r"Widen `at`",
    ):
        stream_rows(
            small.work(small.saes(layers=1), Extract(at="last", stream="all"), [small.texts[0][:5]])
        )
