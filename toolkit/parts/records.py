"""Each kind of part as a frozen record: models, SAEs, sources, stages, sinks and the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel

from toolkit.identity import Identity
from toolkit.params import NoParams
from toolkit.parts.params import SinkParams, UsedEnvironment
from toolkit.samples.games import Environment, Parser
from toolkit.work import (
    Figure,
    Finding,
    Reporter,
    Rows,
    RunInputs,
    SinkWork,
    Work,
)

if TYPE_CHECKING:
    from toolkit.costs import Cost, PlannedComparison, Workload
    from toolkit.executors.interface import ClusterRequest, Worker, WorkerLimits, WorkerRequest
    from toolkit.files.hub import Download
    from toolkit.saes import Decoder


@dataclass(frozen=True, kw_only=True)
class Part:
    """The fields of every part. `version` changes when results change: it is part of every key."""

    kind: ClassVar[str] = "part"
    name: str
    help: str
    params: type[BaseModel] = NoParams
    version: str = "1"


@dataclass(frozen=True, kw_only=True)
class ModelPart(Part):
    """A model loader."""

    kind: ClassVar[str] = "model"
    identify: Callable[[Any], Identity]
    """Identifies the model. Reads no weights and imports no torch."""
    load: Callable[[Any, Reporter], Any]
    """Loads a `toolkit.models.Model`; runs in a worker."""
    downloads: Callable[[Any], Iterable[Download]] | None = None
    """What `load` would fetch from the hub, for `toolkit fetch`."""
    device: Callable[[Any], str] | None = None
    """Where these params put the model: `cpu`, `cuda` or `auto`."""
    count_tokens: Callable[[Any, Sequence[str]], Sequence[int] | None] | None = None
    """Counts the tokens of texts, for `toolkit plan`; None if the tokeniser's files are not
    available. Imports no torch.
    """


@dataclass(frozen=True, kw_only=True)
class SaePart(Part):
    """An SAE adapter."""

    kind: ClassVar[str] = "sae"
    identify: Callable[[Any], Identity]
    """Identifies the SAEs and their files. Reads no weights and imports no torch."""
    load: Callable[[Any, Reporter], Any]
    """Loads a list of `toolkit.saes.Sae`; runs in a worker."""
    downloads: Callable[[Any], Iterable[Download]] | None = None
    """What `load` would fetch from the hub, for `toolkit fetch`."""
    examine: str | None
    """The stage part that examines them before any use, such as `examine.saes`; None only for test
    SAEs.
    """
    decoder: Callable[[Any, str], Decoder] | None = None
    """Reads the decoder of one SAE, by its name, from local files, without torch or the network."""


@dataclass(frozen=True, kw_only=True)
class Steps:
    """How a stage is split into steps. By default it is a single step."""

    size: str | None = None
    """The name of the param that sets how many samples (or units) one step has."""
    units: Callable[[Any], int] | None = None
    """For a stage that makes its own units, such as games: the number that these params request.
    Each step gets its range of them as `Work.units`, and the host keeps the spec's `limit`.
    """
    features: Callable[[Any, Mapping[str, Any]], int] | None = None
    """For a stage that works on a range of features: the most features that these params request,
    given the facts of the SAEs. Each step gets its range as `Work.features`, `size` of them; the
    spec's `limit` counts units and leaves features alone.
    """
    sample_limit: int | None = None
    """The stage reads only this many samples, the first ones; a change in the others does not rerun
    it.
    """
    group_equal_texts: bool = False
    """Samples with equal token ids go to the same step, so that each text is computed once."""
    whole_units: bool = False
    """Samples of one unit go to the same step, such as a prompt and its changed copy."""


@dataclass(frozen=True, kw_only=True)
class Estimates:
    """Estimates that a part makes before it runs. Each is optional; `toolkit plan` prints them."""

    cost: Callable[[Any, Workload], Cost] | None = None
    """The cost of this workload."""
    max_rows: Callable[[Any, Mapping[str, int]], Mapping[str, int] | None] | None = None
    """The most rows that it writes to each table, given the most rows of each table that it reads
    and, for a stage that makes its own units, their number as `units`. None: unknown.
    """
    expected: Callable[[Any, Workload], Cost] | None = None
    """The expected cost, where `cost` is a bound: what games, thresholds or data decide gets a
    typical value. Without it, `cost` of the expected workload.
    """
    expected_rows: Callable[[Any, Mapping[str, int]], Mapping[str, int] | None] | None = None
    """The expected rows, where `max_rows` is a bound, given the expected rows of the tables that it
    reads.
    """
    prompts: Callable[[Any], Sequence[str]] | None = None
    """For a stage that writes its own texts: typical ones, whose tokens `toolkit plan` counts
    before the stage has run.
    """
    texts: Callable[[Any], Sequence[tuple[str, str]]] | None = None
    """For a source whose params determine its samples: the unit and the text of each."""
    batch_plan: Callable[[Any, Workload, int, str], Mapping[str, int]] | None = None
    """The batch sizes for a number of free bytes on a device (`cuda` or `cpu`). They are fixed once
    for a stage of a run and reach its steps as `Work.batch`.
    """
    comparison: Callable[[Any, Mapping[str, Any]], PlannedComparison] | None = None
    """The groups that it will compare, from the params and the facts of the model."""


@dataclass(frozen=True, kw_only=True)
class LabelUse:
    """A metadata key that a part's params name, with the values that they name."""

    field: str
    """The param that names the key."""
    key: str
    values_field: str | None = None
    """The param that names values of it, such as groups to compare."""
    values: tuple[str, ...] = ()


