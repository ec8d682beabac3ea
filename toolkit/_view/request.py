"""What an address asks: read and bounded here, before anything of it reaches the store."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from toolkit.errors import BadInput

LONGEST = 500
"""Letters of a value in an address."""
LARGEST = 1_000_000_000


@dataclass(frozen=True)
class Query:
    """The values of an address, by name."""

    values: Mapping[str, str]

    def text(self, name: str) -> str | None:
        """A text; None where it is not given."""
        value = self.values.get(name, "")
        if len(value) > LONGEST:
            raise BadInput(f"{name}: at most {LONGEST} letters are read.")
        return value or None

    def needed(self, name: str) -> str:
        """A text that has to be given."""
        value = self.text(name)
        if value is None:
            raise BadInput(f"The address needs ?{name}=...")
        return value

    def whole(self, name: str) -> int | None:
        """A whole number of 0 or more; None where it is not given."""
        value = self.text(name)
        if value is None:
            return None
        if not (value.isascii() and value.isdigit()) or int(value[:11]) > LARGEST:
            raise BadInput(f"{name}={value[:20]}: write a whole number of 0 or more.")
        return int(value)

    def number(self, name: str) -> float | None:
        """A number; None where it is not given."""
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
        """Whether something is asked for."""
        return self.text(name) is not None

    @property
    def downloads(self) -> bool:
        """Whether a table is taken away, so that all its rows are needed."""
        return self.flag("as")


def href(path: str, **values: object) -> str:
    """An address of these pages."""
    given = {name: str(value) for name, value in values.items() if value not in (None, "")}
    return f"{path}?{urlencode(given)}" if given else path
