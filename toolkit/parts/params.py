"""Params that name another part, such as a stage's game, and the params of sinks."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import ConfigDict, Field, PrivateAttr, ValidationInfo, field_validator

from toolkit.errors import BadInput
from toolkit.params import Params
from toolkit.samples.games import Environment, Parser


class UsedPart(Params):
    """A part that the params of another part name: `{uses: NAME, with: {...}}`.

    Validation looks the part up among those of the context (`context={"parts": parts}`) and
    validates `with` as its params. Subclasses say which kind of part they name.
    """

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)
    kind: ClassVar[str] = "part"

    uses: str = Field(min_length=1, description="The part's name, as `toolkit plugins` lists it.")
    with_: Any = Field(
        default={}, alias="with", validate_default=True, description="The part's params."
    )
    version: str | None = Field(
        None, description="The part's version; another installed version is refused."
    )
    _part: Any = PrivateAttr(None)

    @field_validator("uses")
    @classmethod
    def _is_installed(cls, uses: str, info: ValidationInfo) -> str:
        _looked_up(cls.kind, uses, info.context)
        return uses

    @field_validator("with_", mode="after")
    @classmethod
    def _fits_the_part(cls, params: Any, info: ValidationInfo) -> Any:
        if "uses" not in info.data:
            return params
        part = _looked_up(cls.kind, info.data["uses"], info.context)
        return part.params.model_validate(params, context=info.context)

    def model_post_init(self, context: Any) -> None:
        """Bind the part, and record its version, so that it enters the keys of what is made."""
        part = _looked_up(self.kind, self.uses, context)
        is_free = self.kind in (context or {}).get("any_version_of", ())
        if self.version not in (None, part.version) and not is_free:
            raise ValueError(
                f"version: {self.kind} part '{self.uses}' is installed in version {part.version}, "
                f"not {self.version}"
            )
        object.__setattr__(self, "version", part.version)
        self._part = part

    @property
    def part(self) -> Any:
        """The part itself."""
        return self._part


class UsedEnvironment(UsedPart):
    """A game that a stage plays."""

    kind: ClassVar[str] = "environment"

    def make(self) -> Environment:
        """The game, ready to be played."""
        game: Environment = self.part.make(self.with_)
        return game


class UsedParser(UsedPart):
    """A parser that reads replies."""

    kind: ClassVar[str] = "parser"

    def make(self) -> Parser:
        """The function that reads a reply to a prompt."""
        parse: Parser = self.part.make(self.with_)
        return parse


def _looked_up(kind: str, name: str, context: Any) -> Any:
    parts = (context or {}).get("parts")
    if parts is None:
        raise ValueError(
            f"the {kind} part '{name}' cannot be looked up: validate with context={{'parts': ...}}"
        )
    try:
        return parts.get(kind, name)
    except BadInput as error:
        raise ValueError(str(error)) from None


class SinkParams(Params):
    """Base of every sink's params."""

    path: str = Field("out", min_length=1, description="Folder, relative to the spec.")
