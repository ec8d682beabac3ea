"""The contract checks: parts that keep them pass, and each broken promise is caught by its own
words.
"""

from __future__ import annotations

import itertools
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pytest
from pydantic import BaseModel, Field

from toolkit._plugins.loading import load_parts
from toolkit.costs import Cost
from toolkit.errors import DataError
from toolkit.identity import Identity
from toolkit.parts import (
    EnvironmentPart,
    Estimates,
    ExecutorPart,
    ModelPart,
    Params,
    ParserPart,
    Part,
    ReportSection,
    SinkPart,
    SourcePart,
    StagePart,
    Steps,
)
from toolkit.samples.games import Condition, Environment, Option, Prompt, Reply, Turn
from toolkit.tables import DATA_TABLES, arrow_schema
from toolkit.testing.contracts import check_part
from toolkit.testing.fakes import SilentReporter, TableInputs, make_samples, make_tables, make_work
from toolkit.testing.promises import Broken
from toolkit.work import Figure, Work

PARTS = load_parts()
OURS = [
    part for plugin in PARTS.plugins if plugin.name in ("toy", "local") for part in plugin.parts
]
COUNT, HASH = (
    cast("SourcePart", PARTS.get("source", "count")),
    cast("StagePart", PARTS.get("stage", "extract.hash")),
)
COUNTER = itertools.count()


def broken(part: Part, message: str, **settings: Any) -> None:
    with pytest.raises(Broken) as caught:
        check_part(part, **settings)
    assert message in str(caught.value)


@pytest.mark.parametrize("part", OURS, ids=lambda part: f"{part.kind}-{part.name}")
def test_our_own_parts_keep_their_contract(part: Part) -> None:
    """Of the plugins that need nothing but made-up tables. Others need a model, or tables that mean
    something: their own tests.
    """
    check_part(part)


# --- records and params ---------------------------------------------------------------------------


class Loose(BaseModel):
    n: int = 1


class Unexplained(Params):
    n: int = 1


class Forgets(Params):
    n: int = Field(
        default_factory=lambda: next(COUNTER), exclude=True, description="Left out of the JSON."
    )


class Nan(Params):
    n: float = Field(float("nan"), description="JSON has no such number.")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"help": "x" * 101}, "its help has 101 characters"),
        ({"help": ""}, "its help must be a single line"),
        ({"params": Loose}, "its params accept unknown keys"),
        ({"params": Unexplained}, "params field 'n' has no description"),
        ({"params": Forgets}, "its params change in a round trip through JSON"),
        ({"params": Nan}, "its params cannot be read back from JSON"),
    ],
)
def test_records(change: Mapping[str, Any], message: str) -> None:
    broken(replace(COUNT, **change), message)


def identity(**facts: Any) -> Identity:
    return Identity(name="m", revision="1", digest="d", facts=facts)


def importing(params: Any) -> Identity:
    sys.modules["lancedb"] = types.ModuleType("lancedb")
    return identity()


def model(identify: Callable[[Any], Identity]) -> ModelPart:
    return ModelPart(name="m", help="x", identify=identify, load=lambda params, report: None)


def test_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = itertools.count()
    broken(
        model(lambda params: identity(n=next(numbers))),
        "identify returned a different result the second time",
    )
    broken(model(lambda params: identity(path=Path("x"))), "not plain JSON data")
    named = replace(model(lambda params: identity()), downloads=lambda params: ["org/model"])
    broken(named, "downloads returned items that are not a Download")
    broken(
        model(lambda params: replace(identity(), digest="")),
        "identify left the name, revision or digest empty",
    )
    monkeypatch.setitem(sys.modules, "lancedb", types.ModuleType("lancedb"))
    monkeypatch.delitem(sys.modules, "lancedb")
    broken(model(importing), "identify imported lancedb")


# --- sources and stages ---------------------------------------------------------------------------


