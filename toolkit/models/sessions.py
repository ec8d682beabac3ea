"""Generate replies token by token: sequences join and leave at every token, and a reply depends
only on its own prompt and random numbers.

    session = model.session(budget=16_384)
    session.submit("game-7/1", ids, draw, max_tokens=64, until="\\n")
    for reply in session.run():
        session.submit(...)          # joins at the next token

A token is drawn by the inverse of the cumulated probabilities, in float64, from the model's logits.
Two ways to compute the same logits differ in their last bits, so a draw that lies within the
model's `draw_tolerance` of the border between two tokens might fall on either side: it is counted
in `Generated.close_calls`. A reply without close calls does not depend on the batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from toolkit.edits import Edit
from toolkit.errors import BadInput, DataError

if TYPE_CHECKING:
    from torch import Tensor

    from toolkit.identity import Identity

Draw = Callable[[int], float]
"""The random number in [0, 1) that chooses a reply's n-th token, counted from 0."""
Until = str | Callable[[str], bool] | None
"""What ends a reply: a text (ignored at the very beginning of the reply), or a function of the
reply so far; a `CompleteLine` is called less often.
"""
TAIL_TOKENS = 8
"""Tokens, besides those of the `until` text, that certainly hold its last characters."""
SESSION_TOKENS = 16_384
"""Tokens that a session keeps at a time by default."""


class SessionModel(Protocol):
    """What a session needs of a model; every `toolkit.models.Model` has it."""

    @property
    def identity(self) -> Identity:
        """The model's identity, for messages."""
        ...

    @property
    def context(self) -> int:
        """The most tokens that it reads."""
        ...

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Tokens that end a reply."""
        ...

    @property
    def draw_tolerance(self) -> float:
        """How far two computations of the same cumulative probability may differ."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids."""
        ...

    def next_logits(self, batch: Sequence[Sequence[int]], edits: Sequence[Edit] = ()) -> Tensor:
        """Logits of the token after each sequence."""
        ...


@dataclass(frozen=True)
class CompleteLine:
    """Ends a reply when its complete lines are `accepted`. A reply that grows within a line is not
    decoded for every token.
    """

    accepted: Callable[[str], bool]

    def __call__(self, text: str) -> bool:
        return self.accepted(text[: text.rfind("\n") + 1])


@dataclass(frozen=True)
class Request:
    """A requested reply. `draw` None: always the likeliest token. `edits` apply to the whole
    sequence; an edit whose targets name rows applies with the targets of `row`.
    """

    id: Hashable
    ids: tuple[int, ...]
    draw: Draw | None
    max_tokens: int
    min_tokens: int = 0
    temperature: float = 1.0
    until: Until = None
    edits: tuple[Edit, ...] = ()
    row: int = 0


@dataclass(frozen=True)
class Generated:
    """A reply. `finish`: `stop` (end of text), `until` (what `until` waits for), `length` (cut
    off). `close_calls`: tokens that another batch might have drawn differently.
    """

    ids: tuple[int, ...]
    text: str
    finish: str
    close_calls: int = 0
    id: Hashable = None


@dataclass
class SessionCounts:
    """Counts of a session. Prompt tokens are computed or reused: computed once for equal prompts,
    or taken from a sequence that begins with the same tokens.
    """

    prompts: int = 0
    prompt_tokens: int = 0
    computed_tokens: int = 0
    generated_tokens: int = 0
    passes: int = 0
    padded_tokens: int = 0
    """Columns of prompt passes that hold no token."""
    most_kept: int = 0
    """The largest number of tokens kept at a time."""
    close_calls: int = 0

    @property
    def reused_tokens(self) -> int:
        """Prompt tokens that were reused."""
        return self.prompt_tokens - self.computed_tokens


class Session(ABC):
    """Generates replies. `budget` bounds the tokens whose keys and values are kept at a time; a
    sequence counts with its prompt and its longest possible reply.
    """

    def __init__(self, model: SessionModel, budget: int | None = None) -> None:
        self.model, self.budget = model, budget or SESSION_TOKENS
        self.counts = SessionCounts()
        self._waiting: deque[Request] = deque()

    def submit(
        self,
        id: Hashable,
        ids: Sequence[int],
        draw: Draw | None = None,
        *,
        max_tokens: int,
        min_tokens: int = 0,
        temperature: float = 1.0,
        until: Until = None,
        edits: Sequence[Edit] = (),
        row: int = 0,
    ) -> None:
        """Request a reply to `ids`, also while `run` is yielding replies. `id` identifies the
        reply, and the row in the tallies of edits. The end of the text is not drawn before a reply
        has `min_tokens`.
        """
        if not ids:
            raise DataError(f"'{id}' has no tokens: a model needs at least one to read.")
        if max_tokens < 1 or temperature <= 0:
            raise BadInput("max_tokens is at least 1, and temperature above 0 (draw None: greedy).")
        if len(ids) + max_tokens - 1 > self.model.context:
            raise DataError(
                f"'{id}' has {len(ids)} tokens and may get {max_tokens} more; "
                f"{self.model.identity.name} reads at most {self.model.context}. Shorten the "
                "prompt or ask for fewer tokens."
            )
        self.counts.prompts += 1
        self.counts.prompt_tokens += len(ids)
        self._waiting.append(
            Request(
                id, tuple(ids), draw, max_tokens, min_tokens, temperature, until, tuple(edits), row
            )
        )

    @abstractmethod
    def run(self) -> Iterator[Generated]:
        """Yield replies as they end, until none is left."""


class ReplyBuilder:
    """A reply in progress: takes tokens until it ends."""

    def __init__(self, model: SessionModel, request: Request) -> None:
        self.request, self.finish, self.close_calls = request, "", 0
        self.ids: list[int] = []
        self._model = model

    def take(self, token: int, *, close: bool = False) -> None:
        """Add one token and see whether that ends the reply."""
        self.ids.append(token)
        self.close_calls += close
        if token in self._model.end_ids:
            self.finish = "stop"
        elif self._is_complete():
            self.finish = "until"
        elif len(self.ids) >= self.request.max_tokens:
            self.finish = "length"

    def _is_complete(self) -> bool:
        until = self.request.until
        if not until:
            return False
        if isinstance(until, CompleteLine) and "\n" not in self._tail(1):
            return False
        if callable(until):
            return until(self._model.decode(self.ids))
        tail = self._tail(len(until))
        return until in tail and until in _behind(self._model.decode(self.ids), until)

    def _tail(self, characters: int) -> str:
        """The end of the reply, at least this many characters."""
        return self._model.decode(self.ids[-characters - TAIL_TOKENS :])

    def generated(self) -> Generated:
        """The reply as a record."""
        text = self._model.decode(self.ids)
        return Generated(tuple(self.ids), text, self.finish, self.close_calls, self.request.id)


def _behind(text: str, start: str) -> str:
    """The text without any repetitions of `start` at its beginning."""
    while text.startswith(start):
        text = text[len(start) :]
    return text
