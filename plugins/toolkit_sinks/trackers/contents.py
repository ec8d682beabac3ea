"""The contents of a run that go to a tracker: spec, identities, findings, tables, measures and
charts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field

from toolkit.parts import SinkParams
from toolkit.tables import table
from toolkit_sinks._json_lines import check_table

if TYPE_CHECKING:
    from toolkit.work import Finding, SinkWork

RECORDED = ("spec", "spec_sha256", "seed", "toolkit", "plugins")
"""Fields of the run's manifest that are passed on. Its host, paths and command line are not."""
IDENTITY = ("uses", "name", "revision", "digest")
FINDING_COLUMNS = ("sentence", "number", "low", "high", "n", "baseline")


class TrackerParams(SinkParams):
    """Which tables go to a tracker, and how many rows of each."""

    tables: tuple[Annotated[str, AfterValidator(check_table)], ...] = Field(
        ("verdicts", "effects", "measures", "comparisons"),
        description="Names of the tables to log; those without rows are left out.",
    )
    max_rows: int = Field(
        10_000, ge=1, description="Maximum number of rows per table: the first ones by key."
    )


@dataclass(frozen=True)
class TrackedTable:
    """The first rows of a table as plain cells; `total` counts all rows."""

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    total: int


def config_of(work: SinkWork) -> dict[str, Any]:
    """The spec as written, seed, versions, and the identities of model and SAEs."""
    record = work.record
    config: dict[str, Any] = {name: record[name] for name in RECORDED if name in record}
    for name in ("model", "saes"):
        if record.get(name):
            config[name] = {field: record[name].get(field) for field in IDENTITY}
    return {"run": work.run, **config}


def flat_config(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The configuration as dotted names and texts; a list is one JSON text."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from flat_config(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, str) else json.dumps(value)


def notes_of(work: SinkWork, findings: Sequence[Finding]) -> str:
    """The question of the spec and the findings, as Markdown."""
    question = (work.record.get("spec") or {}).get("question")
    opening = [f"**{question}**", ""] if question else []
    return "\n".join([*opening, *(f"- {finding.sentence}" for finding in findings)])


def finding_rows(findings: Sequence[Finding]) -> list[list[Any]]:
    """The findings as rows of FINDING_COLUMNS."""
    return [
        [
            finding.sentence,
            finding.number,
            *(finding.interval or (None, None)),
            finding.n,
            finding.baseline,
        ]
        for finding in findings
    ]


def tracked_tables(work: SinkWork) -> Iterator[TrackedTable]:
    """The requested tables that have rows, sorted by their keys."""
    available = set(work.inputs.tables())
    for name in dict.fromkeys(work.params.tables):
        rows = work.inputs.read(name) if name in available else None
        if rows is None or not rows.num_rows:
            continue
        ordered = rows.sort_by([(column, "ascending") for column in table(name).key])
        cells = [list(map(_cell, row.values())) for row in _head(ordered, work).to_pylist()]
        yield TrackedTable(name, ordered.column_names, cells, rows.num_rows)


def _head(rows: Any, work: SinkWork) -> Any:
    return rows.slice(0, work.params.max_rows)


def _cell(value: Any) -> Any:
    """A value that a tracker can show: lists and records become JSON."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


def measures_of(work: SinkWork) -> dict[str, float]:
    """The measures over all games, and how many rows each table has, by name."""
    chosen = sorted({*work.params.tables} & {*work.inputs.tables()})
    counts = {f"rows/{name}": float(work.inputs.read(name).num_rows) for name in chosen}
    rows = work.inputs.read("measures").to_pylist() if "measures" in chosen else []
    overall = {
        f"measures/{_name(row['measure'])}/{_name(row['subject'])}".rstrip("/"): row["value"]
        for row in rows
        if row["scope"] == "all" and row["value"] is not None
    }
    return counts | overall


def _name(text: str) -> str:
    """A text in the characters that trackers allow in a part of a name."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text).strip("_")