def rows(
    work: Work, texts: tuple[str, ...] = ("one", "two three")
) -> dict[str, list[dict[str, Any]]]:
    return {
        name: result.to_pylist() for name, result in make_samples(texts[: work.limit_units]).items()
    }


def source(change: Callable[[dict[str, list[dict[str, Any]]], Work], None]) -> SourcePart:
    def run(work: Work) -> Iterator[tuple[str, pa.Table]]:
        made = rows(work)
        change(made, work)
        for name, result in made.items():
            yield name, pa.Table.from_pylist(result, schema=arrow_schema(name))

    return SourcePart(name="mine", help="x", run=run)


def _more(made: dict[str, list[dict[str, Any]]], work: Work) -> None:
    made["samples"][:] = rows(make_work())["samples"]


SOURCES: list[tuple[Callable[[Any, Any], Any], str]] = [
    (
        lambda made, work: made["samples"].append(made["samples"][0]),
        "'samples' has two rows with the same key (sample)",
    ),
    (
        lambda made, work: made["samples"][0]["spans"][0].update(end=9),
        "span 'last' is not a half-open range of its tokens",
    ),
    (
        lambda made, work: made["samples"][0]["spans"][0].update(start=1),
        "span 'last' is not a half-open range",
    ),
    (lambda made, work: made["samples"][0].update(token_ids=[1, 2]), "token_ids and pieces differ"),
    (
        lambda made, work: made["sample_meta"][0].update(sample="s9"),
        "sample_meta names samples that do not exist: ['s9']",
    ),
    (
        lambda made, work: made["samples"][0].update(text=str(next(COUNTER))),
        "it yields different rows the second time",
    ),
    (lambda made, work: made["samples"][0].update(text=None), "'samples.text' has nulls"),
    (
        lambda made, work: made.update(spaces=[]),
        "it yields 'spaces', which is not among its writes",
    ),
    (_more, "it yields 2 units with limit_units=1"),
]


@pytest.mark.parametrize(("change", "message"), SOURCES)
def test_sources(change: Callable[[Any, Any], None], message: str) -> None:
    broken(source(change), message)


def test_a_right_source() -> None:
    check_part(source(lambda made, work: None))


def test_schemas() -> None:
    wrong = replace(COUNT, run=lambda work: iter([("samples", pa.table({"sample": ["a"]}))]))
    broken(wrong, "the schema of 'samples' is not toolkit.tables.arrow_schema('samples')")
    broken(
        replace(COUNT, run=lambda work: iter([("samples", [])])),
        "the rows of 'samples' are a list instead of a pyarrow Table",
    )


def test_batch_invariance() -> None:
    def mean(work: Work) -> Iterator[tuple[str, pa.Table]]:
        """Divides by the size of the batch: what a batch holds changes each sample's result."""
        samples = work.inputs.read("samples").to_pylist()
        made = [
            {
                "space": "a",
                "sample": row["sample"],
                "position": 0,
                "features": [1],
                "values": [1 / len(samples)],
            }
            for row in samples
        ]
        yield "activations", pa.Table.from_pylist(made, schema=arrow_schema("activations"))

    broken(replace(HASH, run=mean), "'activations' differs between one batch and its two halves")
    check_part(replace(HASH, run=mean, steps=Steps(size=None)))
    check_part(replace(HASH, run=mean), tolerance=0.5)


def test_costs() -> None:
    check_part(
        replace(HASH, estimates=Estimates(cost=lambda params, load: Cost(forwards=load.distinct)))
    )
    broken(
        replace(HASH, estimates=Estimates(cost=lambda params, load: {"flops": 1})),
        "cost returned dict instead of a Cost",
    )
    broken(
        replace(HASH, estimates=Estimates(cost=lambda params, load: Cost(disk=-1))),
        "its cost in disk is -1 for few samples",
    )
    broken(
        replace(HASH, estimates=Estimates(cost=lambda params, load: Cost(flops=1 / load.samples))),
        "its cost in flops is 0.25 for few samples",
    )


