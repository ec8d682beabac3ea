"""A spec as a frozen record: an experiment, its stages and the parts that they name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo
from pydantic_core import PydanticCustomError

SOURCE = "samples"
EXAMINE = "examine"
"""Reserved stage ids: the source of `samples:` and the implicit examination of SAEs."""


def _whole(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticCustomError("int_type", "Input should be a valid integer")
    return value


def _absolute(value: Path, info: ValidationInfo) -> Path:
    folder = (info.context or {}).get("folder", Path())
    return Path(os.path.abspath(folder / value))


Whole = Annotated[int, BeforeValidator(_whole)]


class _SpecModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


@dataclass(frozen=True, kw_only=True)
class From:
    """A stage as input, of this spec or of another one; the path of the other spec is absolute
    here, and relative to the spec in the file.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    spec: Annotated[Path, AfterValidator(_absolute)] | None = None
    stage: str


class PartRef(_SpecModel):
    """A part and its settings."""

    uses: str = Field(min_length=1, description="the part's name, as `toolkit plugins` lists it")
    with_: dict[str, Any] = Field(default={}, alias="with", description="the part's params")
    from_: From | None = Field(
        default=None,
        alias="from",
        description="samples only: {stage: ID}, or {spec: FILE, stage: ID}",
    )
    name: str | None = Field(
        default=None, description="sinks only: the name by which overlays and --set refer to it"
    )


class ExecutorRef(_SpecModel):
    """An entry of `executors` under a name of its own."""

    uses: str = Field(
        default="", min_length=1, description="the executor; by default the one of this name"
    )
    with_: dict[str, Any] = Field(default={}, alias="with", description="the executor's params")


def is_reference(entry: Mapping[str, Any]) -> bool:
    """Whether an entry of `executors` is an ExecutorRef. Others are the params themselves, of the
    executor of that name.
    """
    return not {"uses", "with"}.isdisjoint(entry)


class StageSpec(_SpecModel):
    """One entry of `stages`."""

    id: str = Field(
        pattern=r"^[a-z][a-z0-9_-]*$",
        description="the id by which other stages, overlays and --set refer to the stage",
    )
    uses: str = Field(min_length=1, description="the part's name, as `toolkit plugins` lists it")
    with_: dict[str, Any] = Field(default={}, alias="with", description="the part's params")
    needs: list[str | From] = Field(
        default=[],
        description="the stages whose tables this stage reads: ids, or {spec: FILE, stage: ID}",
    )
    seed: Whole | None = Field(
        default=None, ge=0, description="the seed of this stage, instead of the spec's"
    )
    on: str | None = Field(
        default=None,
        min_length=1,
        description="the executor of this stage, overriding --on: installed, or from `executors`",
    )
    model: PartRef | None = None
    saes: PartRef | None = None
    samples: PartRef | None = None


class Limit(_SpecModel):
    """Limits every source and environment."""

    units: Whole = Field(ge=1, description="at most this many units")


class Spec(_SpecModel):
    """A whole experiment, after overlays, with environment values filled in."""

    version: Literal[1] = Field(description="the version of the spec format: 1")
    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$", description="the name of the experiment"
    )
    question: str | None = Field(
        default=None,
        max_length=500,
        description="the question that the experiment asks; shown at the top of the report",
    )
    description: str | None = Field(
        default=None, max_length=5000, description="what a reader should know about the experiment"
    )
    seed: Whole = Field(default=0, ge=0, description="the seed of all random draws")
    model: PartRef | None = Field(default=None, description="the model of every stage")
    saes: PartRef | None = Field(default=None, description="the SAEs of every stage")
    samples: PartRef | None = Field(default=None, description="the source of every stage")
    stages: list[StageSpec] = Field(default=[], description="the stages of the experiment")
    sinks: list[PartRef] = Field(default=[], description="exports written after a run")
    executors: dict[str, dict[str, Any]] = Field(
        default={},
        description="the executors for `on` and --on: the params of an installed one under its "
        "name, or {uses: EXECUTOR, with: PARAMS} under any name",
    )
    limit: Limit | None = Field(default=None, description="limits that make a run smaller")
    examine: Literal["stop", "warn", "off"] = Field(
        default="stop", description="whether an SAE that does not fit its model stops the run"
    )
    preregister: bool = Field(
        default=False,
        description="whether to record and hash the family of tests and the split before data are "
        "read",
    )
    sweep: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(
        default={}, description="lists of values by path; one run covers all combinations"
    )
