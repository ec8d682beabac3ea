"""A plain float64 forward of the Llama architecture: the independent reference for everything else.

It reads config.json and model.safetensors, handles one sequence, and is written for reading, not
for speed. It does not know how the planted weights were made, so agreement with it is
evidence. Edits are functions of the whole residual after a layer, which covers delta edits,
patches and full reconstructions alike.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from toolkit.statistics.arrays import Floats

Edit = Callable[[Floats], Floats]  # residual after a layer (T, d) -> edited residual (T, d)


@dataclass(frozen=True, eq=False)
class Trace:
    """The intermediate values of one forward pass."""

    logits: Floats  # (T, vocabulary)
    resid_pre: list[Floats]  # per layer (T, d)
    resid_post: list[Floats]  # per layer (T, d), after any edit


@dataclass(frozen=True, eq=False)
class ReferenceModel:
    """Config and float64 weights of a Llama checkpoint."""

    config: dict[str, Any]
    weights: dict[str, Floats]

    @classmethod
    def load(cls, folder: Path) -> ReferenceModel:
        """Read a checkpoint folder."""
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        tensors = load_file(str(folder / "model.safetensors"))
        return cls(
            config, {name: np.asarray(tensor, dtype=np.float64) for name, tensor in tensors.items()}
        )

    def run(self, ids: Sequence[int], edits: Mapping[int, Edit] | None = None) -> Trace:
        """Run one sequence; `edits[L]` replaces the residual after layer L."""
        x = self.weights["model.embed_tokens.weight"][list(ids)]
        pre, post = [], []
        for layer in range(self.config["num_hidden_layers"]):
            pre.append(x)
            x = x + self._attention(layer, self._norm(f"model.layers.{layer}.input_layernorm", x))
            x = x + self._mlp(
                layer, self._norm(f"model.layers.{layer}.post_attention_layernorm", x)
            )
            if edits and layer in edits:
                x = edits[layer](x.copy())
            post.append(x)
        return Trace(self._norm("model.norm", x) @ self.weights["lm_head.weight"].T, pre, post)

    def _norm(self, name: str, x: Floats) -> Floats:
        scale = np.sqrt((x**2).mean(-1, keepdims=True) + self.config["rms_norm_eps"])
        normed: Floats = x / scale * self.weights[f"{name}.weight"]
        return normed

    def _mlp(self, layer: int, x: Floats) -> Floats:
        gate, up, down = (
            self.weights[f"model.layers.{layer}.mlp.{part}_proj.weight"]
            for part in ("gate", "up", "down")
        )
        g = x @ gate.T
        out: Floats = (g / (1.0 + np.exp(-g)) * (x @ up.T)) @ down.T
        return out

    def _attention(self, layer: int, x: Floats) -> Floats:
        heads, kv_heads = self.config["num_attention_heads"], self.config["num_key_value_heads"]
        q, k, v = (
            (x @ self.weights[f"model.layers.{layer}.self_attn.{part}_proj.weight"].T).reshape(
                len(x), count, -1
            )
            for part, count in (("q", heads), ("k", kv_heads), ("v", kv_heads))
        )
        q, k = self._rotate(q), self._rotate(k)
        future = np.triu(np.ones((len(x), len(x)), dtype=bool), 1)
        mixed = []
        for head in range(heads):
            shared = head * kv_heads // heads
            scores = np.where(future, -np.inf, q[:, head] @ k[:, shared].T / np.sqrt(q.shape[-1]))
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            mixed.append(weights / weights.sum(-1, keepdims=True) @ v[:, shared])
        out: Floats = (
            np.concatenate(mixed, axis=-1)
            @ self.weights[f"model.layers.{layer}.self_attn.o_proj.weight"].T
        )
        return out

    def _rotate(self, x: Floats) -> Floats:
        """Rotary positions: the pair (i, i + half) of a head turns by position * frequency i."""
        half = x.shape[-1] // 2
        frequency = self.config["rope_parameters"]["rope_theta"] ** (-np.arange(half) / half)
        angle = (np.arange(len(x))[:, None] * frequency)[:, None, :]
        first, second = x[..., :half], x[..., half:]
        turned = (
            first * np.cos(angle) - second * np.sin(angle),
            second * np.cos(angle) + first * np.sin(angle),
        )
        return np.concatenate(turned, axis=-1)
