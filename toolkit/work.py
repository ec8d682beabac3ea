"""What the function of a part gets and gives back: work on tables (Arrow), never on live objects of
another stage.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from toolkit.parts import Identity


class Inputs(Protocol):
    """The tables of the stages that a stage needs."""

    def read(self, table: str) -> pa.Table:
        """All rows of `table` from the needed stages; for a step over a sample range, `samples`
        holds that range only.
        """
        ...

    def tables(self) -> Sequence[str]:
        """Names of the tables that are there."""
        ...


class Reporter(Protocol):
    """How work in progress is told to the host. Cheap; call it often."""

    def phase(self, name: str) -> None:
        """What is being done now: download, load, copy, compute or write."""
        ...

    def progress(self, done: int, total: int | None = None) -> None:
        """How many of how many (samples, unless the part says otherwise) are done in this step."""
        ...

    def event(self, name: str, **facts: Any) -> None:
        """Something for the run's log, as plain JSON data. An event `warning` shows its `text` at
        once; of an event `status` the last `text` stands in the progress line.
        """
        ...


@dataclass(frozen=True)
class Work:
    """One step, as a stage's or source's function gets it. `model` and `saes` are loaded, or None
    if not asked for.

    `identity` says what the model is, also where a table stands for it (`StagePart.instead`) and
    `model` is None. `units` is the half-open range of units that this step makes, for a part that
    says how many there are (`StagePart.units`); `features` the half-open range of a screen's
    features, for a part that counts them (`Steps.features`). `batch` is the stage's batch plan
    (`StagePart.batches`), empty without one; `scratch` a folder for files that go with the step.
    `step` is the key of the step, from which ids of rows are made.
    """

    params: Any
    seed: int
    inputs: Inputs
    report: Reporter
    limit_units: int | None = None
    model: Any = None
    saes: Any = None
    units: tuple[int, int] | None = None
    features: tuple[int, int] | None = None
    batch: Mapping[str, int] = field(default_factory=dict)
    scratch: Path | None = None
    identity: Identity | None = None
    step: str = ""

    def rng(self, purpose: str, *counters: int | str) -> np.random.Generator:
        """A generator that depends on the seed, the purpose and the counters alone: never on order
        or batch.
        """
        from toolkit.randomness import generator

        return generator(self.seed, purpose, *counters)


Rows = Iterator[tuple[str, "pa.Table"]]
"""What a function yields: (table name, rows), any number of times, in any order."""


@dataclass(frozen=True)
class SinkWork:
    """What a sink gets: its params, the folder or URI resolved against the spec, and the committed
    tables of the run.

    `at`: when the newest of them was committed (ISO 8601, UTC), so that an export that bears a time
    is the same when made again.
    """

    params: Any
    folder: Path
    run: str
    inputs: Inputs
    at: str = ""


@dataclass(frozen=True)
class Figure:
    """One thing in a report: a title, trusted HTML or SVG made by the plugin (escape user text), a
    text for screen readers.
    """

    title: str
    html: str
    alt: str = ""
    data: Sequence[Mapping[str, Any]] = ()
    """The rows that a chart draws, which `toolkit report --figures` writes as CSV. A table needs
    none: it is written as it stands.
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
    """How many independent units it rests on."""
    baseline: str = ""
    """What reaches the same without SAE features, such as `balance alone reaches AUROC 0.850`."""
    rank: int = 50
    """Findings are shown in ascending rank."""
