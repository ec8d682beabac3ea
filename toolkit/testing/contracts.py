"""Contract checks of every kind of part, for the tests of plugins.

    @pytest.mark.parametrize("part", list(toolkit_parts()), ids=lambda part: part.name)
    def test_contract(part):
        check_part(part)

`check_part` checks the record and its params, then runs the part on small synthetic tables; give it
a `work` if the part needs a model, SAEs or realistic tables. `toolkit.testing.loaded` checks what a
model or SAE part loads. A violation raises `Broken`, whose text names it.
"""

from __future__ import annotations

import json
import math
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pydantic import ValidationError

from toolkit._plugins.loading import load_parts, problem_of
from toolkit.costs import Cost, Workload
from toolkit.executors import WorkerLimits, WorkerRequest
from toolkit.hub import Download
from toolkit.identity import Identity
from toolkit.parts import (
    EnvironmentPart,
    ExecutorPart,
    ModelPart,
    ParserPart,
    Part,
    ReportSection,
    SaePart,
    SinkPart,
    SourcePart,
    StagePart,
)
from toolkit.tables import arrow_schema, table
from toolkit.testing.fakes import TableInputs, make_tables, make_work
from toolkit.testing.game_contracts import check_environment, check_parser
from toolkit.testing.promises import Broken, as_json_data, must
from toolkit.work import Figure, Inputs, RunInputs, SinkWork, Work

if TYPE_CHECKING:
    pass

HELP_LENGTH = 100
HEAVY = ("torch", "lancedb")


def check_part(
    part: Part,
    *,
    params: Mapping[str, Any] | None = None,
    work: Work | None = None,
    tolerance: float = 0.0,
) -> None:
    """Check any part. `params` as in a spec; `work` for sources and stages.

    `tolerance` is relative, for stages that compute on a device whose sums depend on the batch.
    """
    given = check_params(part, params or {})
    done = replace(work, params=given) if work else None
    match part:
        case ModelPart() | SaePart():
            check_identity(part, given)
        case SourcePart():
            check_source(part, done or make_work(given, make_tables(part.reads)))
        case StagePart():
            check_stage(
                part, done or make_work(given, make_tables(part.reads)), tolerance=tolerance
            )
        case EnvironmentPart():
            check_environment(part, given)
        case ParserPart():
            check_parser(part, given)
        case SinkPart():
            check_sink(part, given, work.inputs if work else None)
        case ExecutorPart():
            check_executor(part, given)
        case ReportSection():
            check_report(part, work.inputs if work else None)


# --- the record and its params --------------------------------------------------------------------


def check_params(part: Part, params: Mapping[str, Any]) -> Any:
    """The record loads, its help fits a line, and its params are strict, explained and survive
    JSON. Returns the params.
    """
    if problem := problem_of(part):
        raise Broken(problem)
    must(
        len(part.help) <= HELP_LENGTH,
        part,
        f"its help has {len(part.help)} characters; at most {HELP_LENGTH} fit a line",
    )
    must(
        part.params.model_config.get("extra") == "forbid",
        part,
        "its params accept unknown keys; derive them from Params",
    )
    must(
        part.params.model_config.get("frozen"),
        part,
        "its params can be changed; derive them from Params",
    )
    for name, field in part.params.model_fields.items():
        must(field.description, part, f"params field '{name}' has no description")
    json.dumps(part.params.model_json_schema())
    context = {"parts": load_parts()}
    given = part.params.model_validate(dict(params), context=context)
    written = json.loads(given.model_dump_json(by_alias=True))
    try:
        reread = part.params.model_validate(written, context=context)
    except ValidationError as error:
        raise Broken(
            f"{part.kind} part '{part.name}': its params do not survive JSON: {error}"
        ) from error
    must(
        given == reread,
        part,
        f"its params change on the way through JSON: {given!r} became {reread!r}",
    )
    return given


def check_identity(part: ModelPart | SaePart, params: Any) -> None:
    """`identify` answers the same twice, in plain data, and imports no torch: it runs when a spec
    is only planned.
    """
    before = set(sys.modules)
    first, second = part.identify(params), part.identify(params)
    loaded = [name for name in HEAVY if name in sys.modules and name not in before]
    must(not loaded, part, f"identify imported {', '.join(loaded)}; import it in load")
    must(
        isinstance(first, Identity),
        part,
        f"identify gave {type(first).__name__} instead of an Identity",
    )
    must(
        first == second,
        part,
        f"identify answered differently the second time: {first!r}, {second!r}",
    )
    must(
        first.name and first.revision and first.digest,
        part,
        "identify left the name, revision or digest empty",
    )
    must(
        as_json_data(first.facts) == dict(first.facts),
        part,
        "the facts of its Identity are not plain JSON data",
    )
    downloads = list(part.downloads(params)) if part.downloads else []
    must(
        all(isinstance(download, Download) and download.patterns for download in downloads),
        part,
        "downloads gave something else than Downloads",
    )


# --- sources and stages ---------------------------------------------------------------------------


