"""The cost of tracking, attribution and traces, from configs and headers alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from toolkit.costs import Cost, Workload, pass_bytes, token_flops

VALUE, FEATURE_ENTRY, FIRED_FEATURE, ENTRY_ROW = 4.0, 5.8, 31.0, 12.0
"""Bytes in the store: of an activation, of an entry in the layout by feature, of a feature there,
and of a row in the layout by sample.
"""
TYPICAL_L0 = 64.0
"""Active features per row where the SAE does not declare a number."""
TYPICAL_HEADS = 32
WEIGHT, KEY, ATTENTION_ROW = 1.9, 1.2, 1.0
"""Bytes in the store: of an attention weight, of its key where only the largest are kept, and of
the rest of a row. The store packs numbers, and keeps names once for many rows.
"""
DENSE_WEIGHT = 2
"""Bytes of an attention weight in a matrix."""
SUMMARY_ROW = 120
"""Bytes of a row of attributions, paths or contrasts."""


def tracking(params: Any, load: Workload) -> Cost:
    """One pass over the distinct texts, every SAE at the chosen tokens, attention rows stored."""
    model, saes = load.model, load.saes
    rows = load.samples if params.at == "last" else _tokens(load)
    count = saes.get("count", 0)
    entries = rows * saes.get("l0", TYPICAL_L0 * count)
    layers = saes.get("layers", [])
    attention_params = params.attention
    attention = (
        0.0 if attention_params is None else attention_bytes(attention_params, load, len(layers))
    )
    matrices = 0.0 if attention_params is None else _matrix_bytes(load, len(layers))
    last_layer = max(layers or [model.get("layers", 1) - 1])
    return Cost(
        forwards=load.distinct,
        flops=_pass_flops(load, last_layer + 1) + rows * saes.get("row_flops", 0.0),
        read=int(model.get("bytes", 0) + saes.get("bytes", 0)),
        memory=int(
            saes.get("bytes", 0)
            + pass_bytes(model, load.tokens, load.longest, saes.get("hookpoints", 1))
        ),
        disk=int(activation_bytes(rows * count, entries, saes) + attention),
        rows=int(rows * count),
        entries=int(entries),
        totals={
            "dense_bytes": int(rows * saes.get("features", 0) * 4),
            "dense_bytes_all_tokens": int(_tokens(load) * saes.get("features", 0) * 4 + matrices),
        },
    )


def tracking_attention(params: Any, load: Workload) -> Cost:
    """One pass, and its attention rows."""
    layers = int(load.model.get("layers", 1))
    requested = params.layers
    if isinstance(requested, tuple | list):
        chosen = len(requested)
    elif isinstance(requested, int) or str(requested).strip().isdigit():
        chosen = 1
    elif requested == "all":
        chosen = layers
    else:
        start, _, end = str(requested).partition("-")
        chosen = max(1, (int(end) + 1 if end.strip() else layers) - int(start))
    disk = attention_bytes(params, load, chosen)
    return Cost(
        forwards=load.distinct,
        flops=_pass_flops(load, None),
        read=int(load.model.get("bytes", 0)),
        memory=pass_bytes(load.model, load.tokens, load.longest, 1),
        disk=int(disk),
        totals={"dense_bytes_all_tokens": int(_matrix_bytes(load, chosen))},
    )


def attention_bytes(params: Any, load: Workload, layers: int) -> float:
    """Bytes of `attention` in the store: a query sees only the keys up to it."""
    heads = load.model.get("heads", TYPICAL_HEADS)
    mean = load.tokens / max(1, load.distinct)
    is_last = params.queries == "last"
    queries = load.samples if is_last else _tokens(load)
    row = WEIGHT * (mean if is_last else (mean + 1) / 2)
    if params.top is not None and params.top < mean:
        mean_shortfall = 0.0 if is_last else params.top * (params.top - 1) / (2 * mean)
        row = (WEIGHT + KEY) * (params.top - mean_shortfall)
    return float(queries * layers * heads * (row + ATTENTION_ROW))


def activation_bytes(rows: float, entries: float, saes: Mapping[str, Any]) -> float:
    """Bytes of `activations` in the store, by sample and by feature, if all features fire equally
    often.
    """
    features, count = saes.get("features", 0), max(1, saes.get("count", 1))
    if not features or not entries:
        return 0.0
    number = math.log2(max(2.0, features / count)) / 8
    fired = features * -math.expm1(-entries / features)
    return float(
        entries * (VALUE + number + FEATURE_ENTRY) + rows * ENTRY_ROW + fired * FIRED_FEATURE
    )


def _matrix_bytes(load: Workload, layers: int) -> float:
    """All heads' (tokens, tokens) matrices."""
    mean = load.tokens / max(1, load.distinct)
    heads = load.model.get("heads", TYPICAL_HEADS)
    return float(_tokens(load) * mean * layers * heads * DENSE_WEIGHT)


def contrasting(params: Any, load: Workload) -> Cost:
    """Reads the stored rows of tracking."""
    return Cost(memory=1 << 28, disk=SUMMARY_ROW * 1000, exact=False)


def attributing(params: Any, load: Workload) -> Cost:
    """Forward and backward passes for each method, and one pass for each patched part."""
    model, saes = load.model, load.saes
    layers = max(1, len(saes.get("layers", [])) or 1)
    mean = load.tokens / max(1, load.distinct)
    gradient_passes = 3 * (3 + params.steps) * layers
    every_layer = model.get("layers", 1)
    head_layers = every_layer if params.heads == "all" else layers
    patched_passes = (
        layers * (mean + params.exact_features)
        + head_layers * model.get("heads", TYPICAL_HEADS)
        + 2 * every_layer
    )
    passes = load.samples * (gradient_passes + patched_passes)
    return Cost(
        forwards=int(passes),
        flops=passes * mean * token_flops(model, mean),
        read=int(model.get("bytes", 0) + saes.get("bytes", 0)),
        memory=int(3 * pass_bytes(model, load.tokens, load.longest, layers) + saes.get("bytes", 0)),
        disk=int(load.samples * SUMMARY_ROW * layers * (8 * mean + 8 * params.keep)),
        exact=False,
    )


def tracing(params: Any, load: Workload) -> Cost:
    """A forward and backward pass and two check passes for each hop of each sample."""
    model, saes = load.model, load.saes
    hops = 1 + len(params.through)
    mean = load.tokens / max(1, load.distinct)
    passes = load.samples * (hops * (params.steps + 4) + 3)
    return Cost(
        forwards=passes,
        flops=passes * mean * token_flops(model, mean),
        read=int(model.get("bytes", 0) + saes.get("bytes", 0)),
        memory=int(3 * pass_bytes(model, load.tokens, load.longest, hops) + saes.get("bytes", 0)),
        disk=int(load.samples * hops * SUMMARY_ROW * (mean + 4)),
        exact=False,
    )


def summarising(params: Any, load: Workload) -> Cost:
    """Reads the stored rows of traces."""
    return Cost(memory=1 << 26, disk=SUMMARY_ROW * 100, exact=False)


def _tokens(load: Workload) -> float:
    """Tokens of all samples, equal texts counted as often as they occur."""
    return load.tokens * (load.samples / load.distinct if load.distinct else 1)


def _pass_flops(load: Workload, blocks: int | None) -> float:
    mean = load.tokens / max(1, load.distinct)
    return load.tokens * token_flops(load.model, mean, blocks)
