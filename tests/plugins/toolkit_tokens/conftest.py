"""The packaged lab model with its SAEs, the ten scenarios as samples, and the planted world."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from toolkit._plugins.loading import load_parts
from toolkit.tables import arrow_schema
from toolkit.testing.fakes import SilentReporter, make_work
from toolkit.testing.planted import Planted
from toolkit_lab import model_path, saes_path

PARTS = load_parts([])
SCENARIOS = {"environment": {"uses": "slot_machine", "with": {"layout": "scenario"}}}
Tables = Mapping[str, pa.Table]


def run(
    kind: str,
    name: str,
    params: Mapping[str, Any],
    tables: Tables | None = None,
    *,
    model: Any = None,
    saes: Any = None,
    limit: int | None = None,
) -> dict[str, pa.Table]:
    """The tables that one part writes."""
    part = PARTS.get(kind, name)
    validated = part.params.model_validate(params, context={"parts": PARTS})
    work = make_work(validated, tables, model=model, saes=saes, limit_units=limit)
    result: dict[str, list[pa.Table]] = {}
    for written, rows in part.run(replace(work, identity=getattr(model, "identity", None))):
        result.setdefault(written, []).append(rows)
    return {written: pa.concat_tables(rows) for written, rows in result.items()}


def table(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=arrow_schema(name))


def samples_of(model: Any, texts: Mapping[str, Any], **meta: Mapping[str, Any]) -> Tables:
    """Tables of texts by name; a text may be (text, character spans). Each keyword is a metadata
    key with a value for some of the names.
    """
    rows = []
    for name, sample_texts in texts.items():
        text, spans = sample_texts if isinstance(sample_texts, tuple) else (sample_texts, ())
        tokens = model.tokenise(text, spans=spans)
        rows.append(
            {
                "sample": name,
                "unit": name,
                "cluster": name,
                "prompt_hash": name,
                "text": tokens.text,
                "token_ids": list(tokens.ids),
                "pieces": list(tokens.pieces),
                "spans": [
                    dict(zip(("name", "start", "end"), span, strict=True)) for span in tokens.spans
                ],
                "bos": tokens.bos,
            }
        )
    facts = [
        {
            "sample": name,
            "key": key,
            "number": None if isinstance(value, str) else value,
            "string": value if isinstance(value, str) else None,
        }
        for key, values in meta.items()
        for name, value in values.items()
    ]
    return {"samples": table("samples", rows), "sample_meta": table("sample_meta", facts)}


def loaded(path: Any) -> Any:
    part = PARTS.get("model", "huggingface")
    return part.load(part.params(path=str(path), device="cpu"), SilentReporter())


def saes_of(path: Any) -> Any:
    part = PARTS.get("sae", "llama_scope")
    return part.load(part.params(path=str(path)), SilentReporter())


@pytest.fixture(scope="session")
def lab() -> Any:
    return loaded(model_path())


@pytest.fixture(scope="session")
def lab_saes() -> Any:
    return saes_of(saes_path())


@pytest.fixture(scope="session")
def scenarios(lab: Any) -> dict[str, pa.Table]:
    """The ten situations and their twins."""
    return run("source", "scenarios", SCENARIOS, model=lab)


@pytest.fixture(scope="session")
def tracked(lab: Any, lab_saes: Any, scenarios: Tables) -> dict[str, pa.Table]:
    """Everything that `track.tokens` keeps of them by default."""
    return run("stage", "track.tokens", {}, scenarios, model=lab, saes=lab_saes)


@pytest.fixture(scope="session")
def small(planted: Planted) -> Any:
    return loaded(planted.model)


@pytest.fixture(scope="session")
def small_saes(planted: Planted) -> Any:
    return saes_of(planted.llama_scope)


Run = Callable[..., dict[str, pa.Table]]
