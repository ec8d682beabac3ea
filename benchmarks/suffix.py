"""Edits of one prompt: suffixes against whole passes. Stand-in: 8 layers, width 512, 300 tokens,
random weights.

    python benchmarks/suffix.py [--edits 10240] [--rounds 5] [--tiny]

Two kinds of edits: at the last token, given as streams (`suffix`), and rank-one edits of features
at positions of the last tenth of the prompt (`edited_states`). For each: `naive`, one whole pass
for each edit; `batched`, whole passes of 32 edits; `ours`, `prefix` included; and for the first
kind `floor`, the matrix products that the blocks above each edit cannot do without, as bare
matmuls. Ways that are slow are timed on few edits and reported per edit.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from _random_model import stand_in

from toolkit.edits import Edit, OnFeatures, Set, tokens
from toolkit.models import Model
from toolkit_hf.engine import CausalModel

BATCH = 32


@dataclass(frozen=True)
class Size:
    """What is measured; --tiny shows that it runs."""

    layers: int = 8
    width: int = 512
    tokens: int = 300
    naive: int = 8


def _time(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    with torch.inference_mode():
        work()
    return time.perf_counter() - started


# --- at the last token ----------------------------------------------------------------------------


def _last_token_ways(
    model: CausalModel, ids: list[int], size: Size, count: int
) -> tuple[dict[str, tuple[int, Callable[[], Any]]], float]:
    draw = torch.Generator().manual_seed(1)
    layers = torch.arange(count) % size.layers
    rows = torch.randn((count, size.width), generator=draw)
    whole = model.prefix(ids)
    few = slice(0, min(count, 2 * BATCH))

    def one_by_one() -> None:
        for at in range(size.naive):
            Model.suffix(model, whole, layers[at : at + 1], rows[at : at + 1])

    wanted = Model.suffix(model, whole, layers[few], rows[few])
    error = float((model.suffix(whole, layers[few], rows[few]) - wanted).abs().max())
    return {
        "naive": (size.naive, one_by_one),
        "batched": (len(wanted), lambda: Model.suffix(model, whole, layers[few], rows[few])),
        "ours": (count, lambda: model.suffix(model.prefix(ids), layers, rows)),
        "floor": (count, lambda: _products(model, layers, rows)),
    }, error


def _products(model: CausalModel, layers: torch.Tensor, rows: torch.Tensor) -> None:
    """Every weight matrix of a block times the rows that pass it."""
    for layer, block in enumerate(model.decoder.blocks):
        passing = rows[layers < layer]
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            passing @ getattr(block.self_attn, name).weight.T
        wide = passing @ block.mlp.gate_proj.weight.T
        passing @ block.mlp.up_proj.weight.T
        wide @ block.mlp.down_proj.weight.T


# --- at any position ------------------------------------------------------------------------------


def _edits(size: Size, count: int) -> list[Edit]:
    """One feature a row, at layers in turn and positions of the last tenth."""
    draw = torch.Generator().manual_seed(3)
    first = size.tokens - max(1, size.tokens // 10)
    positions = torch.randint(first, size.tokens, (count,), generator=draw)
    made = []
    for layer in range(size.layers):
        rows = torch.arange(layer, count, size.layers)
        if not len(rows):
            continue
        columns, decoder = (
            torch.randn((len(rows), 1, size.width), generator=draw) for _ in range(2)
        )
        nothing = torch.zeros((len(rows), 1))
        operation = OnFeatures(columns, nothing, nothing, decoder, Set(1.0))
        made.append(Edit(f"resid_post.{layer}", operation, tokens(rows, positions[rows])))
    return made


def _any_position_ways(
    model: CausalModel, ids: list[int], size: Size, count: int
) -> tuple[dict[str, tuple[int, Callable[[], Any]]], float]:
    edits, whole, few = _edits(size, count), model.prefix(ids), min(count, BATCH)
    start = [edit.of_rows(0, few) for edit in edits]

    def one_by_one() -> None:
        for at in range(size.naive):
            Model.edited_states(model, whole, [edit.of_rows(at, at + 1) for edit in edits], 1)

    wanted = Model.edited_states(model, whole, start, few)
    error = float((model.edited_states(whole, start, few) - wanted).abs().max())
    return {
        "naive": (size.naive, one_by_one),
        "batched": (few, lambda: Model.edited_states(model, whole, start, few)),
        "ours": (count, lambda: model.edited_states(model.prefix(ids), edits, count)),
    }, error


def _report(
    title: str, ways: dict[str, tuple[int, Callable[[], Any]]], error: float, rounds: int
) -> None:
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (count, work) in ways.items():
            took[name].append(_time(work) / count)
    each = {name: statistics.median(times) for name, times in took.items()}
    print(f"{title}: {ways['ours'][0]} edits; largest difference {error:.1e}")
    for name, seconds in each.items():
        print(f"  {name:8} {1e3 * seconds:9.3f} ms an edit   {seconds / each['ours']:8.2f} x ours")


def main() -> None:
    """Interleaved rounds; medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edits", type=int, default=10_240)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tiny", action="store_true", help="see that it runs")
    options = parser.parse_args()
    size = Size(3, 64, 40, 2) if options.tiny else Size()
    count, rounds = (48, 1) if options.tiny else (options.edits, options.rounds)
    model = stand_in(size.layers, size.width)
    draw = torch.Generator().manual_seed(2)
    ids = torch.randint(0, 1024, (size.tokens,), generator=draw).tolist()
    print(
        f"{size.tokens} tokens, {size.layers} layers, width {size.width}, "
        f"{torch.get_num_threads()} threads; median of {rounds} interleaved rounds"
    )
    with torch.inference_mode():
        last, last_error = _last_token_ways(model, ids, size, count)
        any_, any_error = _any_position_ways(model, ids, size, max(BATCH, count // 8))
    _report("last token", last, last_error, rounds)
    _report("any position", any_, any_error, rounds)


if __name__ == "__main__":
    main()
