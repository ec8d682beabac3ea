"""What identifies a model, a set of SAEs or a data file in every key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Identity:
    """The identity of a model, SAE set or data file, which enters every key. `revision` is for
    people, `digest` for hashing.
    """

    name: str
    revision: str
    digest: str
    facts: Mapping[str, Any] = field(default_factory=dict)
