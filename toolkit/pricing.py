"""What passes over a model cost, and what rows take: from the facts of identities alone. For parts that price themselves.

Facts are those that loaders state (`Identity.facts`). Where one is missing, nobody has the model's files yet: then a pass costs 0
and a plan says that it is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ENTRY, ROW = 8, 40
"""Bytes of an active feature (number and value), and of a row of `activations` or of numbers beside names, before compression."""
TOKENS = 8192
"""Padded tokens of a pass where no batch plan says otherwise."""
ANSWERED = 16_384
"""Padded tokens, replies included, that a model keeps the keys of while it answers many prompts."""

Facts = Mapping[str, Any]


def token_flops(model: Facts, mean: float, blocks: int | None = None) -> float:
    """A token through the first `blocks` blocks (all, if not said): their weights, and attention to half of a text of `mean` tokens."""
    layers = max(1, model.get("layers", 1))
    used = layers if blocks is None else min(layers, blocks)
    return float(2 * model.get("block_parameters", 0) * used / layers + 2 * mean * model.get("width", 0) * used)


def head_flops(model: Facts) -> float:
    """The logits of one token."""
    return float(2 * model.get("width", 0) * model.get("vocabulary", 0))


def token_bytes(model: Facts, kept: int) -> int:
    """Memory of one token of a pass: the `kept` streams, and what a block needs while it runs."""
    width, item = model.get("width", 0), model.get("item", 4)
    return int(item * width * (kept + 8 + 3 * model.get("intermediate", 4 * width) / max(1, width)))


def pass_bytes(model: Facts, tokens: int, longest: int, kept: int, most: int = TOKENS) -> int:
    """A model and a pass of at most `most` padded tokens over it."""
    return int(model.get("bytes", 0) + min(max(most, longest), max(tokens, longest)) * token_bytes(model, kept))


def key_bytes(model: Facts) -> int:
    """Memory of the keys and values of one token, kept in every block."""
    return int(2 * model.get("layers", 0) * model.get("keys", model.get("width", 0)) * model.get("item", 4))
