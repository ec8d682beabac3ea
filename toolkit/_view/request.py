"""The query of an address: read and checked here, before it reaches the store."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from toolkit.errors import BadInput, nearest

MAX_LENGTH = 500
"""The most characters of a value in an address."""
MAX_NUMBER = 1_000_000_000
"""The largest whole number in an address."""


@dataclass(frozen=True)
class Query:
    """The query values of an address, by name."""

    values: Mapping[str, str]

    def check_names(self, read: Sequence[str], read_by_all: Sequence[str]) -> None:
        """Refuse a name that the page does not read; every page reads those of `read_by_all`."""
        known = {*read, *read_by_all}
        unknown = next((name[:40] for name in self.values if name not in known), None)
        if unknown is not None:
            raise BadInput(
                f"{unknown}: this page does not read it.{nearest(unknown, read)} Leave it out of "
                f"the address. The page reads: {', '.join(read) or 'nothing else'}."
            )

    def text(self, name: str) -> str | None:
        """A text, or None if it is missing."""
        value = self.values.get(name, "")
        if len(value) > MAX_LENGTH:
            raise BadInput(f"{name}: at most {MAX_LENGTH} characters are read.")
        return value or None

    def required(self, name: str) -> str:
        """A text that must be there."""
        value = self.text(name)
        if value is None:
            raise BadInput(f"The address needs ?{name}=...")
        return value

    def integer(self, name: str) -> int | None:
        """A whole number from 0 to `MAX_NUMBER`, or None if it is missing."""
        value = self.text(name)
        if value is None:
            return None
        if not (value.isascii() and value.isdigit()) or int(value) > MAX_NUMBER:
            raise BadInput(f"{name}={value[:20]}: write a whole number from 0 to {MAX_NUMBER:,}.")
        return int(value)

    def number(self, name: str) -> float | None:
        """A number, or None if it is missing."""
        value = self.text(name)
        if value is None:
            return None
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise BadInput(f"{name}={value[:20]}: write a number.")
        return number

    def flag(self, name: str) -> bool:
        """Whether the address has a value of this name."""
        return self.text(name) is not None

    @property
    def downloads(self) -> bool:
        """Whether a table is downloaded, which takes more rows than a page shows."""
        return self.flag("as")


def href(path: str, **values: object) -> str:
    """The address of a page."""
    query = {name: str(value) for name, value in values.items() if value not in (None, "")}
    return f"{path}?{urlencode(query)}" if query else path
