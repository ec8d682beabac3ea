"""Content keys: a tagged hash of canonical JSON of all that can change a result. The tag changes
when the recipe does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from toolkit.ledger import key_of as key_of

if TYPE_CHECKING:
    import pyarrow as pa


def canonical(material: Mapping[str, Any]) -> str:
    """The canonical JSON text of `material`: sorted keys, no spaces, no NaN."""
    return json.dumps(
        material, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def digest_of(table: pa.Table) -> str:
    """A hash of a table's rows in their order: equal rows, equal digest, however the table is
    chunked.
    """
    digest = hashlib.sha256(str(table.schema.names).encode())
    for row in table.to_pylist():
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False).encode())
        digest.update(b"\n")
    return digest.hexdigest()


def differences(old: str, new: str) -> str:
    """The changes between two canonical texts, in words: `params.n 16 -> 64, seed 1 -> 2`."""
    results = [
        f"{change.path} {_short(change.old)} -> {_short(change.new)}"
        for change in _changes("", json.loads(old), json.loads(new))
    ]
    return ", ".join(results[:4]) + (f" and {len(results) - 4} more" if len(results) > 4 else "")


class _TextChange(NamedTuple):
    """A value that differs between two texts."""

    path: str
    old: Any
    new: Any


def _changes(prefix: str, old: Any, new: Any) -> list[_TextChange]:
    if isinstance(old, dict) and isinstance(new, dict):
        names = sorted({*old, *new})
        return [
            change
            for name in names
            for change in _changes(
                f"{prefix}.{name}" if prefix else name, old.get(name), new.get(name)
            )
        ]
    return [] if old == new else [_TextChange(prefix, old, new)]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 24 else f"{text[:10]}...{text[-6:]}"
