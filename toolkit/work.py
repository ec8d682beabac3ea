"""What the function of a part gets and returns: tables (Arrow), never live objects of another
stage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from toolkit.identity import Identity


class Inputs(Protocol):
    """The tables of the stages that a stage needs."""

    def read(self, table: str) -> pa.Table:
        """All rows of `table` from the needed stages; for a step over a sample range, `samples`
        holds that range only.
        """
        ...

    def tables(self) -> Sequence[str]:
        """Names of the available tables."""
        ...


class RunInputs(Inputs, Protocol):
    """The tables of a whole run, as report sections get them."""

    def by_stage(self, table: str) -> Mapping[str, pa.Table]:
        """The rows of `table` by the stage that wrote them, in the order in which stages ended."""
        ...


class Reporter(Protocol):
    """Reports progress to the host. Calls are cheap; make them often."""

    def phase(self, name: str) -> None:
        """Report the current phase: download, load, copy, compute or write."""
        ...

    def progress(self, done: int, total: int | None = None) -> None:
        """Report how much of this step is done (in samples, unless the part says otherwise)."""
        ...

    def event(self, name: str, **facts: Any) -> None:
        """Add plain JSON data to the run's log. The `text` of an event `warning` is shown at once;
        the last `text` of an event `status` is shown in the progress line.
        """
        ...


@dataclass(frozen=True)
class Work:
    """One step, as a stage's or source's function gets it."""

    params: Any
    """The params of the stage, validated."""
    seed: int
    """The seed of the run; `rng` makes generators from it."""
    inputs: Inputs
    """The tables of the needed stages, limited to this step's samples."""
    report: Reporter
    """Reports progress, phases and events to the host."""
    limit_units: int | None = None
    """The most units that the spec allows; None without `limit`."""
    model: Any = None
    """The loaded model; None if the part uses none, or a table replaces it."""
    saes: Any = None
    """The loaded SAEs; None if the part uses none."""
    units: tuple[int, int] | None = None
    """The half-open range of units that this step makes, for a part with `Steps.units`."""
    features: tuple[int, int] | None = None
    """The half-open range of features of this step, for a part with `Steps.features`."""
    batch: Mapping[str, int] = field(default_factory=dict)
    """The stage's batch plan (`Estimates.batch_plan`); empty without one."""
    scratch: Path | None = None
    """A folder for files that go with the step."""
    identity: Identity | None = None
    """The identity of the model, also where a table replaces it (`TablePart.replaces_model`)."""
    step: str = ""
    """The key of the step, from which ids of rows are made."""

    def rng(self, purpose: str, *counters: int | str) -> np.random.Generator:
        """A generator that depends on the seed, the purpose and the counters alone: never on order
        or batch.
        """
        from toolkit.statistics.randomness import generator

        return generator(self.seed, purpose, *counters)


Rows = Iterator[tuple[str, "pa.Table"]]
"""What the function of a part yields: (table name, rows), any number of times, in any order."""


@dataclass(frozen=True)
class Figure:
    """A figure of a report: a title, trusted HTML or SVG made by the plugin (escape user text), and
    a text for screen readers.
    """

    title: str
    html: str
    alt: str = ""
    data: Sequence[Mapping[str, Any]] = ()
    """The rows that a chart draws, which `toolkit report --figures` writes as CSV. A table needs
    none: it is written as shown.
    """
    leads: bool = False
    """Whether the report opens with this figure if its section states the first finding; otherwise
    it opens with the section's first chart.
    """


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One result in a sentence. Reports, the end of a run and `--json` print the same ones."""

    sentence: str
    """The result in plain words, with its number."""
    number: float | None = None
    """The number itself, such as an effect or an AUROC."""
    interval: tuple[float, float] | None = None
    """Its confidence interval."""
    n: int | None = None
    """The number of independent units behind it."""
    baseline: str = ""
    """A baseline without SAE features, such as `balance alone reaches AUROC 0.850`."""
    rank: int = 50
    """Findings are shown in ascending rank."""


@dataclass(frozen=True)
class ReportContents:
    """What the report of a run shows, for sinks that pass it on."""

    findings: Sequence[Finding] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Charts as SVG, their data and the tables as CSV, by file name; the same files as those of
    `toolkit report --figures`.
    """


@dataclass(frozen=True)
class SinkWork:
    """What a sink gets."""

    params: Any
    """The params of the sink, validated."""
    folder: Path
    """The folder or URI to write to, resolved against the spec."""
    run: str
    """The id of the run."""
    inputs: Inputs
    """The committed tables of the run."""
    committed_at: str = ""
    """When the newest table was committed (ISO 8601, UTC), so that repeating an export that
    contains a time gives the same bytes.
    """
    record: Mapping[str, Any] = field(default_factory=dict)
    """The run's manifest: the spec as written, seed, versions, identities of model and SAEs."""
    report: Callable[[], ReportContents] = ReportContents
    """Makes the contents of the run's report, which takes as long as a report does."""
