"""`trace.path`: follows a path from an outcome through named features to tokens, in each prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.errors import BadInput
from toolkit.features.addresses import locate
from toolkit.saes import space_row
from toolkit.tables import arrow_schema
from toolkit_tokens.attribute.outcome import outcome_of

from .hops import Hop, PathTracer, TraceNode

if TYPE_CHECKING:
    from toolkit.work import Rows, Work

    from .params import TracePath


def trace(work: Work) -> Rows:
    """Rows of `paths` and `path_parts`, and the spaces of the features."""
    import pyarrow as pa

    params: TracePath = work.params
    path, nodes = params.label(), _nodes(work)
    tracer = PathTracer(work.model, nodes, params.freeze, params.min_effect, params.steps)
    samples = work.inputs.read("samples").to_pylist()
    work.report.phase("compute")
    for number, sample in enumerate(samples, 1):
        outcome = outcome_of(work.model, params, sample)
        hops = tracer.hops(sample, outcome, params.to)
        rows = [_row(path, sample, hop) for hop in hops]
        parts = _part_rows(path, sample["sample"], hops)
        yield "paths", pa.Table.from_pylist(rows, schema=arrow_schema("paths"))
        yield "path_parts", pa.Table.from_pylist(parts, schema=arrow_schema("path_parts"))
        work.report.progress(number, len(samples))
    spaces = {node.sae.name: space_row(work.model.identity, node.sae) for node in nodes}
    yield "spaces", pa.Table.from_pylist(list(spaces.values()), schema=arrow_schema("spaces"))


def _part_rows(path: str, sample: str, hops: Sequence[Hop]) -> list[dict[str, Any]]:
    return [
        {
            "path": path,
            "hop": hop.number,
            "sample": sample,
            "part": part,
            "position": position,
            "value": value,
        }
        for hop in hops
        for part, position, value in hop.parts
    ]


def _nodes(work: Work) -> list[TraceNode]:
    """The features of the path, from the outcome down, each at a lower layer than the last."""
    rows = {sae.name: space_row(work.model.identity, sae) for sae in work.saes}
    saes = {str(rows[sae.name]["space"]): sae for sae in work.saes}
    nodes: list[TraceNode] = []
    for address in work.params.through:
        space, feature = locate(address, rows.values())
        node = TraceNode(address, saes[str(space["space"])], feature)
        _check_hookpoint(node)
        if nodes and node.sae.layer >= nodes[-1].sae.layer:
            raise BadInput(
                f"through: {address} is not below {nodes[-1].address}. Name features from the "
                "outcome down, each at a lower layer than the one before it."
            )
        nodes.append(node)
    return nodes


def _check_hookpoint(node: TraceNode) -> None:
    """Refuse a feature that is not one of the stream after a block."""
    if node.feature_type != "sae" or not node.hookpoint.startswith("resid_post."):
        raise BadInput(
            f"through: {node.address} is a feature of a {node.feature_type} that reads "
            f"{node.hookpoint} and writes {node.sae.output_hookpoint}. This stage follows features "
            "of SAEs of the stream after a block (resid_post)."
        )


def _row(path: str, sample: Mapping[str, Any], hop: Hop) -> dict[str, Any]:
    return {
        "path": path,
        "hop": hop.number,
        "sample": sample["sample"],
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
