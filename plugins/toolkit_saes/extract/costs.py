"""Predicts the cost of extraction from configs and headers: for the plan, the batch size, and the
choice when memory runs out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from toolkit.costs import (
    CHARACTER,
    ENTRY,
    ROW,
    Cost,
    Facts,
    Workload,
    pass_bytes,
    token_bytes,
    token_flops,
)
from toolkit_saes.layouts.sizes import TYPICAL_L0

LEAST, MOST, MOST_ON_CPU = 256, 65_536, 8192
"""Smallest and largest pass in tokens."""
BUSY, CACHED = 1024, 8 << 20
"""A CPU is saturated by this many tokens; with more it gets slower once a block's intermediate
values exceed this many bytes of cache.
"""
LAYOUTS = 2
"""The store keeps entries and rows twice: by sample and by feature."""
TRIED, EXAMINED = 3, 2500
"""Rows that the examination writes for an SAE, and their stored bytes."""
DISK_RATE = 1e9
RATES = {"cpu": 1e11, "mps": 5e12, "cuda": 5e13}
"""Bytes per second, and operations per second by device, to an order of magnitude: used to compare
the alternatives, so only ratios matter.
"""

Way = Literal["stream", "spill", "rerun"]


@dataclass(frozen=True)
class Prices:
    """The remaining work when the SAEs do not fit in memory together: `flops` of one pass, bytes of
    all SAEs, bytes of the rows.
    """

    batches: int
    groups: int
    flops: float
    sae_bytes: float
    spilled: float
    rate: float = RATES["cpu"]

    def seconds(self) -> dict[Way, float]:
        """The extra seconds of each alternative beyond the work that all of them do."""
        further_passes = (self.groups - 1) * self.flops / self.rate
        return {
            "stream": (self.batches - 1) * self.sae_bytes / DISK_RATE,
            "spill": 2 * self.spilled / DISK_RATE,
            "rerun": further_passes,
        }


def cheapest(prices: Prices) -> Way:
    """The cheapest alternative; the first of equal ones."""
    seconds = prices.seconds()
    return min(seconds, key=lambda way: seconds[way])


def extraction(params: Any, load: Workload) -> Cost:
    """One pass over the distinct texts, every SAE on the chosen rows, sparse rows stored."""
    return _cost(load, _rows(params.at, load), stored=True) + _stored_streams(params, load)


def _stored_streams(params: Any, load: Workload) -> Cost:
    """The streams that are stored as well: one layout, float32."""
    if params.stream is None:
        return Cost()
    hookpoints, width = load.saes.get("hookpoints", 0), load.model.get("width", 0)
    owned = _rows(params.stream, load) * (load.samples / load.distinct if load.distinct else 1)
    return Cost(disk=int(owned * hookpoints * (4 * width + ROW)))


def examination(params: Any, load: Workload) -> Cost:
    """The same over the first samples, including the layers adjacent to each SAE's; some are read
    again at other sites. Stores a few rows per SAE.
    """
    count = load.saes.get("count", 0)
    once = _cost(load, load.tokens, stored=False)
    stored = Cost(disk=EXAMINED * count, table_rows=TRIED * count)
    return once + Cost(forwards=load.distinct) + stored


def batches(params: Any, load: Workload, free: int, device: str) -> Mapping[str, int]:
    """The padded tokens of a pass, a power of two, and how many SAEs are loaded together, for this
    much free memory.
    """
    if "bytes" not in load.model or "bytes" not in load.saes:
        return {}  # not fetched yet, so of unknown size
    model, saes = load.model["bytes"], load.saes["bytes"]
    count = max(1, load.saes.get("count", 1))
    room = free - model
    token = max(1, token_bytes(load.model, load.saes.get("hookpoints", 1)))
    least = LEAST * token
    together = (
        count if saes + least <= room else max(1, int((room - least) // max(1, saes / count)))
    )
    left = room - saes * together / count
    fitting = max(LEAST, int(left // token))
    max_tokens = MOST if device == "cuda" else _most_on_cpu(load.model)
    return {
        "tokens": min(max_tokens, 1 << (fitting.bit_length() - 1)),
        "together": min(together, count),
    }


def _most_on_cpu(model: Facts) -> int:
    """The tokens whose widest intermediate values fit in a CPU's caches."""
    cached = CACHED // max(
        1, model.get("item", 4) * model.get("intermediate", 4 * model.get("width", 0))
    )
    return min(MOST_ON_CPU, max(BUSY, 1 << (cached.bit_length() - 1) if cached else BUSY))


def _rows(selector: Any, load: Workload) -> int:
    """Rows to encode; an upper bound where a selector chooses positions."""
    return load.distinct if selector == "last" else load.tokens


def _cost(load: Workload, looked_at: int, *, stored: bool) -> Cost:
    model, saes = load.model, load.saes
    repeats = load.samples / load.distinct if load.distinct else 1
    owned, passed = looked_at * repeats, load.tokens * repeats
    count, dense = saes.get("count", 0), saes.get("features", 0) * 4 if stored else 0
    rows, entries = (
        (owned * count, owned * saes.get("l0", TYPICAL_L0 * count)) if stored else (0, 0)
    )
    memory = saes.get("bytes", 0) + pass_bytes(
        model, load.tokens, load.longest, saes.get("hookpoints", 1)
    )
    return Cost(
        forwards=load.distinct,
        flops=load.tokens * _token_flops(load) + looked_at * saes.get("row_flops", 0.0),
        read=int(model.get("bytes", 0) + saes.get("bytes", 0)),
        memory=int(memory),
        disk=int(LAYOUTS * (rows * ROW + entries * ENTRY)),
        rows=int(rows),
        table_rows=int(rows) + int(count) if stored else 0,
        entries=int(entries),
        totals={
            "dense_bytes": int(owned * dense),
            "dense_bytes_all_tokens": int(passed * dense),
            "text_bytes": int(rows * load.characters * CHARACTER),
        },
    )


def _token_flops(load: Workload) -> float:
    """Operations per token, up to the last block that an SAE reads."""
    last = max(load.saes.get("layers", None) or [load.model.get("layers", 1) - 1])
    return token_flops(load.model, load.tokens / load.distinct if load.distinct else 0, last + 1)
