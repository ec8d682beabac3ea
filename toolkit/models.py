"""What a model part's `load` gives: the methods that stages call, with working defaults for all
that can be built from three.

A new architecture writes `encode`, `decode`, `run` and `unembed`; `prefix`/`suffix`, `generate` and
`score` then work by whole forward passes, and may be overridden by something faster. Tensors are
torch's. This module does not import torch before a method needs it: reading the contract is light.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit.errors import DataError
from toolkit.hookpoints import Hookpoint

if TYPE_CHECKING:
    from torch import Tensor

    from toolkit.parts import Identity

Span = tuple[str, int, int]
"""A name and a half-open range: of characters in a prompt, of tokens in `Tokens`."""


@dataclass(frozen=True)
class Tokens:
    """A text as the model reads it: `pieces` are the parts of `text` that stand behind `ids`; spans
    count tokens; `bos` says whether the first token is the model's BOS.
    """

    text: str
    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    spans: tuple[Span, ...] = ()
    bos: bool = False


@dataclass(frozen=True)
class Encoded:
    """What a tokeniser says: the rendered text, ids, and the characters (half open) of each id;
    `(n, n)` for an added BOS.

    `shift` is where the given text begins in the rendered one: more than 0 behind a chat template's
    header.
    """

    text: str
    ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]
    shift: int = 0


@dataclass(frozen=True)
class Edit:
    """Put `value` in place of the stream at one position of one row of a batch."""

    hookpoint: str
    row: int
    position: int
    value: Tensor


@dataclass(frozen=True)
class Prefix:
    """A prompt whose work is done once: all its tokens, and what the model keeps of them for
    `suffix`.
    """

    ids: tuple[int, ...]
    kept: Any = None
    captured: Mapping[str, Tensor] | None = None
    """The last token's stream at the hookpoints that `prefix` was asked for: one row each."""


@dataclass(frozen=True)
class Generated:
    """A reply. `finish`: `stop` (end of text), `until` (a stop string was reached), `length` (cut
    off).
    """

    ids: tuple[int, ...]
    text: str
    finish: str


Draw = Callable[[int, int, "Tensor"], int]
"""Chooses the next token: (row, how many tokens the reply has, probabilities in float64 on the CPU)
-> token id.
"""


