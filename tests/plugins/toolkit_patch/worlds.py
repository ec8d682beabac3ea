"""A planted model with labelled prompts and a comparison of half of them, and screens of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from toolkit._plugins.loading import load_parts
from toolkit.models import Model
from toolkit.saes import space_id
from toolkit.tables import arrow_schema
from toolkit.testing.fakes import SilentReporter, make_work
from toolkit.testing.planted import prompts

PARTS = load_parts([])
OUTCOMES = {"stop": [" stop"], "bet": [" bet"]}


def table(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=arrow_schema(name))


def run(
    name: str,
    params: Mapping[str, Any],
    tables: Mapping[str, pa.Table],
    model: Any = None,
    saes: Any = None,
    features: tuple[int, int] | None = None,
) -> dict[str, pa.Table]:
    """The tables that one part writes."""
    from dataclasses import replace

    part = PARTS.get("stage", name)
    work = make_work(part.params.model_validate(params), tables, model=model, saes=saes)
    result: dict[str, list[pa.Table]] = {}
    for written, rows in part.run(replace(work, features=features)):
        result.setdefault(written, []).append(rows)
    return {written: pa.concat_tables(parts) for written, parts in result.items()}


@dataclass(frozen=True)
class World:
    """A planted model, its SAEs, and the tables that a screen reads."""

    planted: Any
    model: Model
    saes: Any
    tables: dict[str, pa.Table]

    def screen(self, **params: Any) -> dict[str, pa.Table]:
        """Screens, effects and verdicts."""
        settings = {"outcomes": OUTCOMES, "candidates": {"top": 20}, "points": 40, **params}
        results = run("patch.delta", settings, self.tables, self.model, self.saes)
        return results | run("patch.verdicts", {}, results)

    def truth(self, row: Mapping[str, Any]) -> Any:
        """What was planted as this feature."""
        sae = next(sae for sae in self.saes if space_id(self.model.identity, sae) == row["space"])
        known = next(truth for truth in self.planted.truth.saes if truth.name == sae.name)
        return known.features[row["feature"]]

    def verdicts(self, result: Mapping[str, pa.Table]) -> list[tuple[Any, str]]:
        """Truth and verdict of each screened feature."""
        return [(self.truth(row), row["verdict"]) for row in result["verdicts"].to_pylist()]


class RecordingReporter(SilentReporter):
    """A reporter whose warnings can be read."""

    @property
    def warnings(self) -> list[str]:
        return [facts["text"] for name, facts in self.events if name == "warning"]


class WholePasses(Model):
    """A model by the four methods that a loader has to write, and nothing faster."""

    def __init__(self, model: Any) -> None:
        self._model, self.bos_id, self.end_ids = model, model.bos_id, model.end_ids
        self.identity, self.editable = model.identity, model.editable
        self.layers, self.width, self.context = model.layers, model.width, model.context

    def encode(self, text, *, chat=False):
        return self._model.encode(text, chat=chat)

    def decode(self, ids):
        return self._model.decode(ids)

    def run(self, batch, capture, edits=()):
        return self._model.run(batch, capture, edits)

    def unembed(self, states):
        return self._model.unembed(states)


def load_saes(path: Any) -> Any:
    """SAEs of a Llama Scope folder."""
    part = PARTS.get("sae", "llama_scope")
    return part.load(part.params(path=str(path)), SilentReporter())


def make_world(planted: Any, model: Model, path: Any, by: str = "cause") -> World:
    """The world of one planted release, labelled by what is planted."""
    saes = load_saes(path)
    samples, meta = [], []
    for number, prompt in enumerate(prompts(planted, 200)):
        tokens, name = model.tokenise(prompt.text), f"s{number:04d}"
        facts = {"unit": name, "cluster": name, "prompt_hash": name, "spans": []}
        words = {"text": tokens.text, "token_ids": list(tokens.ids), "pieces": list(tokens.pieces)}
        samples.append({"sample": name, **facts, **words})
        label = "yes" if getattr(prompt, by) else "no"
        meta.append({"sample": name, "key": by, "number": None, "string": label})
    tables = {"samples": table("samples", samples), "sample_meta": table("sample_meta", meta)}
    tables |= run("extract.activations", {}, tables, model, saes)
    params = {"by": by, "between": ["yes", "no"], "half": "select"}
    tables |= run("compare.welch", params, tables, model, saes)
    return World(planted, model, saes, tables)