Labels = Mapping[str, Sequence[str] | None]
"""Metadata keys of samples, each with all its values; None if these are many or unknown."""


@dataclass(frozen=True, kw_only=True)
class LabelKeys:
    """The metadata keys of samples that a part offers and uses, as far as its params determine
    them. `toolkit check` refuses a key that is used and that no sample has.
    """

    offered: Callable[[Any], Labels] | None = None
    """The keys of its samples, or of samples drawn from its tables."""
    used: Callable[[Any], Iterable[LabelUse]] | None = None
    """The keys that its params name."""


@dataclass(frozen=True, kw_only=True)
class TablePart(Part):
    """A part that reads tables and writes tables: the base of sources and stages."""

    run: Callable[[Work], Rows]
    """Does the work of one step: yields table names and rows."""
    reads: tuple[str, ...] = ()
    """Tables that it needs; a spec where no needed stage writes them is refused."""
    optional: tuple[str, ...] = ()
    """Tables that it also reads if a needed stage writes them."""
    writes: tuple[str, ...] = ()
    """Tables that it may write."""
    writes_for: Callable[[Any], Sequence[str]] | None = None
    """Which of `writes` these params write, if not all."""
    identify: Callable[[Any, Path], Identity | None] | None = None
    """Identifies the files that its params name, given the spec's folder; None if they name none.
    The digest enters keys. A source's facts `rows` and `units` count its samples, if known; fact
    `labels` has their metadata keys, as `LabelKeys.offered` returns them.
    """
    uses_model: bool = False
    """Whether it needs a loaded model."""
    uses_saes: bool = False
    """Whether it needs loaded SAEs."""
    replaces_model: str | None = None
    """An optional table that makes the model unnecessary: if a needed stage writes it, no model is
    loaded.
    """
    check: Callable[[Any, Mapping[str, Any]], str | None] | None = None
    """Says in a sentence why these params cannot work on a model with these facts; None if they
    can.
    """
    labels: LabelKeys = LabelKeys()
    """The metadata keys that it offers and uses."""
    steps: Steps = Steps()
    """How its work is split into steps."""
    estimates: Estimates = Estimates()
    """Its estimates before it runs."""
    summary: Callable[[Sequence[Mapping[str, Any]]], str] | None = None
    """Sentences for the report's Methods, from all events that its steps reported with
    `work.report.event` (facts, with the event's `name` among them).
    """

    def tables(self, params: Any) -> tuple[str, ...]:
        """The tables that it writes with these params."""
        return tuple(self.writes_for(params)) if self.writes_for else self.writes


@dataclass(frozen=True, kw_only=True)
class SourcePart(TablePart):
    """Where samples come from: files, the spec itself, or (with `reads`) tables of a stage."""

    kind: ClassVar[str] = "source"
    writes: tuple[str, ...] = ("samples", "sample_meta")
    keeps_labels: bool = False
    """Whether its samples also carry the labels of the stage that `from` names."""


@dataclass(frozen=True, kw_only=True)
class StagedGame:
    """The game of a stage that plays, its largest number of attempts at one decision, the line that
    is added to the prompt from the second attempt on, and how many repetitions of a condition
    decide by their first replies whether the others are played (0: none).
    """

    game: UsedEnvironment
    attempts: int = 1
    reminder: str = ""
    leaders: int = 0


