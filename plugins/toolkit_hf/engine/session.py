"""Generates replies with kept keys: sequences join and leave at every token, equal prompts are
computed once, and a prompt that begins like another sequence reuses its keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from toolkit.costs import ANSWERED
from toolkit.edits import Edit, PassRows, choose
from toolkit.models.sessions import Generated, ReplyBuilder, Request, Session
from toolkit.models.token_sampling import take_tokens

from .attention import PLANNED
from .decoder import DecoderModules
from .sites import Sites
from .slots import COLUMNS, InSlots, Marks, Slots

if TYPE_CHECKING:
    from torch import Tensor

    from toolkit.models import Model

PASS_TOKENS = ANSWERED
"""Padded tokens of one pass over prompts."""
WORTH_WAITING = 16
"""A prompt waits for another one if that saves at least this many tokens and a quarter of its
computation.
"""


@dataclass
class _Joining:
    """Requests for the same prompt under the same edits, which is computed once."""

    requests: list[Request]
    marks: Marks
    source: int = 0
    kept: int = 0
    slot: int = 0

    @property
    def ids(self) -> tuple[int, ...]:
        return self.requests[0].ids

    @property
    def fresh(self) -> int:
        """The number of tokens to compute."""
        return len(self.ids) - self.kept


class SlotSession(Session):
    """A session that uses the engine's attention. Kept keys take slots x columns tokens, at most
    `budget` unless a single sequence is longer.
    """

    def __init__(
        self,
        model: Model,
        decoder: DecoderModules,
        unembed: Callable[[Tensor], Tensor],
        budget: int | None = None,
    ) -> None:
        super().__init__(model, budget)
        self._decoder, self._unembed = decoder, unembed
        self._slots = Slots(decoder)
        self._live: dict[int, ReplyBuilder] = {}
        """By slot."""

    def run(self) -> Iterator[Generated]:
        """Replies as they end."""
        while self._waiting or self._live:
            with torch.inference_mode():
                self._join()
                ended = self._ended()
                if self._live:
                    self._step()
                    ended += self._ended()
            yield from ended

    # --- sequences that join ---

    def _join(self) -> None:
        """Let waiting requests join as far as the budget goes. Those whose prompts share much with
        one that joins now wait for its keys.
        """
        joining: list[_Joining] = []
        waiting: list[Request] = []
        taken, tokens = len(self._live), 0
        columns = self._slots.columns if self._live else 0
        while self._waiting:
            request = self._waiting[0]
            columns_then = max(columns, _room(request))
            if taken and (taken + 1) * columns_then > self.budget:
                break
            self._waiting.popleft()
            twin = self._twin(joining, request)
            if twin is not None:
                twin.requests.append(request)
                taken, columns = taken + 1, columns_then
                continue
            new = self._new(request)
            if tokens + new.fresh > PASS_TOKENS and joining:
                waiting.append(request)
                break
            if self._waits(new, joining):
                waiting.append(request)
                continue
            joining.append(new)
            taken, columns, tokens = taken + 1, columns_then, tokens + new.fresh
        self._waiting.extendleft(reversed(waiting))
        if joining:
            self._read(joining, taken, columns)

    def _twin(self, joining: Sequence[_Joining], request: Request) -> _Joining | None:
        marks = Marks(request.edits, request.row)
        return next(
            (new for new in joining if new.ids == request.ids and new.marks.is_same(marks)), None
        )

    def _new(self, request: Request) -> _Joining:
        marks = Marks(request.edits, request.row)
        source, shared = self._slots.best_source(request.ids, marks)
        return _Joining([request], marks, source, shared)

    def _waits(self, new: _Joining, joining: Sequence[_Joining]) -> bool:
        worth = max(WORTH_WAITING, new.fresh // 4)
        return any(
            new.marks.shared(earlier.marks, _common(new.ids, earlier.ids)) - new.kept >= worth
            for earlier in joining
        )

    def _read(self, joining: list[_Joining], taken: int, columns: int) -> None:
        """Make room, compute prompts in passes of similar lengths, and let all requests join."""
        self._make_room(taken, columns)
        for new in sorted(joining, key=self._needs_copy):
            # The sequence chosen before may have been evicted since.
            new.source, new.kept = self._slots.best_source(new.ids, new.marks)
            new.slot = self._join_slot(new, new.requests[0], new.source, new.kept, taken)
            self.counts.computed_tokens += new.fresh
            self._decoder.counted.texts += len(new.requests)
        states = torch.empty(
            (len(joining), self._decoder.width),
            dtype=self._decoder.dtype,
            device=self._decoder.device,
        )
        order = sorted(range(len(joining)), key=lambda index: joining[index].fresh)
        for rows in _packed(order, [new.fresh for new in joining]):
            states[rows] = self._read_together([joining[index] for index in rows])
        self._join_twins(joining, states, taken)

    def _needs_copy(self, new: _Joining) -> bool:
        """Whether its keys have to be copied or computed; requests that take over a free slot join
        first.
        """
        is_live = self._slots.is_live
        return not new.kept or new.source >= len(is_live) or bool(is_live[new.source])

    def _join_slot(
        self, new: _Joining, request: Request, source: int, shared: int, taken: int
    ) -> int:
        slot = self._slots.join(source, shared, new.ids, new.marks, taken)
        self._live[slot] = ReplyBuilder(self.model, request)
        return slot

    def _make_room(self, taken: int, columns: int) -> None:
        """Reserve slots for all live sequences, and for ended ones as far as the budget goes."""
        allocated = len(self._slots.marks)
        slots = allocated if taken <= allocated else max(taken, allocated + allocated // 2)
        room = max(taken, min(self.budget // columns, slots))
        if room < allocated:
            self._pack()
        self._slots.reserve(room, columns)
        self.counts.most_kept = max(self.counts.most_kept, room * columns)

    def _pack(self) -> None:
        """Move live sequences into the first slots."""
        for source, target in self._slots.pack():
            self._live[target] = self._live.pop(source)

    def _read_together(self, joining: Sequence[_Joining]) -> Tensor:
        """The last-token states of some prompts; the keys of shared first tokens are already
        cached.
        """
        longest = max(new.fresh for new in joining)
        device = self._decoder.device
        tokens = [[*new.ids[new.kept :], *[0] * (longest - new.fresh)] for new in joining]
        starts = torch.tensor([new.kept for new in joining])
        fresh = torch.tensor([new.fresh for new in joining])
        steps = torch.arange(longest)
        is_token = steps < fresh[:, None]
        positions = torch.where(is_token, starts[:, None] + steps, starts[:, None])
        self.counts.passes += 1
        self.counts.padded_tokens += int((~is_token).sum())
        rows = PassRows(
            starts.tolist(),
            [len(new.ids) for new in joining],
            [new.marks.row for new in joining],
            [new.requests[0].id for new in joining],
            [len(new.ids) for new in joining],
        )
        slots = torch.tensor([new.slot for new in joining])
        stream = self._pass(
            torch.tensor(tokens, device=device),
            positions,
            is_token,
            rows,
            [new.marks.edits for new in joining],
            slots,
        )
        for new in joining:
            self._slots.lengths[new.slot] = len(new.ids)
            _count_kept(new.requests[0], new.kept)
        return stream[torch.arange(len(joining), device=device), (fresh - 1).to(device)]

    def _join_twins(self, joining: Sequence[_Joining], states: Tensor, taken: int) -> None:
        """Add the other requests for each prompt just read: they share its keys and logits, and
        draw their own tokens.
        """
        replies = [self._live[new.slot] for new in joining]
        which = list(range(len(joining)))
        for index, new in enumerate(joining):
            length = len(new.ids)
            for request in new.requests[1:]:
                slot = self._join_slot(new, request, new.slot, length, taken)
                _count_kept(request, length)
                replies.append(self._live[slot])
                which.append(index)
        logits = self._unembed(states)[torch.tensor(which, device=states.device)]
        self._take(replies, logits)

    # --- the next token ---

    def _step(self) -> None:
        """Generate one more token for every live sequence."""
        self._pack()
        count = len(self._live)
        replies = [self._live[slot] for slot in range(count)]
        positions = [len(reply.request.ids) + len(reply.ids) - 1 for reply in replies]
        tokens = [reply.ids[-1] for reply in replies]
        self._slots.tokens[range(count), positions] = tokens
        rows = PassRows(
            positions,
            [position + 1 for position in positions],
            [reply.request.row for reply in replies],
            [reply.request.id for reply in replies],
            [len(reply.request.ids) for reply in replies],
        )
        device = self._decoder.device
        stream = self._pass(
            torch.tensor(tokens, device=device)[:, None],
            torch.tensor(positions)[:, None],
            torch.ones((count, 1), dtype=torch.bool),
            rows,
            [reply.request.edits for reply in replies],
            None,
        )
        self._slots.lengths[:count] = [position + 1 for position in positions]
        self.counts.passes += 1
        self._take(replies, self._unembed(stream[:, 0]))

    def _take(self, replies: Sequence[ReplyBuilder], logits: Tensor) -> None:
        self.counts.close_calls += take_tokens(self.model, replies, logits)
        self.counts.generated_tokens += len(replies)

    def _ended(self) -> list[Generated]:
        """Free the slots of complete replies, and return these."""
        ended = [slot for slot, reply in self._live.items() if reply.finish]
        for slot in ended:
            self._slots.leave(slot)
        return [self._live.pop(slot).generated() for slot in ended]

    def _pass(
        self,
        tokens: Tensor,
        positions: Tensor,
        is_token: Tensor,
        rows: PassRows,
        edits: Sequence[Sequence[Edit]],
        slots: Tensor | None,
    ) -> Tensor:
        """Run new tokens through all blocks, each row under its own edits."""
        decoder = self._decoder
        plan = InSlots(decoder.windows, self._slots, slots, positions, is_token)
        positions = positions.to(decoder.device)
        distinct, shares = _shared_edits(edits)
        sites = Sites(decoder, (), distinct, rows, shares)
        inputs = decoder.inputs(positions)
        stream = decoder.embed(tokens, positions)
        with decoder.attention_by(PLANNED):
            for layer in range(decoder.layers):
                stream = sites.before(layer, stream)
                with sites.inside(layer, stream):
                    stream = decoder.run_block(layer, stream, inputs, plan=plan)
                stream = sites.after(layer, stream)
        return stream.to(decoder.device)


def _room(request: Request) -> int:
    """The columns that a request may fill."""
    tokens = len(request.ids) + request.max_tokens
    return -(-tokens // COLUMNS) * COLUMNS


def _common(ids: Sequence[int], others: Sequence[int]) -> int:
    """The length of the common prefix; the last token of a sequence is always computed."""
    count = 0
    for left, right in zip(ids[:-1], others, strict=False):
        if left != right:
            break
        count += 1
    return count


def _packed(order: Sequence[int], lengths: Sequence[int]) -> Iterator[list[int]]:
    """Batches of rows by length, so that padding is small."""
    rows: list[int] = []
    for index in order:
        longest = lengths[index]
        tokens = sum(lengths[row] for row in rows) + longest
        padded = longest * (len(rows) + 1)
        if rows and (padded > PASS_TOKENS or padded > 1.5 * tokens):
            yield rows
            rows = []
        rows.append(index)
    if rows:
        yield rows


def _shared_edits(edits: Sequence[Sequence[Edit]]) -> tuple[list[Edit], dict[int, list[int]]]:
    """Each distinct edit, and the rows that have it."""
    distinct: list[Edit] = []
    number: dict[int, int] = {}
    shares: dict[int, list[int]] = {}
    for row, row_edits in enumerate(edits):
        for edit in row_edits:
            if id(edit) not in number:
                number[id(edit)] = len(distinct)
                distinct.append(edit)
            shares.setdefault(number[id(edit)], []).append(row)
    return distinct, shares


def _count_kept(request: Request, kept: int) -> None:
    """Count edits that reused keys already contain as if they had been made again."""
    if not kept or not request.edits:
        return
    rows = PassRows([0], [kept], [request.row], [request.id], [len(request.ids)])
    for edit in request.edits:
        columns = choose(edit, rows).columns.tolist()
        count = len(columns)
        edit.tally.record([request.id] * count, columns, [len(request.ids)] * count)
