"""Contract checks of sinks, executors and report sections."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from toolkit.executors.interface import WorkerLimits, WorkerRequest
from toolkit.parts import (
    ExecutorPart,
    ReportSection,
    SinkPart,
)
from toolkit.tables import arrow_schema
from toolkit.testing.fakes import TableInputs, make_tables
from toolkit.testing.promises import must
from toolkit.work import Figure, Inputs, SinkWork


def check_sink(part: SinkPart, params: Any, inputs: Inputs | None = None) -> None:
    """Check that it yields bytes under safe relative names, each once and the same twice, and
    writes nothing itself.
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
            "it writes files itself; yield their names and bytes, and the host writes them",
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
    must(files == repeated, part, "it yields different files the second time")


def _content(part: SinkPart, name: str, data: Any) -> bytes:
    """Join the bytes of a file that is yielded whole or in pieces."""
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
            f"the content of '{name}' is {type(piece).__name__} instead of bytes",
        )
    return b"".join(pieces)


def _read_by(part: SinkPart, params: Any) -> Iterator[str]:
    """The tables that a sink reads: a sink without fixed ones names them in its params."""
    yield from dict.fromkeys((*part.reads, *getattr(params, "tables", ())))


def check_executor(part: ExecutorPart, params: Any) -> None:
    """Check that it requests at least one worker, writes GPUs as `--gpu` does, and gives its
    command without starting anything. Real workers need an integration test.
    """
    count = part.workers(params)
    must(count >= 1, part, f"`workers` returned {count}; at least 1 is needed")
    gpus = part.gpus(params)
    must(
        gpus is None or isinstance(gpus, str),
        part,
        "`gpus` must return text, such as '2,5', or None",
    )
    limits = part.limits(params)
    must(
        limits is None or isinstance(limits, WorkerLimits),
        part,
        "`limits` must return WorkerLimits or None",
    )
    if part.command is not None:
        folder = Path("runs")
        request = WorkerRequest(name="w-0", executor="w", folder=folder, jobs=folder, inputs=folder)
        lines = {part.command(params, request) for _ in range(2)}
        must(len(lines) == 1, part, "`command` returned a different result the second time")


def check_report(part: ReportSection, inputs: Inputs | None = None) -> None:
    """Check that it accepts empty tables, and that figures have a title, load nothing external and
    are reproducible.
    """
    list(part.run(TableInputs({name: arrow_schema(name).empty_table() for name in part.reads})))
    rows = {name: inputs.read(name) for name in inputs.tables()} if inputs else None
    tables = TableInputs(make_tables(part.reads) if rows is None else rows)
    figures, repeated = list(part.run(tables)), list(part.run(tables))
    for figure in figures:
        must(
            isinstance(figure, Figure),
            part,
            f"it yields {type(figure).__name__} instead of a Figure",
        )
        must(figure.title.strip(), part, "a figure has no title")
        outside = re.search(
            r"""<script[^>]+src|<link\b|<iframe|@import"""
            r"""|\bsrc\s*=\s*["']?(?:https?:)?//|url\(\s*["']?https?:""",
            figure.html,
        )
        must(
            not outside,
            part,
            f"figure '{figure.title}' loads something external: {outside and outside.group()}",
        )
    must(figures == repeated, part, "it yields different figures the second time")
