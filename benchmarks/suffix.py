"""Edits at a prompt's last token: suffix only, against whole passes. Stand-in: 8 layers, width 512,
300 tokens, random weights.

    python benchmarks/suffix.py [--edits 2048] [--rounds 5]

`naive` is one whole pass for each edit with a hook that edits the stream; `batched` puts 32 edits
into a whole pass; `ours` is `prefix` once and `suffix` over all edits, prefix included; `floor` is
the matrix products that the blocks above each edit cannot do without, as bare matmuls. The naive
way is timed on few edits and reported per edit.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from _random_model import stand_in

from toolkit.models import Model
from toolkit_hf.engine import CausalModel

LAYERS, WIDTH, TOKENS, NAIVE = 8, 512, 300, 8


def _edits(count: int) -> list[tuple[int, torch.Tensor]]:
    draw = torch.Generator().manual_seed(1)
    return [(at % LAYERS, torch.randn(WIDTH, generator=draw)) for at in range(count)]


def _floor(model: CausalModel, edits: list[tuple[int, torch.Tensor]]) -> None:
    """Every weight matrix of a block times the rows that pass it."""
    layers = model.decoder.blocks
    for layer in range(LAYERS):
        rows = torch.stack([row for start, row in edits if start < layer] or [torch.zeros(WIDTH)])
        block = layers[layer]
        for part in (
            block.self_attn.q_proj,
            block.self_attn.k_proj,
            block.self_attn.v_proj,
            block.self_attn.o_proj,
        ):
            rows @ part.weight.T
        wide = rows @ block.mlp.gate_proj.weight.T
        rows @ block.mlp.up_proj.weight.T
        wide @ block.mlp.down_proj.weight.T


def _time(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    with torch.inference_mode():
        work()
    return time.perf_counter() - started


def main() -> None:
    """Interleaved rounds; medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edits", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    model, ids = (
        stand_in(LAYERS, WIDTH),
        torch.randint(0, 1024, (TOKENS,), generator=torch.Generator().manual_seed(2)).tolist(),
    )
    edits = _edits(options.edits)
    whole = model.prefix(ids)
    few = edits[: 4 * NAIVE]
    error = float((model.suffix(whole, few) - Model.suffix(model, whole, few)).abs().max())
    ways: dict[str, tuple[int, Callable[[], Any]]] = {
        "naive": (NAIVE, lambda: [Model.suffix(model, whole, [edit]) for edit in edits[:NAIVE]]),
        "batched": (len(few), lambda: Model.suffix(model, whole, few)),
        "ours": (len(edits), lambda: model.suffix(model.prefix(ids), edits)),
        "floor": (len(edits), lambda: _floor(model, edits)),
    }
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, (count, work) in ways.items():
            took[name].append(_time(work) / count)
    each = {name: statistics.median(times) for name, times in took.items()}
    size = f"{TOKENS} tokens, {LAYERS} layers, width {WIDTH}, {torch.get_num_threads()} threads"
    print(
        f"{options.edits} edits, {size}; largest difference {error:.1e}; median of "
        f"{options.rounds} interleaved rounds"
    )
    for name, seconds in each.items():
        print(f"{name:8} {1e3 * seconds:9.3f} ms an edit   {seconds / each['ours']:8.2f} x ours")


if __name__ == "__main__":
    main()
