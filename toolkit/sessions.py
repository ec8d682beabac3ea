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
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from toolkit.edits import Edit, PassRows, Tally, choose
from toolkit.errors import BadInput, DataError

if TYPE_CHECKING:
    from torch import Tensor

    from toolkit.identity import Identity

Draw = Callable[[int], float]
"""The random number in [0, 1) that chooses a reply's n-th token, counted from 0."""
Until = str | Callable[[str], bool] | None
"""What ends a reply: a text (behind other text), or a function of the reply so far; one that is a
`CompleteLine` is asked less often.
"""
TAIL_TOKENS = 8
"""Tokens, besides those of a text that is waited for, that certainly hold its last characters."""
NOT_NUMBERS = (
    "the model's logits are not finite numbers. Load the model in another dtype (float32 "
    "or bfloat16)."
)
SESSION_TOKENS = 16_384
"""Tokens that a session keeps at a time by default."""


class SessionModel(Protocol):
    """What a session needs of a model; every `toolkit.models.Model` has it."""

    @property
    def identity(self) -> Identity:
        """Which model it is, for messages."""
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
    decoded anew for every token.
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
        """Ask for a reply to `ids`; allowed while `run` goes on. `id` comes back with the reply,
        and names the row in the tallies of edits. The end of the text is not drawn before a reply
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


# --- drawing --------------------------------------------------------------------------------------


def take_tokens(model: SessionModel, replies: Sequence[ReplyBuilder], logits: Tensor) -> int:
    """Draw the next token of each reply from its row of logits; return how many were close."""
    requests = [reply.request for reply in replies]
    _check_numbers(replies, logits)
    drawn, close = draw_tokens(
        _without_end(model, replies, logits),
        [
            None if request.draw is None else request.draw(len(reply.ids))
            for request, reply in zip(requests, replies, strict=True)
        ],
        [request.temperature for request in requests],
        model.draw_tolerance,
    )
    for reply, token, near in zip(replies, drawn, close, strict=True):
        reply.take(token, close=near)
    return sum(close)


def _without_end(model: SessionModel, replies: Sequence[ReplyBuilder], logits: Tensor) -> Tensor:
    """The logits, with the end of the text excluded for replies that are still too short."""
    short = [row for row, reply in enumerate(replies) if len(reply.ids) < reply.request.min_tokens]
    if not short or not model.end_ids:
        return logits
    masked = logits.clone()
    for token in model.end_ids:
        masked[short, token] = float("-inf")
    return masked


def _check_numbers(replies: Sequence[ReplyBuilder], logits: Tensor) -> None:
    """Refuse logits that are not numbers, naming the sequence and the token."""
    bad = (logits.isnan() | (logits == float("inf"))).any(-1)
    if bool(bad.any()):
        reply = replies[int(bad.nonzero()[0])]
        raise DataError(f"'{reply.request.id}', token {len(reply.ids)} of its reply: {NOT_NUMBERS}")


def draw_tokens(
    logits: Tensor,
    uniforms: Sequence[float | None],
    temperatures: Sequence[float],
    tolerance: float,
) -> tuple[list[int], list[bool]]:
    """The token of each row by inverse CDF in float64 (the likeliest where `uniforms` has None),
    and whether the draw lies within `tolerance` of the border to another token. A low temperature
    stretches differences between logits, and the tolerance with them.
    """
    import torch

    device = torch.device("cpu") if logits.device.type == "mps" else logits.device
    wide = logits.to(device, torch.float64)
    heat = torch.tensor(temperatures, dtype=torch.float64, device=device)
    shares = torch.softmax(wide / heat[:, None], dim=-1)
    if not bool(shares.isfinite().all()):
        raise DataError(NOT_NUMBERS)
    allowed = tolerance / heat.clamp(max=1.0)
    summed = shares.cumsum(-1)
    points = torch.tensor(
        [0.0 if uniform is None else uniform for uniform in uniforms],
        dtype=torch.float64,
        device=device,
    )
    points = (points * summed[:, -1])[:, None]
    last = shares.shape[-1] - 1 - (shares.flip(-1) > 0).int().argmax(-1, keepdim=True)
    drawn = torch.minimum(torch.searchsorted(summed, points, right=True), last)
    above = summed.gather(-1, drawn)
    below = above - shares.gather(-1, drawn)
    up = torch.where(drawn < last, above - points, 1.0)
    down = torch.where(below > 0, points - below, 1.0)
    close = torch.minimum(up, down)[:, 0] < allowed
    best, order = shares.topk(min(2, shares.shape[-1]), dim=-1)
    greedy = torch.tensor([uniform is None for uniform in uniforms], device=device)
    drawn = torch.where(greedy, order[:, 0], drawn[:, 0])
    close = torch.where(greedy, best[:, 0] - best[:, -1] < allowed, close)
    return drawn.tolist(), close.tolist()


# --- the default: whole passes --------------------------------------------------------------------


@dataclass
class _RelayedTally(Tally):
    """Counts for an edit of a session: only tokens that no earlier pass has counted."""

    to: Tally = field(default_factory=Tally)
    rows: dict[Hashable, tuple[Hashable, int, int]] = field(default_factory=dict)
    """Row of the pass -> (name, prompt tokens, tokens that earlier passes computed)."""

    def record(
        self, rows: Sequence[Hashable], positions: Sequence[int], prompts: Sequence[int]
    ) -> None:
        new = [
            (self.rows[row], position)
            for row, position in zip(rows, positions, strict=True)
            if position >= self.rows[row][2]
        ]
        self.to.record(
            [of[0] for of, _ in new], [position for _, position in new], [of[1] for of, _ in new]
        )


class WholePassSession(Session):
    """For each new token, runs one pass over all tokens of every live sequence: slow, but correct
    for any model that has `run`.
    """

    def run(self) -> Iterator[Generated]:
        """Replies as they end."""
        live: list[ReplyBuilder] = []
        while self._waiting or live:
            while self._waiting and (not live or self._fits(live, self._waiting[0])):
                live.append(ReplyBuilder(self.model, self._waiting.popleft()))
            self._step(live)
            ended = [reply for reply in live if reply.finish]
            live = [reply for reply in live if not reply.finish]
            for reply in ended:
                yield reply.generated()

    def _fits(self, live: Sequence[ReplyBuilder], request: Request) -> bool:
        requests = [*(reply.request for reply in live), request]
        return sum(len(waiting.ids) + waiting.max_tokens for waiting in requests) <= self.budget

    def _step(self, live: Sequence[ReplyBuilder]) -> None:
        batch = [[*reply.request.ids, *reply.ids] for reply in live]
        logits = self.model.next_logits(batch, _edits_of_pass(live))
        counts = self.counts
        counts.passes += 1
        counts.computed_tokens += sum(len(reply.request.ids) for reply in live if not reply.ids)
        counts.padded_tokens += len(batch) * max(map(len, batch)) - sum(map(len, batch))
        counts.most_kept = max(counts.most_kept, sum(map(len, batch)))
        counts.close_calls += take_tokens(self.model, live, logits)
        counts.generated_tokens += len(live)


def _edits_of_pass(live: Sequence[ReplyBuilder]) -> list[Edit]:
    """The edits of all sequences, with rows of the pass as targets. Sequences that share an edit
    share one here, in the order of first use.
    """
    holders: dict[int, tuple[Edit, list[int]]] = {}
    for row, reply in enumerate(live):
        for edit in reply.request.edits:
            holders.setdefault(id(edit), (edit, []))[1].append(row)
    return [_edit_of_pass(edit, rows, live) for edit, rows in holders.values()]


def _edit_of_pass(edit: Edit, held: Sequence[int], live: Sequence[ReplyBuilder]) -> Edit:
    requests = [reply.request for reply in live]
    rows = PassRows(
        [0] * len(live),
        [len(reply.request.ids) + len(reply.ids) for reply in live],
        [request.row for request in requests],
        range(len(live)),
        [0] * len(live),
    )
    chosen = choose(edit, rows, held)
    targets = replace(
        edit.targets,
        rows=chosen.rows,
        starts=chosen.columns,
        stops=chosen.columns + 1,
        index=chosen.index,
    )
    done: dict[Hashable, tuple[Hashable, int, int]] = {
        row: (
            live[row].request.id,
            len(live[row].request.ids),
            len(live[row].request.ids) + len(live[row].ids) - 1 if live[row].ids else 0,
        )
        for row in held
    }
    return replace(edit, targets=targets, tally=_RelayedTally(to=edit.tally, rows=done))
