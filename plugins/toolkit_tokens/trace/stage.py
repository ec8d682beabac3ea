"""`trace.path`: follows a path from an outcome through named features to tokens, prompt by prompt,
then over all prompts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from toolkit.addresses import locate
from toolkit.corrections import q_values
from toolkit.errors import BadInput
from toolkit.saes import space_row
from toolkit.tables import arrow_schema
from toolkit.work import Rows, Work
from toolkit_tokens.attribute.outcome import outcome_of
from toolkit_tokens.statistics import (
    MIN_UNITS,
    mean,
    or_none,
    sign_flip_p,
)

from .hops import CONFIRMED, INACTIVE, NOTHING, REFUTED, Hop, PathTracer, TraceNode
from .params import TracePath

ALL = "*"
"""The sample of rows that sum up all samples."""


def trace(work: Work) -> Rows:
    """Rows of `paths` and `path_parts`, and the spaces of the features."""
    import pyarrow as pa

    params: TracePath = work.params
    nodes = _nodes(work)
    tracer = PathTracer(work.model, nodes, params.freeze, params.min_effect, params.steps)
    samples = work.inputs.read("samples").to_pylist()
    found: list[tuple[dict[str, Any], list[Hop]]] = []
    work.report.phase("compute")
    for done, sample in enumerate(samples, 1):
        outcome = outcome_of(work.model, params, sample)
        found.append((sample, tracer.hops(sample, outcome, params.to)))
        work.report.progress(done, len(samples))
    path = params.label()
    rows = [_row(path, sample["sample"], hop) for sample, hops in found for hop in hops]
    rows += _summaries(work, path, found)
    parts = [
        {
            "path": path,
            "hop": hop.number,
            "sample": sample["sample"],
            "part": part,
            "position": position,
            "value": value,
        }
        for sample, hops in found
        for hop in hops
        for part, position, value in hop.parts
    ]
    yield "paths", pa.Table.from_pylist(rows, schema=arrow_schema("paths"))
    yield "path_parts", pa.Table.from_pylist(parts, schema=arrow_schema("path_parts"))
    spaces = {node.sae.name: space_row(work.model.identity, node.sae) for node in nodes}
    yield "spaces", pa.Table.from_pylist(list(spaces.values()), schema=arrow_schema("spaces"))


def _nodes(work: Work) -> list[TraceNode]:
    """The features of the path, from the outcome down; each below the one before it."""
    saes = {
        str(space_row(work.model.identity, sae)["space"]): sae
        for sae in work.saes
        if sae.hookpoint.startswith("resid_post.") and sae.output_hookpoint == sae.hookpoint
    }
    rows = [space_row(work.model.identity, sae) for sae in saes.values()]
    nodes: list[TraceNode] = []
    for address in work.params.through:
        space, feature = locate(address, rows)
        node = TraceNode(address, saes[str(space["space"])], feature)
        if nodes and node.sae.layer >= nodes[-1].sae.layer:
            raise BadInput(
                f"through: {address} is not below {nodes[-1].address}. Name features from the "
                "outcome down, each at a lower layer than the one before it."
            )
        nodes.append(node)
    return nodes


def _row(path: str, sample: str, hop: Hop) -> dict[str, Any]:
    return {
        "path": path,
        "hop": hop.number,
        "sample": sample,
        "upper": hop.upper,
        "lower": hop.lower,
        "position": hop.position,
        "strength": hop.strength,
        "parts": hop.sum_of_parts(),
        "whole": hop.whole,
        "effect": hop.effect,
        "low": None,
        "high": None,
        "p": None,
        "q": None,
        "units": 1,
        "verdict": hop.verdict,
    }


# --- over all prompts -----------------------------------------------------------------------------


def _summaries(
    work: Work, path: str, found: Sequence[tuple[dict[str, Any], list[Hop]]]
) -> list[dict[str, Any]]:
    """Each hop over all prompts: the mean strength and the mean effect by unit, 0 where a feature
    is inactive, with the effect's interval, p and q over the hops.
    """
    rows = [
        _summary(work, path, number, list(_of_hop(found, number)))
        for number in range(len(work.params.through) + 1)
    ]
    rows = [row for row in rows if row]
    for row, q in zip(rows, q_values([row["p"] for row in rows]), strict=True):
        row["q"] = q
        row["verdict"] = _verdict(row, work.params.min_effect)
    return rows


def _of_hop(
    found: Sequence[tuple[dict[str, Any], list[Hop]]], number: int
) -> Iterator[tuple[str, Hop]]:
    for sample, hops in found:
        if number < len(hops):
            yield sample["unit"], hops[number]


def _summary(work: Work, path: str, number: int, hops: Sequence[tuple[str, Hop]]) -> dict[str, Any]:
    import numpy as np

    if not hops:
        return {}
    strengths: dict[str, list[float]] = defaultdict(list)
    effects: dict[str, list[float]] = defaultdict(list)
    for unit, hop in hops:
        strengths[unit].append(hop.strength or 0.0)
        effects[unit].append(hop.effect or 0.0)
    by_unit = np.array([np.mean(values) for values in effects.values()])
    effect, low, high = mean(by_unit, work.rng("trace.mean", path, number))
    small = len(by_unit) < MIN_UNITS
    first = hops[0][1]
    active = sum(hop.verdict != INACTIVE for _, hop in hops)
    return {
        **_row(path, ALL, first),
        "position": None,
        "strength": float(np.mean([np.mean(values) for values in strengths.values()])),
        "parts": None,
        "whole": None,
        "effect": effect,
        "low": or_none(low),
        "high": or_none(high),
        "p": None
        if small or not active
        else sign_flip_p(by_unit, work.rng("trace.p", path, number)),
        "units": len(by_unit),
        "verdict": INACTIVE if not active else "",
    }


def _verdict(row: dict[str, Any], least: float) -> str:
    """The verdict over all prompts: by q where there is one, else by the interval."""
    if row["verdict"] == INACTIVE:
        return INACTIVE
    if abs(row["effect"]) < least:
        return NOTHING if abs(row["strength"]) < least else REFUTED
    if (row["effect"] > 0) != (row["strength"] > 0):
        return REFUTED
    if row["q"] is not None:
        return CONFIRMED if row["q"] <= 0.05 else "not significant"
    if row["low"] is None:
        return f"{CONFIRMED}, one unit"
    return CONFIRMED if row["low"] * row["high"] > 0 else "interval holds 0"