# --- games ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parse", "message"),
    [
        (lambda text, prompt: Reply(action="stop"), "return a failure, not a default"),
        (lambda text, prompt: Reply(action="bet", amount=float(text)), "it raised ValueError"),
        (lambda text, prompt: None, "it returned NoneType instead of a Reply"),
        (
            lambda text, prompt: Reply(failure=str(next(COUNTER))),
            "it returned a different result the second time",
        ),
        (
            lambda text, prompt: (
                Reply(action="bet", amount=float("inf")) if text == "0" else Reply(failure="none")
            ),
            "it returned the amount inf",
        ),
    ],
)
def test_parsers(parse: Callable[[str], Reply], message: str) -> None:
    broken(ParserPart(name="mine", help="x", make=lambda params: parse), message)


def test_a_parser_that_cannot_fail_says_so() -> None:
    def parse(text: str, prompt: Prompt) -> Reply:
        return Reply(action="stop")

    check_part(
        ParserPart(name="mine", help="x", make=lambda params: parse, guesses=True, can_fail=False)
    )
    broken(
        ParserPart(
            name="mine",
            help="x",
            make=lambda params: lambda text, prompt: Reply(failure="empty"),
            can_fail=False,
        ),
        "its part has can_fail=False, but it could not read ''",
    )


class Game(Environment):
    """A right game; subclasses break one promise each."""

    outcomes = ("stopped",)

    def start(self, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"round": 0, "draws": []}

    def prompt(self, state: Mapping[str, Any]) -> Prompt:
        options = (Option("go", "1"), Option("wait", "2"))
        return Prompt(f"round {state['round']}", spans=(("round", 6, 7),), options=options)

    def step(self, state: Mapping[str, Any], reply: Reply, rng: Any) -> Turn:
        return Turn({"round": state["round"] + 1, "draws": [*state["draws"], rng.random()]})

    def outcome(self, state: Mapping[str, Any]) -> str | None:
        return "stopped" if state["round"] > 3 else None


class Tuples(Game):
    def start(self, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"round": 0, "draws": ()}


class Changes(Game):
    def step(self, state: Any, reply: Reply, rng: Any) -> Turn:
        state["draws"].append(1)
        return Turn({"round": 1, "draws": []})


class Draws(Game):
    def step(self, state: Mapping[str, Any], reply: Reply, rng: Any) -> Turn:
        return Turn({"round": 1, "draws": [next(COUNTER)]})


class Starts(Game):
    def start(self, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"round": next(COUNTER), "draws": []}


class Spans(Game):
    def prompt(self, state: Mapping[str, Any]) -> Prompt:
        return Prompt("hi", spans=(("all", 0, 3),))


class NoOptions(Game):
    def prompt(self, state: Mapping[str, Any]) -> Prompt:
        return Prompt("hi")


class EqualKeys(Game):
    def prompt(self, state: Mapping[str, Any]) -> Prompt:
        return Prompt("hi", options=(Option("go", "1"), Option("stay", "1")))


class Other(Game):
    def outcome(self, state: Mapping[str, Any]) -> str | None:
        return "won" if state["round"] else None


class Taken(Game):
    outcomes = ("round_limit",)


class Bare(Game):
    def step(self, state: Mapping[str, Any], reply: Reply, rng: Any) -> Any:
        return {"round": 1, "draws": []}


class Twice(Game):
    def conditions(self) -> Sequence[Condition]:
        return [Condition("a"), Condition("a")]


class Endless(Game):
    def numbers(self, state: Mapping[str, Any]) -> Mapping[str, float]:
        return {"balance": float("inf")}


