"""Expand a stage whose inputs are committed into its steps, with their keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit._plan.keys import canonical, digest_of, key_of
from toolkit._plan.plan import Stage, Step, is_source
from toolkit._plan.texts import text_ranges, unit_ranges
from toolkit.ledger import StepRow

if TYPE_CHECKING:
    import pyarrow as pa


def expand(
    stage: Stage, inputs: Mapping[str, Sequence[StepRow]], samples: pa.Table | None
) -> list[Step]:
    """The steps of a stage whose needs have committed. `inputs` are their ledger rows by stage,
    `samples` the samples in the stage's order.
    """
    size, units, sample_limit = stage.split_size(), stage.units(), stage.part.steps.sample_limit
    others = sorted(row.key for need, rows in inputs.items() if not is_source(need) for row in rows)
    if (features := stage.features()) is not None:
        every = sorted(row.key for rows in inputs.values() for row in rows)
        return [
            _step(stage, i, {"features": list(pair), "steps": every}, pair)
            for i, pair in enumerate(_ranges(features, size or features))
        ]
    if units is not None:
        ranges = _ranges(units, size or units)
        return [
            _step(stage, i, {"units": list(pair), "steps": others}, pair)
            for i, pair in enumerate(ranges)
        ]
    if samples is None or not stage.over_samples():
        return [
            _step(stage, 0, {"steps": sorted(row.key for rows in inputs.values() for row in rows)})
        ]
    if "sample_meta" in stage.part.reads:  # rows of samples do not have their metadata
        others = sorted(row.key for rows in inputs.values() for row in rows)
    count = len(samples) if sample_limit is None else min(sample_limit, len(samples))
    ranges = _sample_ranges(stage, samples, count)
    rows = [digest_of(samples.slice(start, end - start)) for start, end in ranges]
    return [
        _step(stage, i, {"rows": rows[i], "steps": others}, pair) for i, pair in enumerate(ranges)
    ]


def _sample_ranges(stage: Stage, samples: pa.Table, count: int) -> list[tuple[int, int]]:
    steps, size = stage.part.steps, stage.split_size() or count
    if steps.group_equal_texts:
        return text_ranges(samples, size)
    return unit_ranges(samples, size) if steps.whole_units else _ranges(count, size)


def _ranges(count: int, size: int) -> list[tuple[int, int]]:
    return [(start, min(start + size, count)) for start in range(0, count, max(size, 1))]


def _step(
    stage: Stage,
    index: int,
    inputs: dict[str, Any],
    span: tuple[int | None, int | None] = (None, None),
) -> Step:
    material = canonical({**stage.material(), "inputs": inputs})
    return Step(stage, index, key_of(material), material, *span)
