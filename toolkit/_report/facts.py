"""Facts about a run for its report: stages, timings, problems and limits, as plain records."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolkit._run import events as ev
from toolkit._run.events import RunEvent
from toolkit._run.progress import RunProgress, StepProgress, seconds_between
from toolkit.ledger import StepRow

MAX_TROUBLES = 50
MAX_SLOWEST = 8


@dataclass(frozen=True)
class Status:
    """The state of a run: a tone for the colour, a sign, a title and a sentence."""

    tone: str
    sign: str
    title: str
    text: str


STATES = {
    "done": Status("good", "✓", "Done", ""),
    "running": Status(
        "part",
        "…",
        "Partial: running when this was written",
        "Steps that are not done yet are missing below.",
    ),
    "interrupted": Status(
        "part",
        "◐",
        "Partial: interrupted",
        "Everything shown is committed; the command under Steps continues.",
    ),
    "failed": Status(
        "bad",
        "✗",
        "Failed",
        "Everything shown is committed; the command under Steps tries the rest again.",
    ),
}


@dataclass(frozen=True)
class StageFacts:
    """One stage: its part, its settings, and how many of its steps were computed or reused."""

    id: str
    part: str
    version: str
    help: str
    settings: Sequence[tuple[str, str]]
    planned: int
    computed: int
    reused: int
    failed: int
    rows: Sequence[tuple[str, int]]
    seconds: float

    @property
    def done(self) -> int:
        """Steps whose rows are in the store."""
        return self.computed + self.reused

    @property
    def bar(self) -> Sequence[tuple[str, str]]:
        """State and width, in per cent, of each piece of its bar."""
        states = {"computed": self.computed, "reused": self.reused, "failed": self.failed}
        return [
            (state, f"{100 * count / max(self.planned, 1):.2f}")
            for state, count in states.items()
            if count
        ]


@dataclass(frozen=True)
class RunProblem:
    """A warning or failure."""

    tone: str
    name: str
    at: str
    sentence: str


@dataclass(frozen=True)
class Forecast:
    """The forecast and the actual seconds of work of a stage."""

    stage: str
    basis: str
    forecast: float
    actual: float


@dataclass(frozen=True)
class CostFact:
    """The expected and the actual cost of a stage."""

    stage: str
    texts: tuple[int, int]
    operations: tuple[float, float]
    rows: tuple[int, int]
    stored: tuple[int, int]


def stage_facts(
    manifest: Mapping[str, Any], run: RunProgress, known: Mapping[str, StepRow]
) -> list[StageFacts]:
    """Every stage of the manifest."""
    return [_stage(stage, run, known) for stage in manifest.get("stages") or ()]


def _stage(stage: Mapping[str, Any], run: RunProgress, known: Mapping[str, StepRow]) -> StageFacts:
    id = str(stage.get("id"))
    steps = [step for step in run.steps.values() if step.stage == id]
    rows: dict[str, int] = {}
    for step in steps:
        for table, count in rows_of(step, known).items():
            rows[table] = rows.get(table, 0) + count
    params = stage.get("params") or {}
    return StageFacts(
        id=id,
        part=str(stage.get("part")),
        version=str(stage.get("version")),
        help=str(stage.get("help") or ""),
        settings=[(str(name), _setting(value)) for name, value in params.items()],
        planned=max(run.stages[id].planned if id in run.stages else 0, len(steps)),
        computed=_count(steps, "computed"),
        reused=_count(steps, "reused"),
        failed=_count(steps, "failed"),
        rows=[(table, count) for table, count in sorted(rows.items()) if count],
        seconds=sum(step.seconds for step in steps if step.state == "computed"),
    )


def _count(steps: Sequence[StepProgress], state: str) -> int:
    return sum(step.state == state for step in steps)


def _setting(value: Any) -> str:
    """A setting on one line: texts as they are, the rest as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def rows_of(step: StepProgress, known: Mapping[str, StepRow]) -> Mapping[str, int]:
    """The rows that a step wrote to each table."""
    return known[step.key].tables if step.key in known else step.rows


