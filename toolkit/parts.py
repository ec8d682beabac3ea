"""What a part is: the frozen records that plugins return from the hooks of `toolkit.hookspecs`.

A part names itself as a spec names it (`extract.activations`), carries a pydantic model for its
`with:` block and one function that does the work. What that function gets is in `toolkit.work`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

from toolkit.work import Environment, Figure, Inputs, Reply, Reporter, Rows, SinkWork, Work, Worker

if TYPE_CHECKING:
    from toolkit.costs import Comparison, Cost, Workload
    from toolkit.hub import Download
    from toolkit.saes import Decoder


class Params(BaseModel):
    """Base of every part's params: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


UNHASHED: dict[str, Any] = {"hashed": False}
"""`Field(..., json_schema_extra=UNHASHED)`: a param that cannot change results (a folder, a batch
size); it enters no key.
"""


class NoParams(Params):
    """For parts that take none."""


@dataclass(frozen=True)
class Identity:
    """What a model, SAE set or data file *is*: enters every key. `revision` is for people, `digest`
    for hashing.
    """

    name: str
    revision: str
    digest: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Part:
    """What every part has. `version` changes when results change: it is part of every key."""

    kind: ClassVar[str] = "part"
    name: str
    help: str
    params: type[BaseModel] = NoParams
    version: str = "1"


@dataclass(frozen=True, kw_only=True)
class ModelPart(Part):
    """A model loader. `identify` reads no weights and imports no torch; `load` runs in a worker.

    `downloads` names what `load` would fetch from the hub, for `toolkit fetch`.
    """

    kind: ClassVar[str] = "model"
    identify: Callable[[Any], Identity]
    load: Callable[[Any, Reporter], Any]
    downloads: Callable[[Any], Iterable[Download]] | None = None


@dataclass(frozen=True, kw_only=True)
class SaePart(Part):
    """An SAE adapter. `identify` names the spaces' files; `load` runs in a worker and gives a list
    of `toolkit.saes.Sae`.

    `examine` names the stage part that looks at them before any use; None only for what is no SAE.
    `decoder` reads the decoder of one SAE, by its name, from files that are there already: without
    torch and without the network. `downloads` names what `load` would fetch from the hub, for
    `toolkit fetch`.
    """

    kind: ClassVar[str] = "sae"
    identify: Callable[[Any], Identity]
    load: Callable[[Any, Reporter], Any]
    downloads: Callable[[Any], Iterable[Download]] | None = None
    examine: str | None = "examine.saes"
    decoder: Callable[[Any, str], Decoder] | None = None


@dataclass(frozen=True, kw_only=True)
class SourcePart(Part):
    """Where samples come from: yields `samples` and `sample_meta`. With `reads`, from another
    experiment's tables.

    `most` says how many samples it gives at most, given the most rows of each table of the stage
    that it reads (None: nobody knows). `identify` says what its files are; where its facts tell
    `rows` (and `units`), nobody asks `most`.
    """

    kind: ClassVar[str] = "source"
    run: Callable[[Work], Rows]
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ("samples", "sample_meta")
    identify: Callable[[Any, Path], Identity] | None = None
    uses_model: bool = False
    most: Callable[[Any, Mapping[str, int]], int | None] | None = None


@dataclass(frozen=True, kw_only=True)
class StagePart(Part):
    """A stage: reads tables, writes tables; `optional` ones it reads where a stage that it needs
    has written them.

    `written` says which of `writes` these params write, where not all. `instead` names an optional
    table that stands for the model: where a stage that it needs writes it, no model is loaded.

    `split` names the param that holds the samples of one step, or None for one step. A stage that
    makes its own units (games, say) gives their number as `units(params)`; `split` then counts
    units, the host keeps the spec's limit, and each step is handed its range as `work.units`;
    `most(params, units)` tells how many rows of which table so many units give at most. `first`: it
    looks at the first so many samples only, and is not run again when others change. `distinct`:
    samples of equal tokens share a step, so that they are computed once.

    `cost` says what so much work asks for; `batches` gives the batch plan for so many bytes of free
    memory on a device (`cuda` or `cpu`), which is fixed for a stage of a run and handed to its
    steps as `work.batch`. `compares` says, from the params and the facts of the model, which groups
    will be compared.
    """

    kind: ClassVar[str] = "stage"
    run: Callable[[Work], Rows]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    optional: tuple[str, ...] = ()
    written: Callable[[Any], Sequence[str]] | None = None
    instead: str | None = None
    split: str | None = None
    units: Callable[[Any], int] | None = None
    most: Callable[[Any, int], Mapping[str, int]] | None = None
    first: int | None = None
    distinct: bool = False
    uses_model: bool = False
    uses_saes: bool = False
    cost: Callable[[Any, Workload], Cost] | None = None
    batches: Callable[[Any, Workload, int, str], Mapping[str, int]] | None = None
    compares: Callable[[Any, Mapping[str, Any]], Comparison] | None = None


def tables_of(part: SourcePart | StagePart, params: Any) -> tuple[str, ...]:
    """The tables that a part writes with these params."""
    written = getattr(part, "written", None)
    return tuple(written(params)) if written else part.writes


@dataclass(frozen=True, kw_only=True)
class EnvironmentPart(Part):
    """A game that `play.*` stages can play."""

    kind: ClassVar[str] = "environment"
    make: Callable[[Any], Environment]


@dataclass(frozen=True, kw_only=True)
class ParserPart(Part):
    """Reads a reply: an action or a typed failure."""

    kind: ClassVar[str] = "parser"
    make: Callable[[Any], Callable[[str], Reply]]


@dataclass(frozen=True, kw_only=True)
class SinkPart(Part):
    """An export. Yields (file name, bytes), or pieces of bytes for large ones; the host writes each
    by atomic rename, with its hash.

    `disk` says how many bytes it will write, given the cost of the stages before it; a run that has
    no room for them is refused.
    """

    kind: ClassVar[str] = "sink"
    run: Callable[[SinkWork], Iterable[tuple[str, bytes | Iterable[bytes]]]]
    reads: tuple[str, ...] = ()
    disk: Callable[[Any, Cost], int] | None = None


@dataclass(frozen=True, kw_only=True)
class ExecutorPart(Part):
    """Starts workers. `start(params, count, folder)` returns them; each then says hello."""

    kind: ClassVar[str] = "executor"
    start: Callable[[Any, Sequence[Mapping[str, Any]], Path], Sequence[Worker]]


@dataclass(frozen=True, kw_only=True)
class ReportSection(Part):
    """A report section: tables in, figures out. Left out when none of its tables has rows, or it
    yields no figure.
    """

    kind: ClassVar[str] = "report"
    title: str
    reads: tuple[str, ...]
    run: Callable[[Inputs], Iterable[Figure]]
    order: int = 50
