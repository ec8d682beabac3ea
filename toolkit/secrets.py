"""Values that a spec takes from the environment with `${env:NAME}`: used but never recorded, since
any of them may be a secret. A key holds a slow, keyed hash in place of such a value, so that a
changed value is a changed key; manifests, events, plans, reports and exports hold the reference as
written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

SHORTEST = 4
"""Shorter values are not searched for in other texts: `1` or `no` would match everywhere."""


@dataclass(frozen=True)
class Secrets:
    """Names of environment variables and their values."""

    values: Mapping[str, str] = field(default_factory=dict, repr=False)

    def hide(self, text: str) -> str:
        """`text` with `${env:NAME}` in place of each value that is in it."""
        for name, value in sorted(self.values.items(), key=lambda pair: -len(pair[1])):
            if len(value) >= SHORTEST:
                text = text.replace(value, f"${{env:{name}}}")
        return text

    def hide_in(self, data: Any) -> Any:
        """Hide the values in every text of plain data."""
        if not self.values:
            return data
        if isinstance(data, str):
            return self.hide(data)
        if isinstance(data, Mapping):
            return {self.hide_in(key): self.hide_in(value) for key, value in data.items()}
        if isinstance(data, (list, tuple)):
            return [self.hide_in(value) for value in data]
        return data

    def united(self, others: Iterable[Secrets]) -> Secrets:
        """The union of these and more secrets."""
        values = dict(self.values)
        for other in others:
            values.update(other.values)
        return Secrets(values)


NONE = Secrets()


@cache
def keyed_hash(value: str) -> str:
    """The hash that replaces a value in a key: equal for equal values on every machine, and slow to
    guess from.
    """
    digest = hashlib.scrypt(value.encode(), salt=b"sae-toolkit env", n=1 << 14, r=8, p=1, dklen=16)
    return f"env-{digest.hex()}"
