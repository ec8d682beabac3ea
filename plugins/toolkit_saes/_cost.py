"""What extraction costs, from configs and headers alone: for the plan, for the size of a batch, and for the way out of memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from toolkit.records import Cost, Workload

from ._sizes import TYPICAL_L0

TOKENS = 8192
"""Padded tokens of a pass where nothing is known of the memory."""
LEAST, MOST, MOST_ON_CPU = 256, 65_536, 8192
"""Bounds of a pass: a GPU is busy from some thousands of tokens on, and a CPU no faster beyond its caches."""
ENTRY, ROW = 8, 40
"""Bytes of a stored entry and of a stored row, before compression; the store keeps both by sample and by feature."""
LAYOUTS = 2
DISK_RATE, CPU_RATE = 1e9, 1e11
"""Bytes and operations a second by which ways are weighed against each other; only their ratio counts."""

Way = Literal["stream", "spill", "again"]


@dataclass(frozen=True)
class Prices:
    """What is left to do when SAEs do not fit together: `flops` of one pass, bytes of all SAEs, bytes of the rows."""

    batches: int
    groups: int
    flops: float
    sae_bytes: float
    spilled: float
    rate: float = CPU_RATE

    def seconds(self) -> dict[Way, float]:
        """What each way costs beyond what all of them must do."""
        again = (self.groups - 1) * self.flops / self.rate
        return {
            "stream": (self.batches - 1) * self.sae_bytes / DISK_RATE,
            "spill": 2 * self.spilled / DISK_RATE,
            "again": again,
        }


def cheapest(prices: Prices) -> Way:
    """The way that costs least; of equal ones the first."""
    seconds = prices.seconds()
    return min(seconds, key=lambda way: seconds[way])


def extraction(params: Any, load: Workload) -> Cost:
    """One pass over the distinct texts, every SAE on the rows that are looked at, sparse rows stored."""
    return _cost(load, _rows(params.at, load), stored=True)


def examination(params: Any, load: Workload) -> Cost:
    """The same over the first samples, with layers beside each SAE's own; nothing but a row an SAE is kept."""
    return _cost(load, load.tokens, stored=False)


def batches(params: Any, load: Workload, free: int, device: str) -> Mapping[str, int]:
    """Padded tokens of a pass, a power of two, and how many SAEs are held together, for so much free memory."""
    if "bytes" not in load.model or "bytes" not in load.saes:
        return {}  # not fetched yet: nobody knows how large they are
    model, saes = load.model["bytes"], load.saes["bytes"]
    count = max(1, load.saes.get("count", 1))
    room = free - model
    least = LEAST * _token_bytes(load)
    together = count if saes + least <= room else max(1, int((room - least) // max(1, saes / count)))
    left = room - saes * together / count
    fitting = max(LEAST, int(left // max(1, _token_bytes(load))))
    most = MOST if device == "cuda" else MOST_ON_CPU
    return {"tokens": min(most, 1 << (fitting.bit_length() - 1)), "together": min(together, count)}


def _rows(at: Any, load: Workload) -> int:
    """Rows that are looked at: at most, where a selector chooses."""
    return load.distinct if at == "last" else load.tokens


def _cost(load: Workload, rows: int, *, stored: bool) -> Cost:
    model, saes = load.model, load.saes
    owned = rows * (load.samples / load.distinct if load.distinct else 1)
    spaces = saes.get("count", 0)
    written = LAYOUTS * owned * (spaces * ROW + saes.get("l0", TYPICAL_L0 * spaces) * ENTRY) if stored else 0
    memory = model.get("bytes", 0) + saes.get("bytes", 0) + min(TOKENS, max(load.tokens, load.longest)) * _token_bytes(load)
    return Cost(
        forwards=load.distinct,
        flops=load.tokens * _token_flops(load) + rows * saes.get("row_flops", 0.0),
        read=int(model.get("bytes", 0) + saes.get("bytes", 0)),
        memory=int(memory),
        disk=int(written),
        dense=int(owned * saes.get("features", 0) * 4) if stored else 0,
    )


def _token_flops(load: Workload) -> float:
    """Of the blocks up to the last one that an SAE reads: their weights, and attention to half of a text on average."""
    model, layers = load.model, max(1, load.model.get("layers", 1))
    used = min(layers, max(load.saes.get("layers", None) or [layers - 1]) + 1)
    mean = load.tokens / load.distinct if load.distinct else 0
    return float(2 * model.get("block_parameters", 0) * used / layers + 2 * mean * model.get("width", 0) * used)


def _token_bytes(load: Workload) -> int:
    """Memory of one token of a pass: the streams that are kept, and what a block needs while it runs."""
    width, item = load.model.get("width", 0), load.model.get("item", 4)
    return int(
        item * width * (load.saes.get("hookpoints", 1) + 8 + 3 * load.model.get("intermediate", 4 * width) / max(1, width))
    )
