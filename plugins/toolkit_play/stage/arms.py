"""An arm: the edits that a game is played under, and the check that all of them were made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit.errors import DataError

if TYPE_CHECKING:
    from toolkit.edits import Edit


@dataclass(frozen=True)
class Arm:
    """An intervention on games: its name, and its edits for a prompt of a given length."""

    name: str
    is_null: bool
    """Whether other arms are ranked among this one and its like."""
    operations: Sequence[tuple[str, Any, str | None]]
    """(hookpoint, operation, hookpoint that it reads if a different one), by layer."""
    tokens: str
    shared: Sequence[Edit] = ()
    """The edits of every prompt if they do not depend on its length."""

    def edits(self, prompt_tokens: int) -> Sequence[Edit]:
        """The edits of one reply."""
        if self.tokens == "all":
            return self.shared
        return edits_at(self.operations, prompt_tokens - 1)

    def check_made(
        self, edits: Sequence[Edit], request: str, prompt_tokens: int, reply_tokens: int
    ) -> None:
        """Check that every edit was made at each targeted token of the prompt and of the reply,
        whose last token the model never reads. Clears the counts of the request.
        """
        planned = prompt_tokens if self.tokens == "all" else 1
        for edit in edits:
            prompt_edits = edit.tally.counts.pop((request, "prompt"), 0)
            reply_edits = edit.tally.counts.pop((request, "generation"), 0)
            if prompt_edits != planned or not reply_tokens - 1 <= reply_edits <= reply_tokens:
                raise DataError(
                    f"{request}: an edit at {edit.hookpoint} was planned at {planned} tokens of "
                    f"the prompt and {max(0, reply_tokens - 1)} of the reply, and made at "
                    f"{prompt_edits} and {reply_edits}. The model's session makes edits more or "
                    "less often than requested; its loader is at fault."
                )


def edits_at(operations: Sequence[tuple[str, Any, str | None]], start: int) -> list[Edit]:
    """The edits of operations from a position on."""
    from toolkit.edits import Edit, from_position

    return [
        Edit(hookpoint, operation, from_position(start), read_hookpoint)
        for hookpoint, operation, read_hookpoint in operations
    ]
