"""In-memory fakes of what the host passes to a part: tables, a reporter, work. They need no store,
no model and no worker.

    work = make_work(Hash(width=8), make_samples(["one", "two"]))
    rows = dict(extract_hash(work))
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from toolkit.errors import DataError, choices, nearest
from toolkit.features.comparisons import ComparedGroup, Comparison
from toolkit.ledger import StepRow
from toolkit.models import Tokens
from toolkit.parts import NoParams
from toolkit.samples.rows import metadata_row, sample_row
from toolkit.tables import arrow_schema
from toolkit.work import Work

TEXTS = (
    "one",
    "two three",
    "four",
    "five six seven",
    "eight",
    "nine ten",
    "one two",
    "three four five",
)


@dataclass(frozen=True)
class TableInputs:
    """The `Inputs` of a part, or the `RunInputs` of a section, from tables in memory."""

    by_name: Mapping[str, pa.Table] = field(default_factory=dict)

    def read(self, table: str) -> pa.Table:
        """All rows of `table`."""
        if table not in self.by_name:
            raise DataError(
                f"There is no table '{table}'.{nearest(table, self.by_name)} Tables: "
                f"{choices(self.by_name)}."
            )
        return self.by_name[table]

    def tables(self) -> Sequence[str]:
        """Names of the available tables."""
        return sorted(self.by_name)

    def by_stage(self, table: str) -> Mapping[str, pa.Table]:
        """All rows of `table`, as if one stage had written them."""
        return {"stage": self.read(table)} if table in self.by_name else {}


@dataclass
class SilentReporter:
    """A `Reporter` that remembers and shows nothing."""

    phases: list[str] = field(default_factory=list)
    steps: list[tuple[int, int | None]] = field(default_factory=list)
    events: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)

    def phase(self, name: str) -> None:
        """Remember the phase."""
        self.phases.append(name)

    def progress(self, done: int, total: int | None = None) -> None:
        """Remember the progress."""
        self.steps.append((done, total))

    def event(self, name: str, **facts: Any) -> None:
        """Remember the event."""
        self.events.append((name, facts))


def make_work(
    params: Any = None,
    tables: Mapping[str, pa.Table] | None = None,
    *,
    seed: int = 0,
    limit_units: int | None = None,
    model: Any = None,
    saes: Any = None,
) -> Work:
    """Make a step over `tables`, as the function of a stage or source gets it."""
    loaded = NoParams() if params is None else params
    step = hashlib.sha256(f"{type(loaded).__name__} {loaded!r} {seed}".encode()).hexdigest()
    return Work(
        loaded,
        seed,
        TableInputs(tables or {}),
        SilentReporter(),
        limit_units,
        model,
        saes,
        step=step,
    )


def make_comparison(*groups: str, **fields: Any) -> Comparison:
    """Make a comparison of these groups, as a stage records it; `fields` override the defaults."""
    sides = tuple(
        ComparedGroup(name=name, samples=9, units=9, prompts=9, clusters=9) for name in groups
    )
    facts: dict[str, Any] = {
        "id": " vs ".join(groups),
        "part": "compare.welch",
        "test": "welch",
        "by": "group",
        "effect": "d",
        "groups": sides,
        "half": "all",
        "positions": "",
        "unit": "unit",
        "cluster": "prompt",
        "family": "all",
        "tested": {},
        "correction": "bh",
        "alpha": 0.05,
    }
    return Comparison(**{**facts, **fields})


def make_comparisons(*comparisons: Comparison) -> pa.Table:
    """Table `comparisons` with these rows."""
    return _table("comparisons", [comparison.row() for comparison in comparisons])


def make_samples(
    texts: Sequence[str] = TEXTS, **meta: Sequence[float | str]
) -> dict[str, pa.Table]:
    """`samples` and `sample_meta`: each word is a token, each sample a unit, and the span `last` is
    the last token.

    Each keyword is a metadata key with one value per text; without any, `group` alternates between
    `a` and `b`.
    """
    labels = meta or {"group": ["ab"[index % 2] for index in range(len(texts))]}
    ids = [f"s{index:04d}" for index in range(len(texts))]
    samples = [_sample(name, text) for name, text in zip(ids, texts, strict=True)]
    rows = [
        metadata_row(name, key, value)
        for key, values in labels.items()
        for name, value in zip(ids, values, strict=True)
    ]
    return {"samples": _table("samples", samples), "sample_meta": _table("sample_meta", rows)}


def make_step(key: str, **fields: Any) -> StepRow:
    """Make a step for a store to commit; `fields` override the defaults of the row."""
    row: dict[str, Any] = {
        "experiment": "e",
        "stage": "s",
        "part": "p",
        "part_version": "1",
        "run": "r",
        "index": 0,
    }
    row |= {
        "material": "{}",
        "tables": {},
        "worker": "w",
        "seconds": 1.0,
        "committed_at": "2026-01-01T00:00:00+00:00",
    }
    return StepRow(key=key, **row | fields)


def make_tables(names: Iterable[str], texts: Sequence[str] = TEXTS) -> dict[str, pa.Table]:
    """Make small tables of these names: samples, metadata and activations (one feature per token)
    have rows, others have none.
    """
    made = make_samples(texts)
    made["activations"] = _table(
        "activations", [row for row in made["samples"].to_pylist() for row in _activations(row)]
    )
    return {name: made.get(name, arrow_schema(name).empty_table()) for name in names}


def _sample(name: str, text: str) -> dict[str, Any]:
    pieces = tuple(text.split())
    spans = (("last", len(pieces) - 1, len(pieces)),) if pieces else ()
    ids = tuple(_number(piece) for piece in pieces)
    return sample_row(name, name, Tokens(text, ids, pieces, spans))


def _activations(sample: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "space": "fake",
            "sample": sample["sample"],
            "position": index,
            "features": [number % 16],
            "values": [1 + number % 5],
        }
        for index, number in enumerate(sample["token_ids"])
    ]


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:2], "little")


def _table(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=arrow_schema(name))
