"""A screen of features at one decision point, from encoder columns to exact probabilities and KL,
against what public code does. Stand-in: 8 layers, width 512, 300 tokens, random weights and SAEs.

    python benchmarks/patch.py [--edits 10240] [--rounds 5] [--tiny]

`naive`: for each edit one whole pass with a hook, whose SAE encodes every feature. `batched`: whole
passes of 32 edits. `ours`: prefix, edits of all layers, suffixes, outcomes and divergence over the
whole vocabulary. `floor`: the matrix products of the blocks above each edit and of the head. Ways
take turns; medians. Slow ways are timed on few edits and reported per edit.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from _random_model import stand_in

from toolkit.saes import Sae
from toolkit_hf.engine import CausalModel
from toolkit_patch.screen.arms import SpaceEdits
from toolkit_patch.screen.outcomes import Outcomes
from toolkit_patch.screen.passes import push, read_prompt

BATCH = 32
OUTCOMES = Outcomes(("stop", "bet", "other"), ((7,), (9,)))


@dataclass(frozen=True)
class Size:
    """What is measured; --tiny shows that it runs."""

    layers: int = 8
    width: int = 512
    tokens: int = 300
    naive: int = 8
    features: int = 4096


class RandomSae(Sae):
    """A ReLU SAE with random weights."""

    def __init__(self, layer: int, size: Size) -> None:
        draw = torch.Generator().manual_seed(layer)
        self.name, self.release, self.hookpoint = f"random-{layer}", "random", f"resid_post.{layer}"
        self.width, self.inputs, self.pointwise = size.features, size.width, True
        self.digest, self.recipe = self.name, "relu"
        self._columns = torch.randn((size.features, size.width), generator=draw) / size.width**0.5
        self._rows = torch.randn((size.features, size.width), generator=draw)

    def encode(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.relu(rows @ self._columns.T)

    def decode(self, activations: torch.Tensor) -> torch.Tensor:
        return activations @ self._rows

    def decoder_rows(self, features: Sequence[int] | torch.Tensor) -> torch.Tensor:
        return self._rows[torch.as_tensor(features)]

    def encoder_columns(self, features: Sequence[int] | torch.Tensor) -> torch.Tensor:
        return self._columns[torch.as_tensor(features)]

    def encoder_bias(self, features: Sequence[int] | torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(features))

    def thresholds(self, features: Sequence[int] | torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(features))


def space_edits(sae: Sae, count: int) -> SpaceEdits:
    """Features of one SAE, each set to two values."""
    features = torch.arange(count)
    values = torch.stack((torch.full((count,), 2.0), torch.zeros(count)), dim=1)
    rows = sae.decoder_rows(features)
    return SpaceEdits(sae, np.arange(count), features, values, rows, None, None)


def ours(model: CausalModel, ids: list[int], spaces: Sequence[SpaceEdits]) -> np.ndarray[Any, Any]:
    """Probabilities of both values of every feature."""
    reading = read_prompt(model, OUTCOMES, ids, [edits.sae.hookpoint for edits in spaces])
    layers, streams = [], []
    for edits in spaces:
        made = dict(edits.edits(reading, ()))
        for arm in ("set_a", "set_b"):
            layers.append(torch.full((len(made[arm]),), edits.sae.layer))
            streams.append(made[arm])
    return push(model, OUTCOMES, reading, torch.cat(layers), torch.cat(streams))[0]


def whole_passes(
    model: CausalModel, ids: list[int], edits: SpaceEdits, rows: Sequence[int], batch: int
) -> np.ndarray[Any, Any]:
    """The first value of some features, by whole passes in each of which the SAE encodes all."""
    module, found = model.decoder.module, []
    for start in range(0, len(rows), batch):
        chosen = list(rows[start : start + batch])

        def change(_module: Any, _given: Any, out: Any, chosen: list[int] = chosen) -> Any:
            stream = out[0] if isinstance(out, tuple) else out
            stream = stream.clone()
            active = edits.sae.encode(stream[:, -1])
            for row, feature in enumerate(chosen):
                step = edits.values[feature, 0] - active[row, feature]
                stream[row, -1] += step * edits.rows[feature]
            return (stream, *out[1:]) if isinstance(out, tuple) else stream

        handle = model.decoder.blocks[edits.sae.layer].register_forward_hook(change)
        logits = module(torch.tensor([ids] * len(chosen))).logits[:, -1]
        handle.remove()
        found.append(torch.softmax(logits.double(), -1)[:, [7, 9]].numpy())
    return np.concatenate(found)


def products(model: CausalModel, layers: torch.Tensor, rows: torch.Tensor) -> None:
    """Every weight matrix of a block times the rows that pass it, and the head's."""
    for layer, block in enumerate(model.decoder.blocks):
        passing = rows[layers < layer]
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            passing @ getattr(block.self_attn, name).weight.T
        wide = passing @ block.mlp.gate_proj.weight.T
        passing @ block.mlp.up_proj.weight.T
        wide @ block.mlp.down_proj.weight.T
    rows @ model.decoder.module.get_output_embeddings().weight.T


def measure(ways: dict[str, tuple[int, Callable[[], Any]]], rounds: int) -> dict[str, float]:
    """Seconds per edit of each way: medians over rounds in which all take turns."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    with torch.inference_mode():
        for _ in range(rounds):
            for name, (count, work) in ways.items():
                started = time.perf_counter()
                work()
                times[name].append((time.perf_counter() - started) / count)
    return {name: statistics.median(taken) for name, taken in times.items()}


def main() -> None:
    """Print each way, and the error of ours."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--edits", type=int, default=10_240)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--tiny", action="store_true")
    given = options.parse_args()
    size = Size(layers=3, width=32, tokens=24, naive=2, features=32) if given.tiny else Size()
    edits, rounds = (96, 1) if given.tiny else (given.edits, given.rounds)
    model = stand_in(size.layers, size.width)
    ids = torch.randint(
        1, 1000, (size.tokens,), generator=torch.Generator().manual_seed(2)
    ).tolist()
    each = max(1, edits // (2 * size.layers))
    spaces = [space_edits(RandomSae(layer, size), each) for layer in range(size.layers)]
    middle, few = spaces[size.layers // 2], list(range(min(each, 2 * BATCH)))
    count = 2 * each * size.layers
    layers = torch.arange(count) % size.layers
    rows = torch.randn((count, size.width), generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        first = 2 * each * (size.layers // 2)
        exact = ours(model, ids, spaces)[first : first + len(few), :2]
        wanted = whole_passes(model, ids, middle, few, BATCH)
        error = float((abs(exact - wanted) / wanted).max())
    seconds = measure(
        {
            "naive": (size.naive, lambda: whole_passes(model, ids, middle, few[: size.naive], 1)),
            "batched": (len(few), lambda: whole_passes(model, ids, middle, few, BATCH)),
            "ours": (count, lambda: ours(model, ids, spaces)),
            "floor": (count, lambda: products(model, layers, rows)),
        },
        rounds,
    )
    print(f"{count:,} edits, {size.layers} layers, width {size.width}, {size.tokens} tokens")
    for name, taken in seconds.items():
        print(f"{name:8} {1e6 * taken:12.1f} us an edit  {taken / seconds['ours']:10.2f} x ours")
    print(f"ours is {seconds['ours'] / seconds['floor']:.2f} x the floor")
    print(f"largest relative error {error:.1e}")
    if error > 1e-4:
        raise SystemExit("ours does not equal whole passes")


if __name__ == "__main__":
    main()