def check_source(part: SourcePart, work: Work) -> None:
    """What a stage keeps, and: samples have spans inside their tokens, metadata has a sample, the
    limit is kept.
    """
    rows = check_rows(part, part.run, part.writes, work)
    samples = rows.get("samples", arrow_schema("samples").empty_table()).to_pylist()
    for sample in samples:
        must(
            len(sample["token_ids"]) in (0, len(sample["pieces"])),
            part,
            f"{sample['sample']}: token_ids and pieces differ",
        )
        for span in sample["spans"]:
            inside = 0 <= span["start"] < span["end"] <= len(sample["pieces"])
            must(
                inside,
                part,
                f"{sample['sample']}: span '{span['name']}' is not a half-open range of its tokens",
            )
    known = {sample["sample"] for sample in samples}
    meta = (
        rows.get("sample_meta", arrow_schema("sample_meta").empty_table())
        .column("sample")
        .to_pylist()
    )
    must(
        set(meta) <= known,
        part,
        f"sample_meta names samples that do not exist: {sorted(set(meta) - known)[:3]}",
    )
    limited = _collect(part, part.run, part.writes, replace(work, limit_units=1))
    units = set(limited["samples"].column("unit").to_pylist()) if "samples" in limited else set()
    must(len(units) <= 1, part, f"limit_units=1 gave {len(units)} units")


def check_stage(part: StagePart, work: Work, *, tolerance: float = 0.0) -> None:
    """The rows keep the tables' contract; with `split`, one batch and its two halves give the same
    rows; more work costs no less.
    """
    check_cost(part, work.params)
    writes = part.tables(work.params)
    must(
        set(writes) <= set(part.writes),
        part,
        f"written names {', '.join(writes)}; only its writes: {', '.join(part.writes)}",
    )
    whole = check_rows(part, part.run, writes, work)
    halves = _halves(part, work)
    if not halves:
        return
    results = [_collect(part, part.run, writes, half) for half in halves]
    for name in writes:
        expected = _by_key(name, [whole[name]] if name in whole else [])
        got = _by_key(name, [half[name] for half in results if name in half])
        must(
            _close(expected, got, tolerance),
            part,
            f"'{name}' differs between one batch and its two halves",
        )


def _halves(part: StagePart, work: Work) -> list[Work]:
    """The work in two steps over samples; none for a part that is cut otherwise, or not at all."""
    if part.steps.size is None or part.steps.features is not None:
        return []
    if "samples" not in work.inputs.tables():
        return []
    samples = work.inputs.read("samples")
    middle = samples.num_rows // 2
    return [_over(work, samples.slice(0, middle)), _over(work, samples.slice(middle))]


def check_cost(part: StagePart, params: Any) -> None:
    """No cost is negative, and four times as many samples cost at least as much."""
    if part.estimates.cost is None:
        return
    few, many = (part.estimates.cost(params, _load(times)) for times in (1, 4))
    must(
        isinstance(few, Cost) and isinstance(many, Cost),
        part,
        f"cost gave {type(few).__name__} instead of a Cost",
    )
    few_numbers, many_numbers = _numbers(few), _numbers(many)
    for name, number in few_numbers.items():
        larger = many_numbers.get(name, 0)
        must(
            0 <= number <= larger,
            part,
            f"its cost in {name} is {number} for few samples and {larger} for many",
        )


def _numbers(cost: Cost) -> dict[str, float]:
    numbers = {name: value for name, value in vars(cost).items() if name != "totals"}
    return {**numbers, **cost.totals}


def _load(times: int) -> Workload:
    return Workload(
        samples=4 * times,
        distinct=2 * times,
        tokens=40 * times,
        longest=30,
        units=3 * times,
        rows=8 * times,
        entries=80 * times,
    )


def check_rows(
    part: Part, run: Callable[[Work], Any], writes: Sequence[str], work: Work
) -> dict[str, pa.Table]:
    """Only declared tables, exactly their schema, no key twice, and equal rows the second time."""
    first, second = (_collect(part, run, writes, work) for _ in range(2))
    for name, rows in first.items():
        keys = [
            tuple(row[column] for column in table(name).key)
            for row in rows.select(list(table(name).key)).to_pylist()
        ]
        must(
            len(keys) == len(set(keys)),
            part,
            f"'{name}' has two rows with the same key ({', '.join(table(name).key)})",
        )
    same = {name: _by_key(name, [rows]) for name, rows in first.items()}
    repeated = {name: _by_key(name, [rows]) for name, rows in second.items()}
    must(
        _close(same, repeated, 0.0),
        part,
        "it gave other rows the second time; draw with work.rng(purpose, ...)",
    )
    return first


def _collect(
    part: Part, run: Callable[[Work], Any], writes: Sequence[str], work: Work
) -> dict[str, pa.Table]:
    results: dict[str, list[pa.Table]] = {}
    for name, rows in run(work):
        must(
            name in writes,
            part,
            f"it yields '{name}', which is not among its writes: {', '.join(writes)}",
        )
        schema = arrow_schema(name)
        must(
            isinstance(rows, pa.Table),
            part,
            f"'{name}' came as {type(rows).__name__} instead of a pyarrow Table",
        )
        must(
            rows.schema.equals(schema),
            part,
            f"'{name}' has another schema than toolkit.tables.arrow_schema('{name}')",
        )
        for column in schema:
            must(
                column.nullable or not rows.column(column.name).null_count,
                part,
                f"'{name}.{column.name}' has nulls",
            )
        results.setdefault(name, []).append(rows)
    return {name: pa.concat_tables(tables) for name, tables in results.items()}


