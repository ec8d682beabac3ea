"""The exact screen at the size of Llama-3.1-8B: every feature of 31 SAEs x 2 prompts x 4 arms, to
probabilities of the outcomes and divergence over the whole vocabulary.

Called by `benchmarks/gpu.py patch`. The floor is the matrix products that the edited rows cannot do
without (blocks above each edit, and the head) at the rate of a large product in the same run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from toolkit.saes import Sae
from toolkit_hf.engine import CausalModel
from toolkit_patch.screen.arms import SpaceEdits
from toolkit_patch.screen.outcomes import Outcomes
from toolkit_patch.screen.passes import ROWS, push, read_prompt

PROMPTS, TOKENS, ARMS = 2, 300, 4
OUTCOMES = Outcomes(("stop", "bet", "other"), ((7,), (9,)))
ARM_NAMES = ("set_a", "set_b", "random_feature_a", "random_feature_b")


class RandomSae(Sae):
    """A ReLU SAE with random columns and rows on the device, in bfloat16."""

    def __init__(self, layer: int, features: int, width: int, device: str) -> None:
        draw = torch.Generator(device).manual_seed(layer)
        self.name, self.release, self.hookpoint = f"random-{layer}", "random", f"resid_post.{layer}"
        self.width, self.inputs, self.pointwise = features, width, True
        self.digest, self.recipe = self.name, "relu"
        shape = (features, width)
        made: Any = {"generator": draw, "device": device, "dtype": torch.bfloat16}
        self._columns = torch.randn(shape, **made) / width**0.5
        self._rows = torch.randn(shape, **made) / width**0.5

    def encode(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.relu(rows @ self._columns.float().T)

    def decode(self, activations: torch.Tensor) -> torch.Tensor:
        return activations @ self._rows.float()

    def decoder_rows(self, features: Sequence[int] | torch.Tensor) -> torch.Tensor:
        return self._rows[torch.as_tensor(features)]

    def encoder_columns(self, features: Sequence[int] | torch.Tensor) -> torch.Tensor:
        return self._columns[torch.as_tensor(features)].float()

    def encoder_bias(self, features: Sequence[int] | torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(features), device=self._rows.device)

    def thresholds(self, features: Sequence[int] | torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(features), device=self._rows.device)


def measure(
    model: CausalModel, features: int, vocabulary: int, rate: float, device: str, spent: float
) -> None:
    """Screen everything once and print seconds, the floor and its share."""
    saes = [RandomSae(layer, features, model.width, device) for layer in range(1, model.layers)]
    draw = torch.Generator().manual_seed(2)
    prompts = [
        torch.randint(1, vocabulary, (TOKENS,), generator=draw).tolist() for _ in range(PROMPTS)
    ]
    _chunk(model, _read(model, prompts[0], saes), saes[0], 0, min(256, features))  # warm up
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    wait: Callable[[], Any] = torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()
    started, done, flops = time.perf_counter(), 0, 0.0
    size = ROWS // ARMS
    for ids in prompts:
        reading = _read(model, ids, saes)
        for sae in saes:
            for first in range(0, features, size):
                last = min(features, first + size)
                _chunk(model, reading, sae, first, last)
                rows = (last - first) * ARMS
                done += rows
                flops += rows * _operations(model, sae.layer, vocabulary)
            if time.perf_counter() - started > spent:
                break
    wait()
    seconds, planned = time.perf_counter() - started, PROMPTS * len(saes) * features * ARMS
    if done < planned:
        print(f"stopped after {spent:.0f} s: {done:,} of {planned:,} edits")
    print(
        f"{seconds:.1f} s: {done:,} edits of {len(saes) * features:,} features, {PROMPTS} prompts "
        f"of {TOKENS} tokens, {ARMS} arms; {done / seconds:,.0f} edits/s"
    )
    floor = flops / rate
    print(f"floor of matrix products {floor:.1f} s; share of the floor {floor / seconds:.1%}")
    if device == "cuda":
        print(f"peak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")


def _read(model: CausalModel, ids: list[int], saes: Sequence[Sae]) -> Any:
    return read_prompt(model, OUTCOMES, ids, [sae.hookpoint for sae in saes])


def _chunk(model: CausalModel, reading: Any, sae: Sae, first: int, last: int) -> np.ndarray:
    """Probabilities of a range of features under all four arms."""
    device = reading.state.device
    numbers = torch.arange(first, last, device=device)
    values = torch.stack((torch.full((len(numbers),), 2.0), torch.zeros(len(numbers))), dim=1).to(
        device
    )
    rows = sae.decoder_rows(numbers).float()
    edits = SpaceEdits(sae, np.arange(first, last), numbers, values, rows, rows.roll(1, 0), None)
    made = dict(edits.edits(reading, ()))
    streams = torch.cat([made[arm] for arm in ARM_NAMES])
    layers = torch.full((len(streams),), sae.layer)
    return push(model, OUTCOMES, reading, layers, streams)[0]


def _operations(model: CausalModel, layer: int, vocabulary: int) -> float:
    """Of one edited row: the blocks above its layer, and the head."""
    facts = model.identity.facts
    block = facts["block_parameters"] / model.layers
    return float(2 * (model.layers - 1 - layer) * block + 2 * model.width * vocabulary)
