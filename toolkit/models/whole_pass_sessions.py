"""A session for any model that has `run`: one pass over whole sequences for each new token."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from toolkit.edits import Edit, PassRows, Tally, choose
from toolkit.models.sessions import Generated, ReplyBuilder, Request, Session
from toolkit.models.token_sampling import take_tokens


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
        """Yield replies as they end."""
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


def _edit_of_pass(edit: Edit, pass_rows: Sequence[int], live: Sequence[ReplyBuilder]) -> Edit:
    requests = [reply.request for reply in live]
    rows = PassRows(
        [0] * len(live),
        [len(reply.request.ids) + len(reply.ids) for reply in live],
        [request.row for request in requests],
        range(len(live)),
        [0] * len(live),
    )
    chosen = choose(edit, rows, pass_rows)
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
        for row in pass_rows
    }
    return replace(edit, targets=targets, tally=_RelayedTally(to=edit.tally, rows=done))
