"""The params of token tracking."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from toolkit.parts import UNHASHED, Params
from toolkit.samples.selectors import At, Selector, Where

from .layers import HELP, Layers

EVERY_TOKEN = Selector.model_validate({"exclude": {"bos": False}})


def _check_positions(value: Any) -> Any:
    """Refuse a text that names no positions, with the same message as every other `at`."""
    if isinstance(value, str):
        At.model_validate({"at": value})
    return value


Positions = Annotated[Where, BeforeValidator(_check_positions)]


class Attention(Params):
    """Which attention rows are kept, and how much of each."""

    queries: Positions = Field(
        EVERY_TOKEN,
        description="Positions whose attention is kept: a selector; by default every token, BOS "
        "included.",
    )
    top: int | None = Field(
        None,
        ge=1,
        description="Keep only the k largest weights of each row, and the sum of the others; by "
        "default whole rows are kept.",
    )


class Batch(Params):
    """How many samples and tokens are computed at once."""

    batch: int = Field(
        32, ge=1, description="Samples per step; samples with equal tokens are in the same step."
    )
    tokens: int | Literal["auto"] = Field(
        "auto",
        description="Padded tokens per forward pass; auto: as many as keep the attention weights "
        "under a gigabyte.",
        json_schema_extra=UNHASHED,
    )


class TrackTokens(Batch):
    """Features at the chosen tokens, and the attention of every head, from one pass."""

    at: Positions = Field(
        "all", description="Tokens whose features are kept: last, all (but BOS) or a selector."
    )
    attention: Attention | None = Field(
        default_factory=lambda: Attention.model_validate({}),
        description="Which attention to keep at the layers of the SAEs; null: none.",
    )


class TrackAttention(Batch, Attention):
    """Attention of every head at some layers. No SAE is read."""

    layers: Layers = Field("all", description=f"Layers: {HELP}.")
