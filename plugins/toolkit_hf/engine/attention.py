"""The engine's attention: an implementation that transformers calls instead of its own. A plan says
where keys and values come from.

Shapes: R rows, H query heads, G key heads, Q queries and K keys a row, D a head's size. Heads that
share keys are grouped, so keys are never copied.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from toolkit.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

    from .inputs import Window

PLANNED = "toolkit_planned"
"""The name under which the implementation is registered with transformers."""
TILE_SCORES = 1 << 24
"""The number of attention scores in memory at a time: 64 MB in float32."""


@dataclass(frozen=True)
class Heads:
    """The inputs of a block's attention: queries (R, H, Q, D), new keys and values (R, G, K, D),
    the factor of scores and their cap.
    """

    layer: int
    query: Tensor
    key: Tensor
    value: Tensor
    scaling: float
    softcap: float | None

    @property
    def grouped(self) -> Tensor:
        """(R, G, heads of a group, Q, D)."""
        rows, heads, queries, size = self.query.shape
        groups = self.key.shape[1]
        return self.query.reshape(rows, groups, heads // groups, queries, size)

    def scaled(self, scores: Tensor) -> Tensor:
        """Scores before mask and softmax, in float32."""
        scores = scores * self.scaling
        if self.softcap is not None:
            scores = torch.tanh(scores / self.softcap) * self.softcap
        return scores.float()


class AttentionPlan(ABC):
    """Says where the keys of one pass come from. `past`: keys that are seen before the pass's own
    tokens.
    """

    past: int = 0

    @abstractmethod
    def attend(self, heads: Heads) -> Tensor:
        """(R, Q, H, D): the attention output of each query and head."""


def planned_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    plan: AttentionPlan,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """The function that transformers calls from inside a block."""
    if s_aux is not None:
        raise BadInput(
            f"{type(module).__name__}: attention sinks are not supported by the engine; load the "
            "model by a plugin of its own."
        )
    factor = query.shape[-1] ** -0.5 if scaling is None else scaling
    heads = Heads(module.layer_idx, query, key, value, factor, softcap)
    return plan.attend(heads), None


ALL_ATTENTION_FUNCTIONS.register(PLANNED, planned_attention)


# --- whole sequences ------------------------------------------------------------------------------


@dataclass
class Sequences(AttentionPlan):
    """Whole sequences, causal. Keeps every block's keys where `keep`; `shown` receives the weights
    of chosen queries.
    """

    windows: tuple[Window, ...]
    keep: bool = False
    kept_keys: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    queries: Tensor | None = None
    """(R, chosen) positions whose weights are shown."""
    layers: frozenset[int] = frozenset()
    """Layers whose weights are shown."""
    weights: dict[int, Tensor] = field(default_factory=dict)
    """By layer: (R, H, chosen, K)."""
    is_frozen: bool = False
    """Whether patterns are constants for a gradient."""

    def attend(self, heads: Heads) -> Tensor:
        if self.keep:
            self.kept_keys[heads.layer] = heads.key, heads.value
        if self.queries is not None and heads.layer in self.layers:
            self.weights[heads.layer] = self._weights_of(heads, self.queries)
        if self.is_frozen:
            return self._frozen(heads)
        return whole_sequences(heads, self.windows[heads.layer])

    def _frozen(self, heads: Heads) -> Tensor:
        """Attention with constant patterns, for gradients."""
        window, length = self.windows[heads.layer], heads.query.shape[2]
        visible = causal_mask(length, window, heads.query.device)
        scores = heads.scaled(heads.grouped.detach() @ heads.key.detach()[:, :, None].mT)
        shares = scores.masked_fill(~visible, -torch.inf).softmax(-1).to(heads.value.dtype)
        return merged(shares @ heads.value[:, :, None])

    def _weights_of(self, heads: Heads, queries: Tensor) -> Tensor:
        """Attention weights of the chosen queries over all keys, computed in addition to the
        pass.
        """
        rows, count = queries.shape
        length = heads.key.shape[2]
        positions = queries.to(heads.query.device)
        chosen = torch.arange(rows, device=positions.device)[:, None]
        query = heads.grouped.permute(0, 3, 1, 2, 4)[chosen, positions]
        scores = torch.einsum("rqghd,rgkd->rghqk", query, heads.key)
        keys = torch.arange(length, device=positions.device)
        distance = positions[:, :, None] - keys
        window = self.windows[heads.layer]
        visible = (distance >= 0) & (distance < (window or length + 1))
        masked = heads.scaled(scores).masked_fill(~visible[:, None, None], -torch.inf)
        return masked.softmax(-1).reshape(rows, -1, count, length)


def whole_sequences(heads: Heads, window: Window) -> Tensor:
    """Causal attention of new tokens among themselves."""
    length, device = heads.query.shape[2], heads.query.device
    is_plain = window is None or length <= window
    if heads.softcap is not None or not is_plain:
        visible = causal_mask(length, window, device).expand(len(heads.query), -1, -1)
        return masked_attention(heads, heads.key, heads.value, visible)
    out = torch.nn.functional.scaled_dot_product_attention(
        heads.query,
        heads.key,
        heads.value,
        is_causal=length > 1,
        scale=heads.scaling,
        enable_gqa=heads.query.shape[1] != heads.key.shape[1],
    )
    return out.transpose(1, 2)


def masked_attention(heads: Heads, keys: Tensor, values: Tensor, visible: Tensor) -> Tensor:
    """Attention of queries to the visible (R, Q, K) of the keys (R, G, K, D). Capped scores and
    single queries compute scores explicitly, in tiles of rows.
    """
    rows, count, queries, _ = heads.query.shape
    if queries > 1 and heads.softcap is None:
        members = count // keys.shape[1]
        out = torch.nn.functional.scaled_dot_product_attention(
            heads.query,
            keys.repeat_interleave(members, dim=1),
            values.repeat_interleave(members, dim=1),
            attn_mask=visible[:, None],
            scale=heads.scaling,
        )
        return out.transpose(1, 2)
    tile = max(1, TILE_SCORES // (count * queries * keys.shape[2]))
    parts = [
        _with_scores(heads, keys, values, visible, slice(start, start + tile))
        for start in range(0, rows, tile)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _with_scores(
    heads: Heads, keys: Tensor, values: Tensor, visible: Tensor, rows: slice
) -> Tensor:
    query, keys, values = heads.grouped[rows], keys[rows], values[rows]
    count, groups, members, queries, size = query.shape
    flat = query.reshape(count, groups, members * queries, size)
    scores = (flat @ keys.mT).reshape(count, groups, members, queries, keys.shape[2])
    scores = heads.scaled(scores).masked_fill(~visible[rows][:, None, None], -torch.inf)
    shares = scores.softmax(-1).to(values.dtype).reshape(count, groups, members * queries, -1)
    return merged((shares @ values).reshape(count, groups, members, queries, size))


def causal_mask(length: int, window: Window, device: torch.device) -> Tensor:
    """(Q, K): which positions each query sees."""
    positions = torch.arange(length, device=device)
    distance = positions[:, None] - positions
    return (distance >= 0) & (distance < (window or length + 1))


def merged(out: Tensor) -> Tensor:
    """(R, G, heads of a group, Q, D) -> (R, Q, H, D)."""
    rows, groups, heads, queries, size = out.shape
    return out.reshape(rows, groups * heads, queries, size).transpose(1, 2)


# --- many rows behind one prompt ------------------------------------------------------------------


@dataclass
class BehindPrompt(AttentionPlan):
    """Rows that share the keys of a prompt's first `past` positions and continue with their own
    tokens. The shared keys are one tensor, which all rows read and none copies.
    """

    windows: tuple[Window, ...]
    shared: dict[int, tuple[Tensor, Tensor]]
    """By layer: keys and values (1, G, at least `past`, D)."""
    past: int

    def attend(self, heads: Heads) -> Tensor:
        rows, count, queries, _ = heads.query.shape
        window = self.windows[heads.layer]
        first_visible = max(0, self.past + 1 - window) if window else 0
        scores = count * queries * (self.past - first_visible + queries)
        tile = max(1, TILE_SCORES // scores)
        parts = [
            self._tile(heads, slice(start, start + tile), first_visible)
            for start in range(0, rows, tile)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _tile(self, heads: Heads, rows: slice, first_visible: int) -> Tensor:
        key, value = (
            part[0, :, first_visible : self.past] for part in self.shared[heads.layer]
        )  # (G, K, D)
        query, own_key, own_value = heads.grouped[rows], heads.key[rows], heads.value[rows]
        count, groups, members, queries, size = query.shape
        flat, prompt_keys = count * members * queries, self.past - first_visible
        together = query.permute(1, 0, 2, 3, 4).reshape(groups, flat, size)
        shared = (together @ key.transpose(1, 2)).reshape(
            groups, count, members, queries, prompt_keys
        )
        own_scores = query @ own_key[:, :, None].transpose(-1, -2)
        scores = heads.scaled(torch.cat((shared.transpose(0, 1), own_scores), dim=-1))
        scores = self._masked(scores, self.windows[heads.layer], first_visible)
        shares = scores.softmax(-1).to(value.dtype)
        seen, fresh = shares[..., :prompt_keys], shares[..., prompt_keys:]
        read = seen.transpose(0, 1).reshape(groups, flat, prompt_keys) @ value
        read = read.reshape(groups, count, members, queries, size).transpose(0, 1)
        return merged(read + fresh @ own_value[:, :, None])

    def _masked(self, scores: Tensor, window: Window, first_visible: int) -> Tensor:
        """Mask the scores: each query sees the positions before it, as far as its window
        reaches.
        """
        queries = scores.shape[-2]
        if queries == 1:
            return scores
        positions = torch.arange(self.past, self.past + queries, device=scores.device)
        keys = torch.arange(first_visible, self.past + queries, device=scores.device)
        distance = positions[:, None] - keys
        visible = (distance >= 0) & (distance < (window or self.past + queries + 1))
        return scores.masked_fill(~visible, -torch.inf)
