"""Contract checks of sources and stages: the rows that they yield, and what these cost."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from toolkit.costs import Cost, Workload
from toolkit.parts import (
    Part,
    SourcePart,
    StagePart,
)
from toolkit.tables import arrow_schema, table
from toolkit.testing.fakes import TableInputs
from toolkit.testing.promises import must
from toolkit.work import Work


def check_source(part: SourcePart, work: Work) -> None:
    """Check the rows as for a stage, and that samples have spans inside their tokens, metadata
    belongs to samples, and the limit is respected.
    """
    rows = check_rows(part, part.run, part.writes, work)
    samples = rows.get("samples", arrow_schema("samples").empty_table()).to_pylist()
    for sample in samples:
        must(
            len(sample["token_ids"]) in (0, len(sample["pieces"])),
            part,
            f"{sample['sample']}: token_ids and pieces differ in length",
        )
        for span in sample["spans"]:
            inside = 0 <= span["start"] < span["end"] <= len(sample["pieces"])
            must(
                inside,
                part,
                f"{sample['sample']}: span '{span['name']}' is not a half-open range of its tokens",
            )
    known = {sample["sample"] for sample in samples}
    meta = (
        rows.get("sample_meta", arrow_schema("sample_meta").empty_table())
        .column("sample")
        .to_pylist()
    )
    must(
        set(meta) <= known,
        part,
        f"sample_meta names samples that do not exist: {sorted(set(meta) - known)[:3]}",
    )
    limited = _collect(part, part.run, part.writes, replace(work, limit_units=1))
    units = set(limited["samples"].column("unit").to_pylist()) if "samples" in limited else set()
    must(len(units) <= 1, part, f"it yields {len(units)} units with limit_units=1")


def check_stage(part: StagePart, work: Work, *, tolerance: float = 0.0) -> None:
    """Check that rows keep the tables' contract, that one batch and its two halves give the same
    rows if the stage can be split, and that more work costs no less.
    """
    check_cost(part, work.params)
    writes = part.tables(work.params)
    must(
        set(writes) <= set(part.writes),
        part,
        f"writes_for names {', '.join(writes)}; it may only name tables of `writes`: "
        f"{', '.join(part.writes)}",
    )
    whole = check_rows(part, part.run, writes, work)
    halves = _halves(part, work)
    if not halves:
        return
    results = [_collect(part, part.run, writes, half) for half in halves]
    for name in writes:
        expected = _by_key(name, [whole[name]] if name in whole else [])
        got = _by_key(name, [half[name] for half in results if name in half])
        must(
            _close(expected, got, tolerance),
            part,
            f"'{name}' differs between one batch and its two halves",
        )


def _halves(part: StagePart, work: Work) -> list[Work]:
    """Split the work into two steps over samples. Returns none for a part that is split in another
    way or not at all.
    """
    if part.steps.size is None or part.steps.features is not None:
        return []
    if "samples" not in work.inputs.tables():
        return []
    samples = work.inputs.read("samples")
    middle = samples.num_rows // 2
    return [_over(work, samples.slice(0, middle)), _over(work, samples.slice(middle))]


def check_cost(part: StagePart, params: Any) -> None:
    """Check that no cost is negative, and that four times as many samples cost at least as much."""
    if part.estimates.cost is None:
        return
    few, many = (part.estimates.cost(params, _load(times)) for times in (1, 4))
    must(
        isinstance(few, Cost) and isinstance(many, Cost),
        part,
        f"cost returned {type(few).__name__} instead of a Cost",
    )
    few_numbers, many_numbers = _numbers(few), _numbers(many)
    for name, number in few_numbers.items():
        larger = many_numbers.get(name, 0)
        must(
            0 <= number <= larger,
            part,
            f"its cost in {name} is {number} for few samples and {larger} for four times as many; "
            "it must not be negative or fall",
        )


def _numbers(cost: Cost) -> dict[str, float]:
    numbers = {name: value for name, value in vars(cost).items() if name != "totals"}
    return {**numbers, **cost.totals}


def _load(times: int) -> Workload:
    return Workload(
        samples=4 * times,
        distinct=2 * times,
        tokens=40 * times,
        longest=30,
        units=3 * times,
        rows=8 * times,
        entries=80 * times,
    )


def check_rows(
    part: Part, run: Callable[[Work], Any], writes: Sequence[str], work: Work
) -> dict[str, pa.Table]:
    """Check that only declared tables are yielded, with exactly their schemas and unique keys, and
    the same rows the second time. Returns the rows.
    """
    first, second = (_collect(part, run, writes, work) for _ in range(2))
    for name, rows in first.items():
        keys = [
            tuple(row[column] for column in table(name).key)
            for row in rows.select(list(table(name).key)).to_pylist()
        ]
        must(
            len(keys) == len(set(keys)),
            part,
            f"'{name}' has two rows with the same key ({', '.join(table(name).key)})",
        )
    same = {name: _by_key(name, [rows]) for name, rows in first.items()}
    repeated = {name: _by_key(name, [rows]) for name, rows in second.items()}
    must(
        _close(same, repeated, 0.0),
        part,
        "it yields different rows the second time; draw random numbers with work.rng(purpose, ...)",
    )
    return first


def _collect(
    part: Part, run: Callable[[Work], Any], writes: Sequence[str], work: Work
) -> dict[str, pa.Table]:
    results: dict[str, list[pa.Table]] = {}
    for name, rows in run(work):
        must(
            name in writes,
            part,
            f"it yields '{name}', which is not among its writes: {', '.join(writes)}",
        )
        schema = arrow_schema(name)
        must(
            isinstance(rows, pa.Table),
            part,
            f"the rows of '{name}' are a {type(rows).__name__} instead of a pyarrow Table",
        )
        must(
            rows.schema.equals(schema),
            part,
            f"the schema of '{name}' is not toolkit.tables.arrow_schema('{name}')",
        )
        for column in schema:
            must(
                column.nullable or not rows.column(column.name).null_count,
                part,
                f"'{name}.{column.name}' has nulls",
            )
        results.setdefault(name, []).append(rows)
    return {name: pa.concat_tables(tables) for name, tables in results.items()}


def _over(work: Work, samples: pa.Table) -> Work:
    tables = {name: work.inputs.read(name) for name in work.inputs.tables()}
    return replace(work, inputs=TableInputs({**tables, "samples": samples}))


def _by_key(name: str, tables: Iterable[pa.Table]) -> dict[str, Any]:
    """Rows by key: both halves may describe the same space, which is one row."""
    rows = (row for rows in tables for row in rows.to_pylist())
    return dict(
        sorted((json.dumps([row[column] for column in table(name).key]), row) for row in rows)
    )


def _close(left: Any, right: Any, tolerance: float) -> bool:
    if isinstance(left, float) and isinstance(right, float):
        both_nan = math.isnan(left) and math.isnan(right)
        return both_nan or math.isclose(left, right, rel_tol=tolerance, abs_tol=0.0)
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(
            _close(left[key], right[key], tolerance) for key in left
        )
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(
            _close(a, b, tolerance) for a, b in zip(left, right, strict=True)
        )
    return bool(left == right)
