"""`scenarios`: named situations of a game as samples, with the spans that the game's own prompt
builder marks.

The game itself finds what contradicts its rules in a situation; such a sample is kept and flagged
(`consistent: no`), next to its consistent twin. A changed copy (`changes`) is the other prompt of a
pair: its key `changed_from` names the sample that it was made from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from toolkit.errors import BadInput, choices, nearest
from toolkit.parts import Labels, Params, UsedEnvironment
from toolkit.samples.rows import metadata_row, sample_row
from toolkit.tables import arrow_schema
from toolkit.work import Rows, Work

if TYPE_CHECKING:
    from toolkit.models import Model, Tokens
    from toolkit.samples.games import Environment, Prompt

CHANGED_FROM = "changed_from"
"""The key of a changed copy that names the sample it was made from."""


class ScenarioChange(Params):
    """A copy of a scenario with changed values in its state."""

    of: str = Field(min_length=1, description="The scenario that is copied.")
    set: dict[str, int | float | str] = Field(
        min_length=1, description="State entries and their new values, such as {balance: 10}."
    )
    name: str | None = Field(
        None, min_length=1, description="The copy's name; without it, `NAME:balance=10`."
    )

    def label(self) -> str:
        """The name of the copy."""
        return self.name or ":".join(
            [self.of, *(f"{key}={value}" for key, value in self.set.items())]
        )


class Scenarios(Params):
    """Which situations of which game, and which changed copies of them."""

    environment: UsedEnvironment = Field(description="The game, with its layout of prompts.")
    pick: Literal["all"] | tuple[str, ...] = Field("all", description="Scenarios by name; or all.")
    inconsistent: Literal["with_twin", "only", "replace"] = Field(
        "with_twin",
        description="Of scenarios that contradict the rules: with_twin keeps each and its "
        "consistent twin, only leaves the twins out, replace keeps the twins alone.",
    )
    changes: tuple[ScenarioChange, ...] = Field(
        (), description="Changed copies, for attribution between two prompts."
    )

    @model_validator(mode="after")
    def _check_names(self) -> Scenarios:
        known = [scenario.name for scenario in self.environment.make().scenarios()]
        if not known:
            raise ValueError(
                f"environment: {self.environment.uses} offers no scenarios: its class does not "
                "override `scenarios` of toolkit.samples.games.Environment"
            )
        picked = () if self.pick == "all" else self.pick
        for name in (*picked, *(change.of for change in self.changes)):
            if name not in known:
                raise ValueError(
                    f"there is no scenario '{name}'.{nearest(name, known)} Scenarios: "
                    f"{choices(known)}"
                )
        return self


@dataclass(frozen=True)
class _Situation:
    """A situation that becomes a sample."""

    name: str
    unit: str
    prompt: Prompt
    facts: Mapping[str, str | float]


def max_rows(params: Scenarios, available: Mapping[str, int]) -> Mapping[str, int]:
    """How many situations there are."""
    return {"samples": len(_samples(params))}


def texts(params: Scenarios) -> list[tuple[str, str]]:
    """The unit and the text of each situation."""
    return [(sample.unit, sample.prompt.text) for sample in _samples(params)]


def labels(params: Scenarios) -> Labels:
    """The metadata keys of the situations with their values; None for keys that hold numbers."""
    labels: dict[str, list[str] | None] = {}
    for sample in _samples(params):
        for key, value in sample.facts.items():
            if isinstance(value, str):
                values = labels.setdefault(key, [])
                if values is not None and value not in values:
                    values.append(value)
            else:
                labels[key] = None
    return labels


def read_samples(work: Work) -> Rows:
    """The tables of the situations; the unit is the scenario, which its twin and copies share."""
    import pyarrow as pa

    samples = _samples(work.params)
    kept_units = set(list(dict.fromkeys(sample.unit for sample in samples))[: work.limit_units])
    samples = [sample for sample in samples if sample.unit in kept_units]
    work.report.phase("compute")
    rows = [sample_row(sample.name, sample.unit, _tokens(work.model, sample)) for sample in samples]
    meta = [
        metadata_row(sample.name, key, value)
        for sample in samples
        for key, value in sample.facts.items()
    ]
    work.report.progress(len(samples), len(samples))
    yield "samples", pa.Table.from_pylist(rows, schema=arrow_schema("samples"))
    yield "sample_meta", pa.Table.from_pylist(meta, schema=arrow_schema("sample_meta"))


def _samples(params: Scenarios) -> list[_Situation]:
    game = params.environment.make()
    known = {scenario.name: scenario for scenario in game.scenarios()}
    replaced = {scenario.twin_of for scenario in known.values() if scenario.twin_of}
    results = []
    for name, scenario in known.items():
        if params.pick != "all" and not {name, scenario.twin_of} & set(params.pick):
            continue
        if params.inconsistent == "only" and scenario.twin_of:
            continue
        if params.inconsistent == "replace" and name in replaced:
            continue
        extra_facts = {"twin_of": scenario.twin_of} if scenario.twin_of else {}
        extra_facts |= {"group": scenario.group} if scenario.group else {}
        unit = scenario.twin_of or name
        results.append(_sample(game, name, unit, scenario.state, extra_facts))
    for change in params.changes:
        origin = known[change.of]
        for key in change.set:
            if key not in origin.state:
                raise BadInput(
                    f"changes: the state of '{change.of}' has no entry '{key}'."
                    f"{nearest(key, origin.state)} Entries: {choices(sorted(origin.state))}."
                )
            _check_kind(change, key, origin.state[key])
        state = {**origin.state, **change.set}
        unit = origin.twin_of or origin.name
        results.append(_sample(game, change.label(), unit, state, {CHANGED_FROM: change.of}))
    return results


def _check_kind(change: ScenarioChange, key: str, before: object) -> None:
    """Refuse a value of a different kind from the one that it replaces."""
    after = change.set[key]
    is_whole = isinstance(before, int) and not isinstance(before, bool)
    if is_whole and isinstance(after, int):
        return
    if isinstance(before, float) and isinstance(after, int | float) and math.isfinite(after):
        return
    if isinstance(before, str) and isinstance(after, str):
        return
    kind = "a whole number" if is_whole else "a number" if isinstance(before, float) else "a text"
    expected = (
        kind if isinstance(before, int | float | str) else "an entry that no change can replace"
    )
    raise BadInput(
        f"changes: '{key}' of '{change.of}' is {expected}, got {str(after)[:80]!r}. "
        "Give a value of the same kind, or change another entry."
    )


def _sample(
    game: Environment,
    name: str,
    unit: str,
    state: Mapping[str, Any],
    extra_facts: Mapping[str, str],
) -> _Situation:
    contradictions = list(game.contradictions(state))
    facts: dict[str, str | float] = {**extra_facts, "consistent": "no" if contradictions else "yes"}
    if contradictions:
        facts["contradiction"] = "; ".join(contradictions)
    facts |= game.numbers(state)
    return _Situation(name, unit, game.prompt(state), facts)


def _tokens(model: Model, sample: _Situation) -> Tokens:
    prompt = sample.prompt
    return model.tokenise(prompt.text, spans=prompt.spans, name=sample.name)
