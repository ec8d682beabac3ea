"""What extraction costs, from configs and headers alone: for the plan, for the size of a batch, and
for the way out of memory.
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
from toolkit_saes.extract.sizes import TYPICAL_L0

LEAST, MOST, MOST_ON_CPU = 256, 65_536, 8192
"""Bounds of a pass in tokens."""
BUSY, CACHED = 1024, 8 << 20
"""A CPU is busy from so many tokens on; beyond that it is slower where what a block makes of them
(bytes) leaves its caches.
"""
LAYOUTS = 2
"""The store keeps entries and rows by sample and by feature."""
DISK_RATE = 1e9
RATES = {"cpu": 1e11, "mps": 5e12, "cuda": 5e13}
"""Bytes, and operations by kind of device, a second, by order of magnitude: ways are weighed by
them, and only their ratio counts.
"""

Way = Literal["stream", "spill", "again"]


@dataclass(frozen=True)
class Prices:
    """What is left to do when SAEs do not fit together: `flops` of one pass, bytes of all SAEs,
    bytes of the rows.
    """

    batches: int
    groups: int
    flops: float
    sae_bytes: float
    spilled: float
    rate: float = RATES["cpu"]

    def seconds(self) -> dict[Way, float]:
        """What each way costs beyond what all of them must do."""
        further_passes = (self.groups - 1) * self.flops / self.rate
        return {
            "stream": (self.batches - 1) * self.sae_bytes / DISK_RATE,
            "spill": 2 * self.spilled / DISK_RATE,
            "again": further_passes,
        }


def cheapest(prices: Prices) -> Way:
    """The way that costs least; of equal ones the first."""
    seconds = prices.seconds()
    return min(seconds, key=lambda way: seconds[way])


def extraction(params: Any, load: Workload) -> Cost:
    """One pass over the distinct texts, every SAE on the rows that are looked at, sparse rows
    stored.
    """
    return _cost(load, _rows(params.at, load), stored=True) + _kept(params, load)


def _kept(params: Any, load: Workload) -> Cost:
    """The streams that are kept beside: one layout, float32."""
    if params.stream is None:
        return Cost()
    places, width = load.saes.get("hookpoints", 0), load.model.get("width", 0)
    owned = _rows(params.stream, load) * (load.samples / load.distinct if load.distinct else 1)
    return Cost(disk=int(owned * places * (4 * width + ROW)))


def examination(params: Any, load: Workload) -> Cost:
    """The same over the first samples, with layers beside each SAE's own; nothing but a row an SAE
    is kept.
    """
    return _cost(load, load.tokens, stored=False)


def batches(params: Any, load: Workload, free: int, device: str) -> Mapping[str, int]:
    """Padded tokens of a pass, a power of two, and how many SAEs are held together, for so much
    free memory.
    """
    if "bytes" not in load.model or "bytes" not in load.saes:
        return {}  # not fetched yet: nobody knows how large they are
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
    """Tokens whose widest numbers inside a block stay in a CPU's caches."""
    cached = CACHED // max(
        1, model.get("item", 4) * model.get("intermediate", 4 * model.get("width", 0))
    )
    return min(MOST_ON_CPU, max(BUSY, 1 << (cached.bit_length() - 1) if cached else BUSY))


def _rows(selector: Any, load: Workload) -> int:
    """Rows that are looked at: at most, where a selector chooses."""
    return load.distinct if selector == "last" else load.tokens


def _cost(load: Workload, looked_at: int, *, stored: bool) -> Cost:
    model, saes = load.model, load.saes
    each = load.samples / load.distinct if load.distinct else 1
    owned, kept = looked_at * each, load.tokens * each
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
        entries=int(entries),
        totals={
            "dense_bytes": int(owned * dense),
            "dense_bytes_all_tokens": int(kept * dense),
            "text_bytes": int(rows * load.characters * CHARACTER),
        },
    )


def _token_flops(load: Workload) -> float:
    """Of the blocks up to the last one that an SAE reads."""
    last = max(load.saes.get("layers", None) or [load.model.get("layers", 1) - 1])
    return token_flops(load.model, load.tokens / load.distinct if load.distinct else 0, last + 1)
