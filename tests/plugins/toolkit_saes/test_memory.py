"""Extraction where memory is short: batches, then groups of SAEs, then the cheapest way; the rows
are those of a plain loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.plugins.toolkit_saes.conftest import Span
from tests.plugins.toolkit_saes.counted import CountedModel
from toolkit.errors import DataError
from toolkit.models.streams import Budget
from toolkit.saes import Sae, space_id
from toolkit_saes.extract import groups as _groups
from toolkit_saes.extract.costs import Prices, cheapest
from toolkit_saes.extract.groups import BatchEncoder
from toolkit_saes.extract.stage import Extract, extract


class Memory:
    """A device that holds so many SAEs, and so many padded tokens with them."""

    def __init__(
        self, saes: int = 99, tokens: int = 10**9, error: type[Exception] = torch.OutOfMemoryError
    ) -> None:
        self.saes, self.tokens, self.error = saes, tokens, error
        self.on_device: list[str] = []
        self.loads: list[str] = []
        self.most = 0

    def load(self, name: str) -> None:
        if name in self.on_device:
            return
        if len(self.on_device) >= self.saes:
            raise self.error("out of memory")
        self.on_device.append(name)
        self.loads.append(name)
        self.most = max(self.most, len(self.on_device))


class Scarce(Sae):
    """An SAE that takes room in the memory from its first use until it is released."""

    def __init__(self, sae: Any, memory: Memory, rows: int = 10**9) -> None:
        for name in ("name", "hookpoint", "release", "width", "inputs", "digest", "recipe"):
            setattr(self, name, getattr(sae, name))
        self._sae, self._memory, self._rows = sae, memory, rows

    def encode(self, rows: Any) -> Any:
        self._memory.load(self.name + self.hookpoint)
        if len(rows) > self._rows:
            raise self._memory.error("out of memory")
        return self._sae.encode(rows)

    def decode(self, activations: Any) -> Any:
        return self._sae.decode(activations)

    def decoder_rows(self, features: Sequence[int]) -> Any:
        return self._sae.decoder_rows(features)

    def release_memory(self) -> None:
        if self.name + self.hookpoint in self._memory.on_device:
            self._memory.on_device.remove(self.name + self.hookpoint)


class Tight(CountedModel):
    """A model with no room for more than some padded tokens, less for each SAE that is held;
    padding is not a number.
    """

    def __init__(self, model: Any, memory: Memory, each: int = 0) -> None:
        super().__init__(model)
        self._memory, self._each = memory, each

    def run(self, batch: Sequence[Sequence[int]], capture: Sequence[str], edits: Any = ()) -> Any:
        if len(batch) * max(map(len, batch)) > self._memory.tokens - self._each * len(
            self._memory.on_device
        ):
            raise self._memory.error("out of memory")
        results = {
            name: stream.clone() for name, stream in super().run(batch, capture, edits).items()
        }
        for stream in results.values():
            for row, ids in enumerate(batch):
                stream[row, len(ids) :] = float("nan")
        return results


def run(
    world: Any,
    saes: Sequence[Any],
    memory: Memory,
    texts: Any,
    each: int = 0,
    batch: Any = None,
    spans: Any = (),
    **params: Any,
) -> Any:
    """Rows by space, sample and position; the event that was reported; the model."""
    model = Tight(world.model, memory, each)
    work = replace(world, model=model).work(saes, Extract(**params), texts, spans)
    result: dict[Any, dict[int, float]] = {}
    for name, table in extract(replace(work, batch=batch or {})):
        for row in table.to_pylist() if name == "activations" else ():
            key = row["space"], row["sample"], row["position"]
            assert key not in result
            result[key] = dict(zip(row["features"], row["values"], strict=True))
    (message,) = (facts for name, facts in work.report.events if name == "extracted")
    assert work.report.steps[-1] == (len(texts), len(texts))
    assert [done for done, _ in work.report.steps] == sorted(done for done, _ in work.report.steps)
    return result, message, model


def plain(
    world: Any,
    saes: Sequence[Any],
    texts: Sequence[Sequence[int]],
    positions: Any,
    spans: Sequence[Any] = (),
) -> dict[Any, dict[int, float]]:
    """One text, one SAE and one position after the other."""
    results = {}
    for number, ids in enumerate(texts):
        streams = world.model.run([ids], sorted({sae.hookpoint for sae in saes}))
        for sae in saes:
            space = space_id(world.model.identity, sae)
            for position in positions(ids, *spans[number : number + 1]):
                dense = sae.encode(streams[sae.hookpoint][0][position : position + 1])[0]
                active = dense.nonzero()[:, 0]
                results[space, f"s{number:03d}", position] = dict(
                    zip(active.tolist(), dense[active].tolist(), strict=True)
                )
    return results


def alike(
    result: dict[Any, dict[int, float]],
    expected: dict[Any, dict[int, float]],
    saes: Sequence[Any],
    model: Any,
) -> None:
    """Equal but for the last bits; a feature may be in one only where its pre-activation stands at
    the threshold.
    """
    assert result.keys() == expected.keys()
    edges = {space_id(model.identity, sae): sae.weights(torch.empty(0)).threshold for sae in saes}
    for key, active in expected.items():
        here = result[key]
        for feature in active.keys() | here.keys():
            if feature in active and feature in here:
                assert here[feature] == pytest.approx(active[feature], rel=1e-3, abs=1e-3), (
                    key,
                    feature,
                )
            else:
                edge = edges[key[0]]
                value = active.get(feature, here.get(feature))
                assert value == pytest.approx(
                    float(edge[feature] if edge.ndim else edge), rel=1e-3, abs=1e-3
                ), (key, feature)


@pytest.fixture
def five(small: Any) -> list[Any]:
    """Five SAEs at four places."""
    return [*small.saes(layers="0-3"), *small.saes("gemma_scope", layers=2)][:5]


@pytest.fixture
def expected_rows(small: Any, five: list[Any]) -> dict[Any, dict[int, float]]:
    return plain(small, five, small.texts[:8], lambda ids: [len(ids) - 1])


ERRORS = [torch.OutOfMemoryError, MemoryError]


@pytest.mark.parametrize("error", ERRORS)
def test_batches_are_halved_until_they_fit(
    small: Any, five: list[Any], expected_rows: Any, error: type[Exception]
) -> None:
    longest = max(map(len, small.texts[:8]))
    memory = Memory(tokens=2 * longest + 1, error=error)
    result, message, model = run(small, five, memory, small.texts[:8])
    alike(result, expected_rows, five, small.model)
    assert message["halved"] >= 1
    assert message["passes"] == 1
    assert message["ways"] == []
    assert sorted(ids for batch in model.ran for ids in batch) == sorted(
        map(tuple, small.texts[:8])
    )


@pytest.mark.parametrize("way", ["stream", "spill", "rerun"])
@pytest.mark.parametrize("room", [1, 3])
def test_saes_that_do_not_fit_together_go_group_by_group(
    small: Any,
    five: list[Any],
    expected_rows: Any,
    way: str,
    room: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_groups, "cheapest", lambda prices: way)
    memory = Memory(saes=room)
    saes = [Scarce(sae, memory) for sae in five]
    result, message, model = run(small, saes, memory, small.texts[:8], tokens=40)
    alike(result, expected_rows, five, small.model)
    assert memory.most <= room
    assert message["ways"] == [way]
    assert message["saes_together"] == room
    groups = -(-5 // room)
    assert message["passes"] == (groups if way == "rerun" else 1)
    ran = len([ids for batch in model.ran for ids in batch])
    assert ran == 8 if way != "rerun" else ran > 8


def test_a_plan_that_knows_goes_by_groups_at_once(
    small: Any, five: list[Any], expected_rows: Any
) -> None:
    memory = Memory(saes=2)
    saes = [Scarce(sae, memory) for sae in five]
    result, message, _ = run(
        small, saes, memory, small.texts[:8], batch={"tokens": 60, "together": 2}
    )
    alike(result, expected_rows, five, small.model)
    assert (message["halved"], message["saes_together"], message["tokens"]) == (0, 2, 60)


def test_saes_left_by_an_earlier_step_make_room(
    small: Any, five: list[Any], expected_rows: Any
) -> None:
    memory = Memory(saes=1)
    saes = [Scarce(sae, memory) for sae in five]
    saes[3].encode(torch.zeros(1, saes[3].inputs))
    result, _, _ = run(small, saes, memory, small.texts[:8])
    alike(result, expected_rows, five, small.model)


def test_saes_make_room_for_a_text_that_is_alone(
    small: Any, five: list[Any], expected_rows: Any
) -> None:
    """Each SAE takes the room of 20 tokens: with all five held the longest text would not fit."""
    longest = max(map(len, small.texts[:8]))
    memory = Memory(tokens=longest + 45)
    saes = [Scarce(sae, memory) for sae in five]
    result, message, _ = run(small, saes, memory, small.texts[:8], each=20, tokens=longest)
    alike(result, expected_rows, five, small.model)
    assert message["saes_together"] < 5


def test_an_sae_takes_fewer_rows_at_a_time(small: Any, five: list[Any]) -> None:
    memory = Memory(saes=1)
    texts = small.texts[:3]
    result, message, _ = run(small, [Scarce(five[0], memory, rows=3)], memory, texts, at="all")
    alike(result, plain(small, five[:1], texts, lambda ids: range(1, len(ids))), five, small.model)
    assert message["rows_at_once"] <= 3


def test_what_never_fits_is_an_error(small: Any, five: list[Any]) -> None:
    with pytest.raises(
        DataError,
        match=r"SAE \S+ .* does not fit in memory with the model, even alone and a row at a time",
    ):
        run(small, [Scarce(five[0], Memory(saes=0))], Memory(), small.texts[:2])
    with pytest.raises(
        DataError,
        match=r"sample 's00\d': its \d+ tokens alone do not fit in memory with the model",
    ):
        run(small, five, Memory(tokens=3), small.texts[:2])


def test_other_errors_are_not_taken_for_memory(small: Any, five: list[Any]) -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        run(small, five, Memory(tokens=3, error=RuntimeError), small.texts[:2])


@pytest.mark.parametrize(
    ("prices", "way"),
    [
        (Prices(batches=1, groups=3, flops=1e15, sae_bytes=1e10, spilled=1e9), "stream"),
        (Prices(batches=50, groups=3, flops=1e15, sae_bytes=1e10, spilled=1e9), "spill"),
        (Prices(batches=50, groups=2, flops=1e10, sae_bytes=1e10, spilled=1e9), "rerun"),
    ],
)
def test_the_cheapest_way(prices: Prices, way: str) -> None:
    assert cheapest(prices) == way


@pytest.mark.parametrize(("device", "way"), [("cpu", "spill"), ("cuda", "rerun")])
def test_another_pass_is_priced_by_device_and_by_the_blocks_that_are_used(
    device: str, way: str
) -> None:
    model: Any = SimpleNamespace(
        layers=32,
        width=4096,
        device=torch.device(device),
        identity=SimpleNamespace(facts={"block_parameters": 7e9}),
    )
    saes: Any = [
        SimpleNamespace(hookpoint=f"resid_post.{layer}", inputs=4096, width=32768)
        for layer in range(0, 16)
    ]
    texts: Any = [SimpleNamespace(ids=range(400), positions=range(400))] * 1000
    prices = BatchEncoder(model, saes, Budget(tokens=8192), together=8)._prices(texts)
    assert prices.flops == 2 * 7e9 * 16 / 32 * 400_000
    assert cheapest(prices) == way


SPANS = ["balance", "history", "history", "generation"]


def _spans(number: int, length: int) -> list[Span]:
    """Spans that stand elsewhere in each sample, also in those of one text; the last tokens are
    what the model wrote.
    """
    results = [
        (1 + number % 3, 3 + number % 2),
        (2, 4),
        (6 + number % 2, 9),
        (length - 2 - number % 2, length),
    ]
    return [
        (name, start, min(end, length))
        for name, (start, end) in zip(SPANS, results, strict=True)
        if start < length
    ]


def _in(spans: Sequence[Span], *names: str) -> set[int]:
    return {
        position for name, start, end in spans if name in names for position in range(start, end)
    }


def _is(ids: Sequence[int], rest: int) -> set[int]:
    return {position for position, token in enumerate(ids) if token % 3 == rest}


def _all(ids: Sequence[int]) -> set[int]:
    return set(range(1, len(ids)))


THIRDS = [tuple(range(rest, 1500, 3)) for rest in range(3)]
MODES: dict[str, tuple[Any, Any]] = {
    "last": ("last", lambda ids, spans: {len(ids) - 1}),
    "all": ("all", lambda ids, spans: _all(ids)),
    "window": ({"window": (2, -3)}, lambda ids, spans: set(range(2, len(ids) - 3))),
    "end": ({"window": (-4, None)}, lambda ids, spans: set(range(max(1, len(ids) - 4), len(ids)))),
    "positions": (
        {"positions": (2, 5), "take": "last"},
        lambda ids, spans: {5} if len(ids) > 5 else {2},
    ),
    "bos": (
        {"positions": (0, -2), "exclude": {"bos": False}},
        lambda ids, spans: {0, len(ids) - 2},
    ),
    "span": ({"span": "balance"}, lambda ids, spans: _in(spans, "balance")),
    "two spans": (
        {"span": "history", "take": "last"},
        lambda ids, spans: {max(_in(spans, "history"))},
    ),
    "prompt": ({"phase": "prompt"}, lambda ids, spans: _all(ids) - _in(spans, "generation")),
    "generation": ({"phase": "generation"}, lambda ids, spans: _in(spans, "generation")),
    "first word": (
        {"phase": "generation", "take": "first"},
        lambda ids, spans: {min(_in(spans, "generation"))},
    ),
    "ids": ({"tokens": THIRDS[0]}, lambda ids, spans: _is(ids, 0) & _all(ids)),
    "words": ({"tokens": tuple(map(str, THIRDS[1]))}, lambda ids, spans: _is(ids, 1) & _all(ids)),
    "exclude": (
        {"window": (-6, None), "exclude": {"span": "history"}},
        lambda ids, spans: set(range(max(1, len(ids) - 6), len(ids))) - _in(spans, "history"),
    ),
    "without words": (
        {"exclude": {"tokens": THIRDS[2]}},
        lambda ids, spans: _all(ids) - _is(ids, 2),
    ),
    "all of it": (
        {"phase": "prompt", "span": "history", "window": (1, 8), "exclude": {"positions": (3,)}},
        lambda ids, spans: (
            (_in(spans, "history") & set(range(1, 8))) - _in(spans, "generation") - {3}
        ),
    ),
    "list": (
        [
            {"take": "last"},
            {"span": "balance"},
            {"phase": "generation", "take": "first"},
            {"positions": (3,)},
        ],
        lambda ids, spans: {len(ids) - 1, 3, min(_in(spans, "generation"))} | _in(spans, "balance"),
    ),
}


@dataclass(frozen=True)
class Case:
    """Texts by number and length, and how they are run."""

    picked: Sequence[tuple[int, int]]
    tokens: int
    together: int
    room: int
    way: str


CASES = st.builds(
    Case,
    picked=st.lists(st.tuples(st.integers(0, 5), st.integers(5, 12)), min_size=1, max_size=8),
    tokens=st.integers(1, 300),
    together=st.integers(1, 5),
    room=st.integers(1, 5),
    way=st.sampled_from(["stream", "spill", "rerun"]),
)


def _examples(most: int) -> Any:
    """Shrinking would take long, and an example says enough."""
    phases = [Phase.explicit, Phase.reuse, Phase.generate]
    return settings(
        max_examples=most,
        deadline=None,
        phases=phases,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )


def _as_a_plain_loop(small: Any, five: list[Any], mode: str, case: Case) -> None:
    """The first text comes again at the end, with other spans."""
    selector, positions = MODES[mode]
    texts = [
        small.texts[0],
        *(small.texts[index][:length] for index, length in case.picked),
        small.texts[0],
    ]
    spans = [_spans(number, len(ids)) for number, ids in enumerate(texts)]
    memory = Memory(saes=case.room)
    saes = [Scarce(sae, memory) for sae in five]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_groups, "cheapest", lambda prices: case.way)
        params = {
            "at": selector,
            "tokens": case.tokens,
            "batch": {"together": case.together},
            "spans": spans,
        }
        result, _, _ = run(small, saes, memory, texts, **params)
    alike(result, plain(small, five, texts, positions, spans), five, small.model)
    assert result


@pytest.mark.parametrize("mode", MODES)
@_examples(2)
@given(case=CASES)
def test_any_batch_grouping_and_way_gives_the_plain_loops_rows(
    small: Any, five: list[Any], mode: str, case: Case
) -> None:
    _as_a_plain_loop(small, five, mode, case)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@_examples(20)
@given(case=CASES)
def test_so_do_many_more(small: Any, five: list[Any], mode: str, case: Case) -> None:
    _as_a_plain_loop(small, five, mode, case)


def test_samples_of_one_text_may_ask_for_different_tokens(small: Any) -> None:
    """Spans stand elsewhere in the second sample: one text, one pass, each sample's own rows."""
    from toolkit.testing.fakes import make_work
    from toolkit.work import Work

    work: Work = small.work(
        small.saes(layers=1), Extract(at={"span": "balance"}), [small.texts[0], small.texts[0]]
    )
    rows = work.inputs.read("samples").to_pylist()
    rows[0]["spans"], rows[1]["spans"] = (
        [{"name": "balance", "start": 2, "end": 4}],
        [{"name": "balance", "start": 3, "end": 6}],
    )
    table = pa.Table.from_pylist(rows, schema=work.inputs.read("samples").schema)
    model = Tight(small.model, Memory())
    made = make_work(work.params, {"samples": table}, model=model, saes=work.saes)
    results = [
        row for name, part in extract(made) if name == "activations" for row in part.to_pylist()
    ]
    assert [(row["sample"], row["position"]) for row in results] == [
        ("s000", 2), ("s000", 3), ("s001", 3), ("s001", 4), ("s001", 5)
    ]  # fmt: skip
    expected = plain(small, work.saes, [small.texts[0]], lambda ids: [3])
    assert results[1]["features"] == results[2]["features"] == list(next(iter(expected.values())))
    assert len(model.ran) == 1
