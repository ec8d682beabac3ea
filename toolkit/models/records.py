"""Records of what a model reads and returns: texts, computed prompts, attention, gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from toolkit.errors import BadInput, DataError

if TYPE_CHECKING:
    from torch import Tensor


Span = tuple[str, int, int]
"""A name and a half-open range: of characters in a prompt, of tokens in `Tokens`."""
Frozen = Literal["attention", "norms", "mlp"]
"""What gradients treat as constant: attention patterns; the scale of norms; the gates of MLPs
(activations become a multiplication by a constant, products are halved). All three together are
RelP.
"""
LOGITS = "logits"
"""The name under which an objective reads the logits after each row's last token, (rows,
vocabulary).
"""


@dataclass
class Counted:
    """What a model has computed since it was loaded, as far as its loader counts: texts that it has
    read, and floating-point operations of its own (not those of SAEs).
    """

    texts: int = 0
    operations: float = 0.0


@dataclass(frozen=True)
class Tokens:
    """A text as the model reads it: `pieces` are the parts of `text` that `ids` stand for; spans
    count tokens; `bos` says whether the first token is the model's BOS.
    """

    text: str
    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    spans: tuple[Span, ...] = ()
    bos: bool = False


@dataclass(frozen=True)
class Encoded:
    """The output of a tokeniser: the rendered text, ids, and the half-open character range of each
    id; `(n, n)` for an added BOS. `shift` is where the input text begins in the rendered one: more
    than 0 after a chat template's header.
    """

    text: str
    ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]
    shift: int = 0


@dataclass(frozen=True)
class Prefix:
    """A prompt that is computed once: its tokens, and what the model keeps of them for `suffix` and
    `edited_states`.
    """

    ids: tuple[int, ...]
    kept: Any = None
    captured: Mapping[str, Tensor] | None = None
    """The last token's stream at the captured hookpoints: one row each."""


@dataclass(frozen=True)
class AttentionRows:
    """Attention of chosen queries. `weights[layer][i]`: (queries of row i, heads, tokens of row i),
    float32; `captured`: as `run` gives it.
    """

    weights: Mapping[int, Sequence[Tensor]]
    captured: Mapping[str, Tensor]


@dataclass(frozen=True)
class Gradients:
    """The gradient of each row's objective with respect to the streams at hookpoints, the streams
    themselves ((rows, longest, width) both), and the objectives (rows,).
    """

    gradients: Mapping[str, Tensor]
    streams: Mapping[str, Tensor]
    objectives: Tensor


Objective = Callable[[Mapping[str, "Tensor"]], "Tensor"]
"""Maps what it reads (streams by hookpoint, logits under LOGITS) to one number per row."""


def check_queries(batch: Sequence[Sequence[int]], queries: Sequence[Sequence[int]]) -> None:
    """Check that there is one list of positions per row, each inside its row."""
    if len(batch) != len(queries):
        raise BadInput(
            f"attention: {len(batch)} rows, but {len(queries)} lists of queries; give one list "
            "per row."
        )
    for row, (ids, positions) in enumerate(zip(batch, queries, strict=True)):
        outside = [position for position in positions if not 0 <= position < len(ids)]
        if outside:
            raise DataError(
                f"attention: row {row} has {len(ids)} tokens, so no position {outside[0]}; "
                "positions count from 0."
            )


def token_span(span: Span, encoded: Encoded) -> Span | None:
    """A span of characters as the range of the tokens that overlap it; None if no token does."""
    name, start, end = span[0], span[1] + encoded.shift, span[2] + encoded.shift
    inside = [
        index for index, (first, last) in enumerate(encoded.offsets) if first < end and last > start
    ]
    return (name, inside[0], inside[-1] + 1) if inside else None
