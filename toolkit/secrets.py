"""Values that a spec takes from the environment with `${env:NAME}`: used but never recorded, since
any of them may be a secret. A key holds a slow, keyed hash in place of such a value, so that a
changed value is a changed key; manifests, events, plans, reports and exports hold the reference as
written.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, BinaryIO
from urllib.parse import quote, quote_plus

from toolkit.errors import ToolkitError

SHORTEST = 4
"""Shorter values are not searched for in other texts: `1` or `no` would match everywhere."""


@dataclass(frozen=True)
class Secrets:
    """Names of environment variables and their values."""

    values: Mapping[str, str] = field(default_factory=dict, repr=False)

    def hide(self, text: str) -> str:
        """Replace each value in `text` by `${env:NAME}`, also where Python, JSON or a URL escapes
        it.
        """
        for form, reference in self.forms:
            text = text.replace(form, reference)
        return text

    @cached_property
    def forms(self) -> tuple[tuple[str, str], ...]:
        """How each value may be written, and the reference to it; longer ones first."""
        forms = {
            form: f"${{env:{name}}}"
            for name, value in self.values.items()
            if len(value) >= SHORTEST
            for form in _written(value)
        }
        return tuple(sorted(forms.items(), key=lambda pair: -len(pair[0])))

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

    @contextmanager
    def kept_out_of_errors(self) -> Iterator[None]:
        """Replace the values by references in every exception raised inside the block."""
        try:
            yield
        except (ToolkitError, OSError) as error:
            error.args = tuple(self.hide_in(list(error.args)))
            if isinstance(error, OSError):
                error.filename = self.hide_in(error.filename)
            raise

    def united(self, others: Iterable[Secrets]) -> Secrets:
        """The union of these and more secrets."""
        values = dict(self.values)
        for other in others:
            values.update(other.values)
        return Secrets(values)


NONE = Secrets()


def _written(value: str) -> Iterable[str]:
    """A value as it is, and as texts quote it."""
    raw = value.encode(errors="surrogateescape")
    quoted = (repr(value), json.dumps(value), json.dumps(value, ensure_ascii=False))
    return (value, *(text[1:-1] for text in quoted), quote(raw, safe=""), quote_plus(raw))


class HidingFile:
    """Writes bytes to a file with references in place of the values of `secrets`, also if a value
    is split over two writes: the end of a write that may be the beginning of a value is held back.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.secrets = NONE
        self._file, self._rest, self._turn = file, b"", threading.Lock()

    def write(self, data: bytes) -> int:
        """Write all that cannot be the beginning of a value; nothing once the file is closed."""
        with self._turn:
            if self._file.closed:
                return 0
            text = self._rest + data
            forms = [
                (form.encode(errors="surrogateescape"), reference.encode())
                for form, reference in self.secrets.forms
            ]
            for form, reference in forms:
                text = text.replace(form, reference)
            waiting = max((_begun(text, form) for form, _ in forms), default=0)
            self._rest = text[len(text) - waiting :]
            self._file.write(text[: len(text) - waiting])
            self._file.flush()
        return len(data)

    def flush(self) -> None:
        """Do nothing: each piece is flushed when it is written."""

    def close(self) -> None:
        """Write what was held back, and close the file."""
        with self._turn:
            if not self._file.closed:
                self._file.write(self._rest)
                self._file.close()


def _begun(text: bytes, form: bytes) -> int:
    """How many bytes at the end of `text` are the beginning of `form`."""
    lengths = range(min(len(text), len(form) - 1), 0, -1)
    return next((length for length in lengths if text.endswith(form[:length])), 0)


@cache
def keyed_hash(value: str) -> str:
    """The hash that replaces a value in a key: equal for equal values on every machine, and slow to
    guess from.
    """
    digest = hashlib.scrypt(value.encode(), salt=b"sae-toolkit env", n=1 << 14, r=8, p=1, dklen=16)
    return f"env-{digest.hex()}"
