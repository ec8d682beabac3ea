"""A tiny model whose streams are known, for the stages that run one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from toolkit.identity import Identity
from toolkit.models import Encoded, Model


class Tiny(Model):
    """The stream after layer L at a token is a fixed function of L and of all tokens up to it."""

    def __init__(self, layers: int = 3, width: int = 5) -> None:
        self.identity = Identity("tiny", "1", "digest-of-tiny")
        self.layers, self.width, self.context = layers, width, 64
        self.passes: list[int] = []

    def stream(self, ids: Sequence[int], layer: int) -> np.ndarray:
        """(tokens, width), float32."""
        steps = np.cumsum(
            [np.random.default_rng(token).normal(size=self.width) for token in ids], axis=0
        )
        return (
            np.roll(np.tanh(steps / (1 + layer)), layer, axis=1)
            + 300.0 * (np.arange(self.width) == 0)
        ).astype(np.float32)

    def encode(self, text: str, *, chat: bool = False) -> Encoded:
        raise NotImplementedError

    def decode(self, ids: Sequence[int]) -> str:
        raise NotImplementedError

    def unembed(self, states: Any) -> Any:
        raise NotImplementedError

    def run(
        self, batch: Sequence[Sequence[int]], capture: Sequence[str], edits: Any = ()
    ) -> dict[str, Any]:
        import torch

        self.passes.append(len(batch))
        longest = max(map(len, batch))
        results = {}
        for name in capture:
            stream = np.full((len(batch), longest, self.width), np.float32(7.0))
            for row, ids in enumerate(batch):
                stream[row, : len(ids)] = self.stream(ids, int(name.rpartition(".")[2]))
            results[name] = torch.from_numpy(stream)
        return results


@pytest.fixture
def tiny() -> Tiny:
    """A fresh tiny model."""
    return Tiny()
