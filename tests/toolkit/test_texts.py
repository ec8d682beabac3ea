"""Samples of equal tokens share a step; a batch plan is made once; what the disk cannot hold is
refused.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit._plan.costs import Loads, as_row, total_of
from toolkit._plan.texts import (
    LARGEST,
    by_text,
    by_unit,
    text_ranges,
    unit_ranges,
    workload,
)
from toolkit._run import disk as _disk
from toolkit._run.batch_plans import BatchPlans
from toolkit._run.disk import check_disk
from toolkit._run.events import BatchPlan
from toolkit.costs import Cost, Workload
from toolkit.errors import Refused
from toolkit.parts import Estimates, SourcePart, StagePart, Steps
from toolkit.tables import arrow_schema
from toolkit_store import local_part


def samples(texts: list[list[int]]) -> pa.Table:
    blank: dict[str, Any] = {
        "unit": "u",
        "cluster": "",
        "text": "",
        "pieces": [],
        "spans": [],
        "prompt_hash": "",
    }
    rows = [
        {"sample": f"s{index:04d}", "token_ids": ids, **blank} for index, ids in enumerate(texts)
    ]
    return pa.Table.from_pylist(rows, schema=arrow_schema("samples"))


TEXTS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=3), max_size=60)


@given(TEXTS, st.integers(1, 9))
def test_ranges_cover_all_and_part_equal_texts_only_where_they_are_too_many(
    texts: list[list[int]], size: int
) -> None:
    ordered = by_text(samples(texts))
    ids = ordered["token_ids"].to_pylist()
    assert ids == sorted(texts, key=lambda ids_of_text: (len(ids_of_text), ids_of_text))
    ranges = text_ranges(ordered, size)
    assert [index for start, end in ranges for index in range(start, end)] == list(
        range(len(texts))
    )
    for start, end in ranges[:-1]:
        assert size <= end - start <= LARGEST * size
        assert ids[end] != ids[end - 1] or end - start == LARGEST * size


def test_the_order_is_by_tokens_and_not_by_bytes_of_this_machine() -> None:
    result = by_text(samples([[256], [1], [255], [2]]))["token_ids"].to_pylist()
    assert result == [[1], [2], [255], [256]]


@given(st.lists(st.integers(0, 9), max_size=40), st.integers(1, 9))
def test_ranges_hold_whole_units(units: list[int], size: int) -> None:
    table = samples([[1]] * len(units))
    named = table.set_column(
        table.schema.get_field_index("unit"), "unit", pa.array([f"u{unit}" for unit in units])
    )
    ordered = by_unit(named)["unit"].to_pylist()
    ranges = unit_ranges(by_unit(named), size)
    assert [index for start, end in ranges for index in range(start, end)] == list(
        range(len(units))
    )
    for start, end in ranges[:-1]:
        assert end - start >= size
        assert ordered[end] != ordered[end - 1]
        of_last = ordered[start:end].count(ordered[end - 1])
        assert end - start - of_last < size  # it ends with the unit that made it large enough


def test_a_slice_of_samples_is_read_as_it_stands() -> None:
    whole = samples([[1, 2], [3], [3], [4, 5, 6]])
    load = workload(whole.slice(1, 3), None, None)
    assert (load.samples, load.distinct, load.tokens, load.longest) == (3, 2, 4, 3)
    assert by_text(whole.slice(1, 3))["sample"].to_pylist() == ["s0001", "s0002", "s0003"]


def stage(**changes: Any) -> Any:
    part = part_of(batch_plan=lambda params, load, free, device: {"tokens": free})
    settings = {
        "id": "features",
        "part": part,
        "params": None,
        "model": None,
        "needs": (),
        "model_replaced": False,
        "files": None,
        "limit": None,
    }
    return SimpleNamespace(**{**settings, **changes})


def test_a_batch_plan_is_made_once_for_a_run(tmp_path: Path) -> None:
    asked: list[bool] = []

    def memory(on_cpu: bool) -> tuple[str, int]:
        asked.append(on_cpu)
        return "cuda", 1000 * len(asked)

    load = Workload(samples=1, distinct=1, tokens=1, longest=1)
    plans = BatchPlans(tmp_path)
    assert plans.fix(stage(), memory) is None, "nothing is known of its work"
    plans.expect(stage(), load)
    chosen = BatchPlan(stage="features", device="cuda", free=1000, plan={"tokens": 900})
    assert plans.fix(stage(), memory) == chosen
    assert plans.fix(stage(), memory) is None
    again = BatchPlans(tmp_path)
    again.expect(stage(), load)
    assert again.fix(stage(), memory) is None
    assert again.of(stage()) == plans.of(stage()) == {"tokens": 900}
    assert again.of(stage(id="other")) == {}
    on_cpu = SimpleNamespace(part=SimpleNamespace(device=lambda params: "cpu"), params=None)
    other = stage(id="other", model=on_cpu)
    again.expect(other, load)
    again.fix(other, memory)
    assert asked == [False, True]
    assert json.loads((tmp_path / "batches.json").read_text()) == {
        "features": {"tokens": 900},
        "other": {"tokens": 1800},
    }


def test_what_the_disk_cannot_hold_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_disk.shutil, "disk_usage", lambda path: SimpleNamespace(free=5 << 30))
    sink = SimpleNamespace(
        name="dense",
        params=SimpleNamespace(path="out"),
        part=SimpleNamespace(
            disk=lambda params, cost: cost.totals.get("dense_bytes", 0),
            disk_advice="Leave out `dense`.",
        ),
    )
    plan: Any = SimpleNamespace(sinks=[sink], loaded=SimpleNamespace(path=tmp_path / "x.yaml"))
    some = [
        Cost(totals={"dense_bytes": 2 << 30}, disk=1 << 30),
        Cost(totals={"dense_bytes": 2 << 30}),
    ]
    check_disk(plan, some, some, tmp_path / "new" / "store")
    with pytest.raises(
        Refused,
        match=r"sink 'dense' would take about 6 GiB in .*out, and 5 GiB are free there\. Leave out",
    ):
        check_disk(plan, [], [Cost(totals={"dense_bytes": 6 << 30})], tmp_path)
    with pytest.raises(Refused, match=r"the store would take about 6 GiB"):
        check_disk(plan, [Cost(disk=3 << 30), Cost(disk=3 << 30)], [], tmp_path)
    check_disk(plan, [Cost(disk=6 << 30)], [], tmp_path / local_part("s3://bucket/store"))
    check_disk(plan, [], [Cost(disk=6 << 30)], tmp_path)  # all of it is there
    assert Refused.exit_code == 4


def part_of(run: Any = None, **fields: Any) -> StagePart:
    """A part whose step and estimate fields are given."""
    steps = {name: fields.pop(name) for name in ("sample_limit", "units") if name in fields}
    names = ("cost", "max_rows", "batch_plan")
    estimates = {name: fields.pop(name) for name in names if name in fields}
    return StagePart(
        name="x",
        help="x",
        run=run,
        steps=Steps(**steps),
        estimates=Estimates(**estimates),
        **{"reads": ("samples",), "writes": (), **fields},
    )


def plan_of(*stages: Any) -> Any:
    return SimpleNamespace(stage=lambda id: next(stage for stage in stages if stage.id == id))


def source_of(most: Any) -> SourcePart:
    return SourcePart(
        name="s", help="s", run=lambda work: iter(()), estimates=Estimates(max_rows=most)
    )


def test_bounds_come_from_the_source() -> None:
    none = {"saes": None, "units": lambda: None}
    played = part_of(
        max_rows=lambda params, made: {"games": made["units"], "rounds": 7 * made["units"]},
        writes=("games", "rounds"),
        reads=(),
    )
    play = stage(id="play", part=played, saes=None, units=lambda: 12)
    source = stage(
        id="samples",
        part=source_of(lambda params, made: {"samples": made["rounds"]}),
        needs=("play",),
        **none,
    )
    loads = Loads(plan_of(play, source), lambda stage: None)
    load = loads.of(stage(needs=("samples",), part=part_of(), **none))
    assert load is not None
    assert (load.samples, load.distinct, load.exact) == (84, 84, False)
    first = loads.of(stage(needs=("samples",), part=part_of(sample_limit=5), **none))
    assert first is not None
    assert first.samples == 5
    workload = loads.of(play)
    assert workload is not None
    assert (workload.units, workload.samples) == (12, 0)
    assert loads.of(stage(needs=("play",), part=part_of(), **none)) is None
    blind = stage(id="samples", part=source_of(None), **none)
    assert (
        Loads(plan_of(blind), lambda stage: None).of(
            stage(needs=("samples",), part=part_of(), **none)
        )
        is None
    )


def test_a_stage_is_told_of_the_activations_that_it_reads() -> None:
    """How many there are, and of which SAEs; and the samples count as they are where they are
    there.
    """
    none = {"saes": None, "units": lambda: None}
    source = stage(id="samples", part=source_of(lambda params, made: {"samples": 40}), **none)
    price = lambda params, load: Cost(rows=2 * load.distinct, entries=10 * load.distinct)  # noqa: E731
    saes = SimpleNamespace(identity=SimpleNamespace(facts={"count": 2, "features": 64}))
    extracting = part_of(cost=price, writes=("activations", "spaces"))
    features = stage(id="features", part=extracting, needs=("samples",), **{**none, "saes": saes})
    test = stage(
        id="groups",
        part=part_of(reads=("samples", "activations")),
        needs=("samples", "features"),
        **none,
    )
    baseline = stage(
        id="probe", part=part_of(optional=("activations",)), needs=("samples", "features"), **none
    )
    plan = plan_of(source, features, test)
    for reader in (test, baseline):
        load = Loads(plan, lambda stage: None).of(reader)
        assert load is not None
        assert (load.samples, load.rows, load.entries, load.saes) == (
            40,
            80,
            400,
            {"count": 2, "features": 64},
        )
    reader = stage(
        id="probe",
        part=part_of(),
        needs=("samples", "features"),
        **{**none, "model_replaced": True},
    )
    assert [
        Loads(plan, lambda stage: None).of(each_stage).model_replaced
        for each_stage in (test, reader)
    ] == [
        False,
        True,
    ]
    there = samples([[1, 2], [1, 2], [3]])
    load = Loads(plan, lambda stage: there).of(test)
    assert load is not None
    assert (load.samples, load.distinct, load.rows, load.entries, load.exact) == (3, 2, 4, 20, True)
    row = as_row(features, Loads(plan, lambda stage: there).of(features))
    assert row is not None
    assert (row["known"], row["exact"]) == (True, True)
    unfetched = stage(
        id="features",
        part=extracting,
        saes=SimpleNamespace(identity=SimpleNamespace(facts={})),
        needs=("samples",),
    )
    unfetched.units = none["units"]
    row = as_row(unfetched, Loads(plan, lambda stage: there).of(unfetched))
    assert row is not None
    assert not row["known"]


def test_costs_add_up_and_memory_is_the_peak() -> None:
    first, second = (
        Cost(forwards=2, flops=1.0, memory=5, disk=1),
        Cost(forwards=1, flops=2.0, memory=3, read=4, exact=False),
    )
    assert first + second == Cost(forwards=3, flops=3.0, memory=5, disk=1, read=4, exact=False)
    assert total_of([None, {**first.__dict__, "known": True}]) == first
    assert replace(first, totals={"a": 1}) + Cost() == replace(first, totals={"a": 1})
