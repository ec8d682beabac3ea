"""The base class of every part's params. Plugins import it from `toolkit.parts`."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Params(BaseModel):
    """Base of every part's params: frozen, and an unknown key is an error. The validator of a class
    is built when a spec first uses it: every command imports all parts and uses a few.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), defer_build=True
    )


UNHASHED: dict[str, Any] = {"hashed": False}
"""`Field(..., json_schema_extra=UNHASHED)`: a param that cannot change results (a folder, a batch
size); it enters no key.
"""


class NoParams(Params):
    """The params of parts that take none."""
