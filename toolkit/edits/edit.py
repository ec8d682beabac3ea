"""One edit, and the count of how often it was made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from toolkit.edits.changes import Set
from toolkit.edits.operations import OnStream, Operation
from toolkit.edits.targets import OPEN_END, Targets, from_position, tokens

if TYPE_CHECKING:
    from torch import Tensor


Phase = Literal["prompt", "generation"]


@dataclass
class Tally:
    """How often an edit was made: one count for each token, by row and phase."""

    counts: Counter[tuple[Hashable, Phase]] = field(default_factory=Counter)

    def record(
        self, rows: Sequence[Hashable], positions: Sequence[int], prompts: Sequence[int]
    ) -> None:
        """Token i is at positions[i] of row rows[i], whose prompt has prompts[i] tokens."""
        for row, position, prompt in zip(rows, positions, prompts, strict=True):
            self.counts[row, "prompt" if position < prompt else "generation"] += 1

    def total(self, row: Hashable | None = None, phase: Phase | None = None) -> int:
        """The sum over all rows and phases, or over those given."""
        return sum(
            count
            for (of, when), count in self.counts.items()
            if (row is None or of == row) and (phase is None or when == phase)
        )


@dataclass
class _ShiftedTally(Tally):
    """Counts for an edit of a larger batch, whose row numbers are shifted."""

    to: Tally = field(default_factory=Tally)
    by: int = 0

    def record(
        self, rows: Sequence[Hashable], positions: Sequence[int], prompts: Sequence[int]
    ) -> None:
        shifted = [row + self.by if isinstance(row, int) else row for row in rows]
        self.to.record(shifted, positions, prompts)


@dataclass(frozen=True, eq=False)
class Edit:
    """`operation` at `hookpoint` on the tokens of `targets`; by default on all of them.

    `reads`: another hookpoint of the same layer or of one below, whose stream the operation reads
    (a transcoder reads mlp_in and edits mlp_out).
    """

    hookpoint: str
    operation: Operation
    targets: Targets = field(default_factory=from_position)
    reads: str | None = None
    tally: Tally = field(default_factory=Tally)

    def first_position(self, row: int | None = None) -> int:
        """The first position that it changes, in one row or in any; OPEN_END if there is none."""
        starts = self.targets.starts
        if row is not None and self.targets.rows is not None:
            starts = starts[self.targets.rows == row]
        return int(starts.min()) if len(starts) else OPEN_END

    def of_rows(self, first: int, last: int) -> Edit:
        """The edit restricted to rows first:last of a batch, renumbered from `first`; it keeps its
        tally.
        """
        shifted = _ShiftedTally(to=self.tally, by=first)
        if self.targets.rows is None:
            return replace(self, tally=shifted)
        inside = (self.targets.rows >= first) & (self.targets.rows < last)
        chosen = Targets(
            self.targets.rows[inside] - first,
            *(
                part[inside]
                for part in (self.targets.starts, self.targets.stops, self.targets.index)
            ),
        )
        return replace(self, targets=chosen, tally=shifted)


def set_stream(
    hookpoint: str, rows: Sequence[int], positions: Sequence[int], values: Tensor
) -> Edit:
    """The stream of single tokens, set to values: (width,) for all of them, or one row each."""
    return Edit(hookpoint, OnStream(Set(values)), tokens(rows, positions))