class Model(ABC):
    """A loaded model. Layers count from 0; sequences are padded on the right, where a causal model
    cannot see the padding.
    """

    identity: Identity
    layers: int
    width: int
    context: int

    # --- to be written ---

    @abstractmethod
    def encode(self, text: str, *, chat: bool = False) -> Encoded:
        """Token ids with BOS where the model wants one (exactly one, in chat too), and where each
        stands in the text.
        """

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids; special tokens are left out."""

    @abstractmethod
    def run(
        self, batch: Sequence[Sequence[int]], capture: Sequence[str], edits: Sequence[Edit] = ()
    ) -> dict[str, Tensor]:
        """One pass: for each hookpoint of `capture` a tensor (rows, longest, width), after the
        edits are made.

        `attn_z` is as wide as all heads together; `attn_probs` is (rows, heads, longest, longest):
        queries, then keys.

        Blocks after the last one captured need not be run. What stands beyond a row's end means
        nothing.
        """

    @abstractmethod
    def unembed(self, states: Tensor) -> Tensor:
        """Logits of rows of the last block's output: final norm, head and whatever caps them."""

    end_ids: tuple[int, ...] = ()
    """Tokens that end a reply."""

    bos_id: int | None = None
    """The token that begins every text, if the model has one; its activations are left out of
    results.
    """

    causal: bool = True
    """Whether a token sees only what stands before it. `toolkit.encoders.Encoder` is for the
    others.
    """

    # --- working defaults ---

    def tokenise(
        self, text: str, *, chat: bool = False, spans: Sequence[Span] = (), name: str = ""
    ) -> Tokens:
        """Tokens with character spans turned into token ranges: any overlap counts. Longer than the
        context is an error.
        """
        encoded = self.encode(text, chat=chat)
        if len(encoded.ids) > self.context:
            of = f"sample '{name}'" if name else f"the text '{text[:40]}...'"
            raise DataError(
                f"{of} has {len(encoded.ids)} tokens; {self.identity.name} reads at most "
                f"{self.context}. Shorten the text, or leave the sample out: cutting it off would "
                "change what is asked."
            )
        ranges = tuple(_token_span(span, encoded) for span in spans)
        pieces = tuple(encoded.text[start:end] for start, end in encoded.offsets)
        spans = tuple(span for span in ranges if span is not None)
        bos = len(encoded.ids) > 0 and encoded.ids[0] == self.bos_id
        return Tokens(encoded.text, encoded.ids, pieces, spans, bos)

    def last_hookpoint(self) -> str:
        """Where `unembed` takes its rows from."""
        return str(Hookpoint("resid_post", self.layers - 1))

    def prefix(self, ids: Sequence[int], capture: Sequence[str] = ()) -> Prefix:
        """Do the work of a prompt once, for many `suffix` calls, and keep its last token's stream
        at `capture`.
        """
        wanted = [*dict.fromkeys((*capture, self.last_hookpoint()))]
        found = self.run([ids], wanted)
        return Prefix(tuple(ids), None, {name: found[name][0, len(ids) - 1] for name in wanted})

    def suffix(self, prefix: Prefix, rows: Sequence[tuple[int, Tensor]]) -> Tensor:
        """Last-token states (one row each) when the stream after block `layer`, at the last token,
        is `row` instead.
        """
        import torch

        if not rows:
            return torch.empty((0, self.width))
        at = len(prefix.ids) - 1
        found = []
        for start in range(0, len(rows), 64):
            chunk = rows[start : start + 64]
            edits = [
                Edit(f"resid_post.{layer}", row, at, value)
                for row, (layer, value) in enumerate(chunk)
            ]
            found.append(
                self.run([prefix.ids] * len(chunk), [self.last_hookpoint()], edits)[
                    self.last_hookpoint()
                ][:, at]
            )
        return torch.cat(found)

    def next_logits(self, batch: Sequence[Sequence[int]]) -> Tensor:
        """Logits of the token after each sequence."""
        import torch

        states = self.run(batch, [self.last_hookpoint()])[self.last_hookpoint()]
        ends = torch.tensor([len(ids) - 1 for ids in batch])
        return self.unembed(states[torch.arange(len(batch)), ends])

    def generate(
        self, batch: Sequence[Sequence[int]], draw: Draw, *, most: int, until: str | None = None
    ) -> list[Generated]:
        """Sample replies token by token, at most `most` tokens each; `until` ends a reply that has
        text before it.
        """
        replies = [Reply(self, until, most) for _ in batch]
        while live := [row for row, reply in enumerate(replies) if not reply.finish]:
            logits = self.next_logits([[*batch[row], *replies[row].ids] for row in live])
            for row, probabilities in zip(live, as_probabilities(logits), strict=True):
                replies[row].take(draw(row, len(replies[row].ids), probabilities))
        return [reply.generated() for reply in replies]

    def score(self, ids: Sequence[int], continuations: Sequence[Sequence[int]]) -> list[float]:
        """The log-probability of each continuation after `ids`, exactly."""
        import torch

        batch = [[*ids, *more] for more in continuations]
        states = self.run(batch, [self.last_hookpoint()])[self.last_hookpoint()]
        scores = []
        for row, more in enumerate(continuations):
            logp = torch.log_softmax(
                self.unembed(states[row, len(ids) - 1 : len(batch[row]) - 1]).double(), dim=-1
            )
            scores.append(float(logp[torch.arange(len(more)), torch.tensor(list(more))].sum()))
        return scores


class Reply:
    """A reply under way: takes tokens until it ends."""

    def __init__(self, model: Model, until: str | None, most: int) -> None:
        self._model, self._until, self._most = model, until, most
        self.ids: list[int] = []
        self.finish = ""

    def take(self, token: int) -> None:
        """Add one token and see whether that ends the reply."""
        self.ids.append(token)
        if token in self._model.end_ids:
            self.finish = "stop"
        elif self._until and self._until in _behind(self._model.decode(self.ids), self._until):
            self.finish = "until"
        elif len(self.ids) >= self._most:
            self.finish = "length"

    def generated(self) -> Generated:
        """The reply as a record."""
        return Generated(tuple(self.ids), self._model.decode(self.ids), self.finish)


def _behind(text: str, start: str) -> str:
    """Text without what it begins with, however often."""
    while text.startswith(start):
        text = text[len(start) :]
    return text


def as_probabilities(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Probabilities in float64 on the CPU: where every draw is made, whatever the device."""
    import torch

    return torch.softmax(logits.to("cpu", torch.float64) / temperature, dim=-1)


def _token_span(span: Span, encoded: Encoded) -> Span | None:
    name, start, end = span[0], span[1] + encoded.shift, span[2] + encoded.shift
    inside = [
        at for at, (first, last) in enumerate(encoded.offsets) if first < end and last > start
    ]
    return (name, inside[0], inside[-1] + 1) if inside else None