@dataclass(frozen=True, kw_only=True)
class StagePart(TablePart):
    """A stage of an experiment: extracts, compares, patches, plays, measures."""

    kind: ClassVar[str] = "stage"
    plays: Callable[[Any], StagedGame] | None = None
    """The game that these params play, so that its stored replies can be parsed again."""


@dataclass(frozen=True, kw_only=True)
class EnvironmentPart(Part):
    """A game that `play.*` stages can play."""

    kind: ClassVar[str] = "environment"
    make: Callable[[Any], Environment]
    """The game of these params."""


@dataclass(frozen=True, kw_only=True)
class ParserPart(Part):
    """Reads a reply: an action or a typed failure."""

    kind: ClassVar[str] = "parser"
    make: Callable[[Any], Parser]
    """The function that reads a reply to a prompt."""
    guesses: bool = False
    """Whether it returns an action even if a reply names none. Only parsers of published studies
    do.
    """
    can_fail: bool = True
    """Whether it can fail to read a reply. If not, the game never asks again."""


@dataclass(frozen=True, kw_only=True)
class SinkPart(Part):
    """An export. Yields (file name, bytes), or pieces of bytes for large ones; the host writes each
    by atomic rename, with its hash.
    """

    kind: ClassVar[str] = "sink"
    params: type[BaseModel] = SinkParams
    run: Callable[[SinkWork], Iterable[tuple[str, bytes | Iterable[bytes]]]]
    """Yields file names and their bytes."""
    reads: tuple[str, ...] = ()
    """Tables that it exports."""
    check: Callable[[Any], str | None] | None = None
    """Says in a sentence what this machine lacks for writing it, such as a package; None if
    nothing. Called before the first step.
    """
    disk: Callable[[Any, Cost], int] | None = None
    """How many bytes it will write, given the cost of the stages before it; a run without room for
    them is refused.
    """
    disk_advice: str = "Name a folder on a larger disk."
    """What to do when there is no room."""


@dataclass(frozen=True, kw_only=True)
class ExecutorPart(Part):
    """Starts workers, on this machine or elsewhere."""

    kind: ClassVar[str] = "executor"
    start: Callable[[Any, WorkerRequest], Worker]
    """`start(params, request)`: starts one worker, which then says hello."""
    start_all: Callable[[Any, Sequence[WorkerRequest]], Sequence[Worker]] | None = None
    """Starts several workers at once, such as the tasks of one array job."""
    workers: Callable[[Any], int] = lambda params: 1
    """The number of workers that these params request, if no GPUs are named."""
    gpus: Callable[[Any], str | None] = lambda params: None
    """The GPUs that these params request, as `--gpu` writes them; None leaves the choice open."""
    limits: Callable[[Any], WorkerLimits | None] = lambda params: None
    """The limits of each worker, by these params; None sets none."""
    record: Callable[[Any, WorkerRequest], Mapping[str, Any]] = lambda params, request: {}
    """Further facts for the run's manifest, such as the digest of the image; starts nothing."""
    local_gpus: bool = True
    """Whether its workers run on the GPUs of this machine. Then the host finds the UUIDs, refuses a
    GPU that is not there, and starts one worker for each.
    """
    command: Callable[[Any, WorkerRequest], str] | None = None
    """The command line that starts such a worker, for `toolkit run --dry-run`; starts nothing."""
    script: Callable[[Any, Sequence[WorkerRequest]], str] | None = None
    """The script that starts all workers together, such as a batch script."""
    cluster_job: Callable[[ClusterRequest], Mapping[str, Any]] | None = None
    """The Kubernetes object that runs a spec with these workers, for `toolkit cluster render`."""


@dataclass(frozen=True, kw_only=True)
class ReportSection(Part):
    """A report section: tables in, figures out. Left out when none of its tables has rows, or it
    yields no figure.
    """

    kind: ClassVar[str] = "report"
    title: str
    reads: tuple[str, ...]
    run: Callable[[RunInputs], Iterable[Figure]]
    order: int = 50
    """Sections are sorted by this number."""
    findings: Callable[[RunInputs], Iterable[Finding]] | None = None
    """The section's results as sentences; the first few end `toolkit run` and open the report."""
