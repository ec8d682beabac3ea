"""`trace.summary`: each hop of traced paths over all prompts.

A hop has the mean strength and the mean effect by unit, 0 where a feature is inactive, with the
effect's interval, p and q over the hops of all paths.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.errors import DataError
from toolkit.statistics.arrays import finite_or_none
from toolkit.statistics.corrections import q_values
from toolkit.tables import arrow_schema
from toolkit_tokens.statistics import (
    MIN_UNITS,
    mean,
    sign_flip_p,
)

from .hops import CONFIRMED, INACTIVE, NOTHING, REFUTED

if TYPE_CHECKING:
    from toolkit.work import Rows, Work

    from .params import SummarisePaths

ALL = "*"
"""The sample id of rows that summarise all samples."""


def summarise(work: Work) -> Rows:
    """Rows of `paths` whose sample is `*`."""
    import pyarrow as pa

    params: SummarisePaths = work.params
    units = {row["sample"]: row["unit"] for row in work.inputs.read("samples").to_pylist()}
    hops: dict[tuple[str, int], list[Mapping[str, Any]]] = defaultdict(list)
    for row in work.inputs.read("paths").to_pylist():
        if row["sample"] not in units:
            raise DataError(
                f"trace.summary: the paths have sample '{row['sample']}', which the samples of "
                "this stage do not have. Give both stages the same `samples`."
            )
        hops[row["path"], row["hop"]].append(row)
    rows = [_summary_row(work, hop_rows, units) for _, hop_rows in sorted(hops.items())]
    for row, q in zip(rows, q_values([row["p"] for row in rows]), strict=True):
        row["q"] = q
        row["verdict"] = _verdict(row, params)
    yield "paths", pa.Table.from_pylist(rows, schema=arrow_schema("paths"))


def _summary_row(
    work: Work, rows: Sequence[Mapping[str, Any]], units: Mapping[str, str]
) -> dict[str, Any]:
    import numpy as np

    strengths: dict[str, list[float]] = defaultdict(list)
    effects: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        unit = units[row["sample"]]
        strengths[unit].append(row["strength"] or 0.0)
        effects[unit].append(row["effect"] or 0.0)
    first_row = rows[0]
    name = first_row["path"], first_row["hop"]
    by_unit = np.array([np.mean(values) for values in effects.values()])
    effect, low, high = mean(by_unit, work.rng("trace.mean", *name))
    is_active = any(row["verdict"] != INACTIVE for row in rows)
    has_p = is_active and len(by_unit) >= MIN_UNITS
    return {
        **first_row,
        "sample": ALL,
        "position": None,
        "strength": float(np.mean([np.mean(values) for values in strengths.values()])),
        "parts": None,
        "whole": None,
        "effect": effect,
        "low": finite_or_none(low),
        "high": finite_or_none(high),
        "p": sign_flip_p(by_unit, work.rng("trace.p", *name)) if has_p else None,
        "units": len(by_unit),
        "verdict": "" if is_active else INACTIVE,
    }


def _verdict(row: Mapping[str, Any], params: SummarisePaths) -> str:
    """The verdict over all prompts: by q where there is one, else by the interval."""
    if row["verdict"] == INACTIVE:
        return INACTIVE
    if abs(row["effect"]) < params.min_effect:
        return NOTHING if abs(row["strength"]) < params.min_effect else REFUTED
    if (row["effect"] > 0) != (row["strength"] > 0):
        return REFUTED
    if row["q"] is not None:
        return CONFIRMED if row["q"] <= params.alpha else "not significant"
    if row["low"] is None:
        return f"{CONFIRMED}, one unit"
    return CONFIRMED if row["low"] * row["high"] > 0 else "interval holds 0"
