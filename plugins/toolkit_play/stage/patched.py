"""`play.patched`: whole games while features of SAEs are held at other values.

A patch is persistent: the edit is made at every token that it is meant for, of each prompt and of
each reply, also where keys and values of earlier tokens are kept, so that a cache changes nothing.
`tokens: reply` begins with the last token of a prompt, from which the first word of the reply is
drawn; an earlier round is then part of a prompt and is read as it stands.

Games have the repetitions, the luck and the token draws of the unpatched ones: game by game the two
differ by the patch alone, until their texts part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator, model_validator

from toolkit.addresses import locate, parse
from toolkit.errors import BadInput
from toolkit.parts import Params
from toolkit.saes import space_row
from toolkit.work import Rows, Work

from .params import Play

if TYPE_CHECKING:
    from toolkit.edits import Edit

OPERATIONS = ("set", "add", "scale")


class Patch(Params):
    """One feature and what is done to it."""

    feature: str = Field(min_length=1, description="Its address, such as 25/2059.")
    set: float | None = Field(None, description="Hold it at this value.")
    add: float | None = Field(None, description="Add this to its value.")
    scale: float | None = Field(None, description="Multiply its value; 0 ablates it.")

    @field_validator("feature")
    @classmethod
    def _is_an_address(cls, given: str) -> str:
        try:
            parse(given)
        except BadInput as error:
            raise ValueError(str(error)) from None
        return given

    @model_validator(mode="after")
    def _does_one_thing(self) -> Patch:
        given = [name for name in OPERATIONS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(OPERATIONS)}")
        return self


class PatchedPlay(Play):
    """Which games are played, and what is held while they are."""

    arm: str = Field(
        pattern=r"^[a-z][a-z0-9_]*$",
        description="The name of this intervention: it stands in the names of the games, and as "
        "group `arm`.",
    )
    patch: tuple[Patch, ...] = Field(
        min_length=1,
        description="The features that are changed, all at once; at a later layer an edit sees the "
        "stream that earlier ones left.",
    )
    tokens: Literal["all", "reply"] = Field(
        "all", description="all: every token; reply: from the last token of the prompt on."
    )


@dataclass(frozen=True)
class Arm:
    """An intervention on games: its name, and the edits for a prompt of so many tokens."""

    name: str
    operations: Sequence[tuple[str, Any, str | None]]
    """(hookpoint, operation, hookpoint that it reads if another one), by layer."""
    tokens: str
    shared: Sequence[Edit] = ()
    """The edits of every prompt, where they do not depend on its length."""

    def edits(self, prompt_tokens: int) -> Sequence[Edit]:
        """The edits of one reply."""
        if self.tokens == "all":
            return self.shared
        return _edits(self.operations, prompt_tokens - 1)


def play_patched(work: Work) -> Rows:
    """Play this step's games under the patch."""
    from .play import play

    yield from play(work, _arm(work))


def _arm(work: Work) -> Arm:
    params: PatchedPlay = work.params
    operations = [_operation(work, patch) for patch in params.patch]
    shared = _edits(operations, 0) if params.tokens == "all" else ()
    return Arm(params.arm, operations, params.tokens, shared)


def _edits(operations: Sequence[tuple[str, Any, str | None]], first: int) -> list[Edit]:
    from toolkit.edits import Edit, from_position

    return [
        Edit(hookpoint, operation, from_position(first), reads)
        for hookpoint, operation, reads in operations
    ]


def _operation(work: Work, patch: Patch) -> tuple[str, Any, str | None]:
    """What is done to the feature, and where."""
    from toolkit.edits import Add, OnFeatures, Scale, Set

    rows = [space_row(work.model.identity, sae) for sae in work.saes]
    space, index = locate(patch.feature, rows)
    sae = work.saes[[row["space"] for row in rows].index(space["space"])]
    if patch.set is not None:
        if patch.set < 0:
            raise BadInput(
                f"patch: {patch.feature} is set to {patch.set:g}; the activations of this SAE are "
                "never below zero. Set it to 0, or add a negative number."
            )
        change: Any = Set(patch.set)
    elif patch.add is not None:
        change = Add(patch.add)
    else:
        change = Scale(float(patch.scale or 0.0))
    reads = None if sae.output_hookpoint == sae.hookpoint else sae.hookpoint
    return sae.output_hookpoint, OnFeatures.of(sae, [index], change), reads