def tiles(run: RunProgress, known: Mapping[str, StepRow], duration: Any) -> list[tuple[str, str]]:
    """The six numbers at the top of the report."""
    total = max(run.planned, len(run.steps))
    distinct = {step.key: step for step in run.steps.values()}.values()
    rows = sum(sum(rows_of(step, known).values()) for step in distinct)
    return [
        ("steps done", f"{run.done:,} of {total:,}" if run.done < total else f"{run.done:,}"),
        ("computed", f"{run.count('computed'):,}"),
        ("reused", f"{run.count('reused'):,}"),
        ("failed", f"{run.count('failed'):,}"),
        ("rows", f"{rows:,}"),
        ("time", duration(seconds_between(run.started, run.last))),
    ]


def computed_steps(run: RunProgress) -> list[StepProgress]:
    """The steps that were computed, the slowest first."""
    computed = [step for step in run.steps.values() if step.state == "computed"]
    return sorted(computed, key=lambda step: -step.seconds)


def forecasts(run: RunProgress) -> Iterator[Forecast]:
    """Forecasts of stages whose forecast steps were all computed in this run."""
    for stage, counts in run.stages.items():
        steps = [step for step in run.steps.values() if step.stage == stage]
        took = sum(step.seconds for step in steps if step.state == "computed")
        if took and counts.forecast is not None:
            yield Forecast(stage, counts.forecast.basis, counts.forecast.seconds, took)


def costs(
    run: RunProgress, known: Mapping[str, StepRow], row_bytes: Mapping[str, float]
) -> list[CostFact]:
    """Expected and actual costs of stages whose steps were all computed in this run, and of all
    of them together.
    """
    facts = []
    for name, counts in run.stages.items():
        steps = [step for step in run.steps.values() if step.stage == name]
        if counts.cost is None or not steps or any(step.state != "computed" for step in steps):
            continue
        rows = [pair for step in steps for pair in rows_of(step, known).items()]
        facts.append(
            CostFact(
                name,
                (counts.cost.texts, sum(step.texts for step in steps)),
                (counts.cost.operations, sum(step.operations for step in steps)),
                (counts.cost.rows, sum(count for _, count in rows)),
                (
                    counts.cost.stored,
                    round(sum(count * row_bytes.get(table, 0) for table, count in rows)),
                ),
            )
        )
    return [*facts, _together(facts)] if len(facts) > 1 else facts


def _together(facts: Sequence[CostFact]) -> CostFact:
    def total(pairs: Iterable[tuple[Any, Any]]) -> tuple[Any, Any]:
        expected, actual = zip(*pairs, strict=True)
        return sum(expected), sum(actual)

    return CostFact(
        "together",
        total(fact.texts for fact in facts),
        total(fact.operations for fact in facts),
        total(fact.rows for fact in facts),
        total(fact.stored for fact in facts),
    )


def troubles(run: RunProgress) -> list[RunProblem]:
    """The newest warnings and failures."""
    return [_trouble(event) for event in run.troubles[-MAX_TROUBLES:]]


def _trouble(event: RunEvent) -> RunProblem:
    tone = "bad" if isinstance(event, ev.StepFailure | ev.RunFailed) else "part"
    return RunProblem(tone, event.event.replace("_", " "), event.at, event.sentence())


def limits(manifest: Mapping[str, Any], run: RunProgress) -> Iterator[str]:
    """What a reader should not conclude from this run."""
    spec = manifest.get("spec")
    spec = spec if isinstance(spec, Mapping) else {}
    if run.state != "done":
        yield "The run is not finished: numbers can still change."
    limit = spec.get("limit")
    if isinstance(limit, Mapping) and limit.get("units") is not None:
        yield f"Only the first {limit['units']} units were used (limit.units)."
    if spec.get("examine") in ("off", "warn", False):
        yield "SAEs that do not fit their model did not stop the run (examine)."
    if not spec.get("preregister"):
        yield "The tests were not registered before the data existed (preregister)."
    yield (
        "One model, one set of SAEs, one seed: changing any of them may change the "
        "answer. Each correction covers one comparison, not several runs of one spec."
    )