def _over(work: Work, samples: pa.Table) -> Work:
    held = {name: work.inputs.read(name) for name in work.inputs.tables()}
    return replace(work, inputs=TableInputs({**held, "samples": samples}))


def _by_key(name: str, tables: Iterable[pa.Table]) -> dict[str, Any]:
    """Rows by key: halves may both describe the same space, and that is one row."""
    rows = (row for rows in tables for row in rows.to_pylist())
    return dict(
        sorted((json.dumps([row[column] for column in table(name).key]), row) for row in rows)
    )


def _close(left: Any, right: Any, tolerance: float) -> bool:
    if isinstance(left, float) and isinstance(right, float):
        both_nan = math.isnan(left) and math.isnan(right)
        return both_nan or math.isclose(left, right, rel_tol=tolerance, abs_tol=0.0)
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(
            _close(left[key], right[key], tolerance) for key in left
        )
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(
            _close(a, b, tolerance) for a, b in zip(left, right, strict=True)
        )
    return bool(left == right)


# --- what leaves the toolkit ----------------------------------------------------------------------


def check_sink(part: SinkPart, params: Any, inputs: Inputs | None = None) -> None:
    """It yields bytes under safe relative names, each once, the same twice, and writes nothing
    itself.
    """
    with tempfile.TemporaryDirectory() as folder:
        work = SinkWork(
            params,
            Path(folder),
            "fake-run",
            inputs or TableInputs(make_tables(_read_by(part, params))),
        )
        files, repeated = (
            [(name, _content(part, name, data)) for name, data in part.run(work)] for _ in range(2)
        )
        must(
            not any(Path(folder).iterdir()),
            part,
            "it writes files itself; yield them, the host writes them",
        )
    for name, _ in files:
        path = PurePosixPath(name)
        unsafe = (
            path.is_absolute()
            or not path.parts
            or ".." in path.parts
            or re.search(r"[\\:\x00-\x1f]", name)
        )
        must(not unsafe, part, f"'{name}' is not a safe relative file name")
    must(len({name for name, _ in files}) == len(files), part, "it yields a file name twice")
    must(files == repeated, part, "it gave other files the second time")


def _content(part: SinkPart, name: str, data: Any) -> bytes:
    """All bytes of a file that came whole or in pieces."""
    pieces = (
        [data]
        if isinstance(data, bytes)
        else list(data)
        if isinstance(data, Iterable) and not isinstance(data, str)
        else [data]
    )
    for piece in pieces:
        must(
            isinstance(piece, bytes),
            part,
            f"'{name}' came as {type(piece).__name__} instead of bytes",
        )
    return b"".join(pieces)


def _read_by(part: SinkPart, params: Any) -> Iterator[str]:
    """A sink that reads whatever is asked for names the tables in its params."""
    yield from dict.fromkeys((*part.reads, *getattr(params, "tables", ())))


def check_executor(part: ExecutorPart, params: Any) -> None:
    """It asks for at least one worker, writes GPUs as `--gpu` does, and names its command without
    starting anything. Real workers need an integration test.
    """
    count = part.workers(params)
    must(count >= 1, part, f"it asks for {count} workers")
    gpus = part.gpus(params)
    must(gpus is None or isinstance(gpus, str), part, "gpus gives no text, such as '2,5'")
    limits = part.limits(params)
    must(limits is None or isinstance(limits, WorkerLimits), part, "limits gives no WorkerLimits")
    if part.command is not None:
        folder = Path("runs")
        request = WorkerRequest(name="w", folder=folder, jobs=folder, inputs=folder)
        lines = {part.command(params, request) for _ in range(2)}
        must(len(lines) == 1, part, "its command differs the second time")


def check_report(part: ReportSection, inputs: RunInputs | None = None) -> None:
    """It accepts empty tables; figures have a title, load nothing external and are reproducible."""
    list(part.run(TableInputs({name: arrow_schema(name).empty_table() for name in part.reads})))
    given = inputs or TableInputs(make_tables(part.reads))
    figures, repeated = list(part.run(given)), list(part.run(given))
    for figure in figures:
        must(
            isinstance(figure, Figure),
            part,
            f"it yields {type(figure).__name__} instead of a Figure",
        )
        must(figure.title.strip(), part, "a figure has no title")
        outside = re.search(
            r"""<script[^>]+src|<link\b|<iframe|\bsrc\s*=\s*["']?(?:https?:)?//|@import|url\(\s*["']?https?:""",
            figure.html,
        )
        must(
            not outside,
            part,
            f"figure '{figure.title}' fetches something: {outside and outside.group()}",
        )
    must(figures == repeated, part, "it gave other figures the second time")