@pytest.mark.parametrize(
    ("game", "message"),
    [
        (Tuples, "its state is not plain JSON data"),
        (Changes, "step changes the state that it was given"),
        (Draws, "the same state, reply and generator gave a different state"),
        (Starts, "two games with the same condition start differently"),
        (Spans, "span 'all' is not a half-open range of its prompt's characters"),
        (NoOptions, "its prompt offers no options"),
        (EqualKeys, "two options of a prompt have the same key"),
        (Other, "its outcome is 'won'; return one of its `outcomes`, or None to continue"),
        (Taken, "are reserved for the playing stage"),
        (Bare, "step returned dict instead of a Turn"),
        (Twice, "two conditions have the same id"),
        (Endless, "its numbers are not finite floats"),
    ],
)
def test_environments(game: type[Game], message: str) -> None:
    broken(EnvironmentPart(name="mine", help="x", make=lambda params: game()), message)


def test_a_right_environment() -> None:
    check_part(EnvironmentPart(name="mine", help="x", make=lambda params: Game()))


# --- what leaves the toolkit ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([("/etc/passwd", b"")], "is not a safe relative file name"),
        ([("a/../../b", b"")], "is not a safe relative file name"),
        ([("", b"")], "is not a safe relative file name"),
        ([("a\\b", b"")], "is not a safe relative file name"),
        ([("a", "text")], "the content of 'a' is str instead of bytes"),
        ([("a", b""), ("a", b"")], "it yields a file name twice"),
    ],
)
def test_sinks(files: Any, message: str) -> None:
    broken(SinkPart(name="mine", help="x", run=lambda work: files), message)


def test_sinks_that_write_or_change() -> None:
    def writes(work: Any) -> Iterator[tuple[str, bytes]]:
        (work.folder / "a").write_text("")
        yield "a", b""

    broken(SinkPart(name="mine", help="x", run=writes), "it writes files itself")
    broken(
        SinkPart(name="mine", help="x", run=lambda work: [("a", str(next(COUNTER)).encode())]),
        "different files the second time",
    )


def test_executors() -> None:
    def executor(**changes: Any) -> ExecutorPart:
        worker: Any = object()
        return ExecutorPart(name="mine", help="x", start=lambda params, request: worker, **changes)

    broken(executor(workers=lambda params: 0), "`workers` returned 0; at least 1 is needed")
    broken(executor(limits=lambda params: 3), "`limits` must return WorkerLimits or None")
    broken(executor(gpus=lambda params: [2, 5]), "`gpus` must return text, such as '2,5', or None")
    broken(
        executor(command=lambda params, request: str(next(COUNTER))),
        "`command` returned a different result the second time",
    )


@pytest.mark.parametrize(
    ("figures", "message"),
    [
        (lambda: [Figure(" ", "")], "a figure has no title"),
        (lambda: ["<p>"], "it yields str instead of a Figure"),
        (
            lambda: [Figure("a", '<img src="https://example.org/a.png">')],
            "figure 'a' loads something external",
        ),
        (
            lambda: [Figure("a", "<script src='a.js'></script>")],
            "figure 'a' loads something external",
        ),
        (lambda: [Figure("a", str(next(COUNTER)))], "it yields different figures the second time"),
    ],
)
def test_reports(figures: Callable[[], Any], message: str) -> None:
    broken(
        ReportSection(
            name="mine", title="x", help="x", reads=("features",), run=lambda inputs: figures()
        ),
        message,
    )


# --- fakes ----------------------------------------------------------------------------------------


def test_fakes_hold_what_they_are_given() -> None:
    made = make_samples(["one two"], balance=[3.0], outcome=["won"])
    assert made["sample_meta"].column("string").to_pylist() == [None, "won"]
    inputs = TableInputs(made)
    assert inputs.tables() == ["sample_meta", "samples"]
    with pytest.raises(DataError, match=r"There is no table 'sample'. Did you mean 'samples'[?]"):
        inputs.read("sample")
    reporter = SilentReporter()
    reporter.phase("load")
    reporter.progress(1, 2)
    assert (reporter.phases, reporter.steps) == (["load"], [(1, 2)])


def test_every_table_can_be_made() -> None:
    for name, made in make_tables(DATA_TABLES).items():
        assert made.schema.equals(arrow_schema(name))
