"""Rows of the tables `samples` and `sample_meta`, as every source of texts writes them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit.models import Tokens


def sample_row(
    name: str, unit: str, tokens: Tokens, prompt_hash: str | None = None
) -> dict[str, Any]:
    """A text as a row of `samples`. Samples with one prompt are one cluster: the prompt is the
    whole text, unless `prompt_hash` says otherwise.
    """
    digest = prompt_hash or hashlib.sha256(tokens.text.encode()).hexdigest()
    return {
        "sample": name,
        "unit": unit,
        "cluster": digest,
        "text": tokens.text,
        "token_ids": tokens.ids,
        "pieces": tokens.pieces,
        "spans": [{"name": name, "start": start, "end": end} for name, start, end in tokens.spans],
        "prompt_hash": digest,
        "bos": tokens.bos,
    }


def metadata_row(name: str, key: str, value: float | str) -> dict[str, Any]:
    """The value of a sample's metadata key, as a row of `sample_meta`."""
    is_text = isinstance(value, str)
    return {
        "sample": name,
        "key": key,
        "number": None if is_text else float(value),
        "string": value if is_text else None,
    }
