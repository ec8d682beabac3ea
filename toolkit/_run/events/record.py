"""The fields of every event of a run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar


def now() -> str:
    """This moment in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def time_in_words(time: str) -> str:
    """A time as people read it, to the second."""
    return f"{time[:19].replace('T', ' ')} UTC"


@dataclass(frozen=True, kw_only=True)
class RunEvent:
    """The fields of every event."""

    event: ClassVar[str] = ""
    words: ClassVar[str] = ""
    """The event in a sentence, with its fields in braces."""
    recorded: ClassVar[bool] = True
    """Whether it is written to `events.jsonl`, of which signs of life would be the largest part."""
    at: str = ""
    """When it happened: ISO 8601, UTC."""

    def sentence(self) -> str:
        """The event in words: the plain progress line and the log line."""
        return self.words.format_map(vars(self))
