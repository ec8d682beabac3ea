"""The cost of a plan, from configs and headers: per stage and in total."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from toolkit._plan.plan import is_source
from toolkit._plan.texts import facts, workload
from toolkit._plan.token_estimate import estimated_tokens
from toolkit.costs import Cost, Facts, Workload
from toolkit.parts import ModelPart, SourcePart

if TYPE_CHECKING:
    import pyarrow as pa

    from toolkit._plan.plan import Plan, Stage, Step
    from toolkit._plan.resolve import Loadable

TYPICAL, CHARACTERS = 256, 5
"""Assumed tokens per text before the texts exist, and characters per token."""
SAMPLE, TOKEN = 200, 12
"""Bytes of a stored sample with its metadata, and of each of its tokens: id, piece and part of the
text.
"""
STORED_TOKEN, META_BYTES = 4, 4
"""Expected stored bytes of each token of a sample and of a row of its metadata: both are
repetitive, so the store compresses them well.
"""


def cost_of(stage: Stage, load: Workload | None) -> Cost | None:
    """The cost of a stage; None if its part gives no estimate or its samples are unknown."""
    if load is None:
        return None
    if isinstance(stage.part, SourcePart):
        size = load.samples * SAMPLE + load.tokens * TOKEN
        return Cost(memory=size, disk=size)
    price = stage.part.estimates.cost
    return price(stage.params, load) if price else None


def expected_cost(stage: Stage, load: Workload | None) -> Cost | None:
    """The cost to expect of a stage, where `cost_of` is a bound."""
    if load is None:
        return None
    if isinstance(stage.part, SourcePart):
        rows = sum(load.written.values()) or load.samples
        size = load.samples * SAMPLE + load.tokens * STORED_TOKEN
        return Cost(disk=size + (rows - load.samples) * META_BYTES, table_rows=rows)
    price = stage.part.estimates.expected or stage.part.estimates.cost
    return price(stage.params, load) if price else None


@dataclass(frozen=True)
class TextTokens:
    """The mean tokens of texts that do not exist yet, and how they were counted."""

    mean: int = TYPICAL
    origin: Literal["tokeniser", "estimate", "assumed"] = "assumed"


@dataclass(frozen=True)
class Loads:
    """The workload of each stage: its samples if `samples` returns them, else an upper bound, or
    with `expected` an estimate. `earlier` gives the rows per unit that similar earlier steps wrote
    to each table.
    """

    plan: Plan
    samples: Callable[[Stage], pa.Table | None]
    expected: bool = False
    earlier: Callable[[Stage], Mapping[str, float]] = lambda stage: {}
    _wholes: dict[str, Workload | None] = field(default_factory=dict, repr=False, compare=False)

    def of(self, stage: Stage, left: pa.Table | None = None) -> Workload | None:
        """The whole workload, or that of the samples `left`; None if it is unknown."""
        there = left if left is not None else self._there(stage)
        if there is not None:
            load = workload(there, stage.model, stage.saes)
        elif (made := stage.units()) is not None:
            load = Workload(
                samples=0,
                distinct=0,
                tokens=0,
                longest=(tokens := self._text_tokens(stage, stage.model)).mean,
                exact=False,
                units=made,
                tokens_from=tokens.origin,
                written=self._rows_of(stage, made) if self.expected else {},
                model=facts(stage.model),
                saes=facts(stage.saes),
            )
        else:
            count = self._max_samples(stage)
            if count is None:
                return None
            load = self._counted(stage) or self._assumed(stage, count)
            load = replace(load, model=facts(stage.model), saes=self._saes(stage))
        load = replace(load, model_replaced=stage.model_replaced, totals=self._totals(stage))
        return self._with_activations(stage, load)

    def _totals(self, stage: Stage) -> Mapping[str, int]:
        """The sums of the totals of the needed stages' costs."""
        needs = [self.plan.stage(need) for need in stage.needs if not is_source(need)]
        costs = [self.cost(before, self._whole(before)) for before in needs]
        return sum((Counter(cost.totals) for cost in costs if cost), Counter())

    def cost(self, stage: Stage, load: Workload | None) -> Cost | None:
        """The cost of a workload: a bound, or with `expected` an estimate."""
        return expected_cost(stage, load) if self.expected else cost_of(stage, load)

    def _assumed(self, stage: Stage, count: int) -> Workload:
        """The workload of `count` samples whose texts do not exist yet."""
        source, tokens = stage, TextTokens()
        if not isinstance(stage.part, SourcePart):
            source = next((self.plan.stage(need) for need in stage.needs if is_source(need)), stage)
        for need in source.needs:
            tokens = self._text_tokens(self.plan.stage(need), stage.model or source.model)
        return Workload(
            samples=count,
            distinct=count,
            tokens=count * tokens.mean,
            longest=tokens.mean,
            characters=tokens.mean * CHARACTERS,
            exact=False,
            tokens_from=tokens.origin,
            written=self._written(stage) if isinstance(stage.part, SourcePart) else {},
        )

    def _text_tokens(self, maker: Stage, model: Loadable[ModelPart] | None) -> TextTokens:
        """The mean tokens of the texts that a stage will write: counted in the example prompts of
        its part if there are any, else a typical number.
        """
        prompts = maker.part.estimates.prompts
        if not self.expected or prompts is None or model is None:
            return TextTokens()
        texts, count = prompts(maker.params), model.part.count_tokens
        counted = count(model.params, texts) if count else None
        counts = counted or [estimated_tokens(text) for text in texts]
        mean = -(-sum(counts) // len(counts))
        return TextTokens(mean, "tokeniser" if counted else "estimate")

    def _rows_of(self, stage: Stage, units: int) -> Mapping[str, int]:
        """The expected rows of a stage that makes its own units."""
        if rates := self.earlier(stage):
            return {table: round(rate * units) for table, rate in rates.items()}
        rows = stage.part.estimates.expected_rows or stage.part.estimates.max_rows
        return (rows(stage.params, {"units": units}) if rows else None) or {}

    def _written(self, source: Stage) -> Mapping[str, int]:
        """The expected rows of each table of a source; empty for a bound."""
        rows = source.part.estimates.expected_rows if self.expected else None
        return (rows(source.params, self._made(source)) if rows else None) or {}

    def _whole(self, stage: Stage) -> Workload | None:
        """The whole workload of a stage, made once."""
        if stage.id not in self._wholes:
            self._wholes[stage.id] = self.of(stage)
        return self._wholes[stage.id]

    def _there(self, stage: Stage) -> pa.Table | None:
        if stage.units() is not None or isinstance(stage.part, SourcePart):
            return None
        samples = self.samples(stage)
        limit = stage.part.steps.sample_limit
        return samples if samples is None or limit is None else samples.slice(0, limit)

    def _max_samples(self, stage: Stage) -> int | None:
        """The samples of a stage: the most, or the number to expect."""
        if isinstance(stage.part, SourcePart):
            return self._max_samples_of(stage)
        counts = [
            self._max_samples_of(self.plan.stage(need)) for need in stage.needs if is_source(need)
        ]
        if not counts and "samples" not in stage.part.reads:
            return 0
        known = [count for count in counts if count is not None]
        if not known or len(known) < len(counts):
            return None
        limit = stage.part.steps.sample_limit
        return min(sum(known), limit) if limit else sum(known)

    def _counted(self, stage: Stage) -> Workload | None:
        """The workload of samples that do not exist yet, if their texts do: by the model's
        tokeniser, or estimated if its files are missing.
        """
        needed = [self.plan.stage(need) for need in stage.needs if is_source(need)]
        sources = [stage] if isinstance(stage.part, SourcePart) else needed
        model = stage.model or (sources[0].model if sources else None)
        if len(sources) != 1 or model is None or sources[0].part.estimates.texts is None:
            return None
        read, count = sources[0].part.estimates.texts, model.part.count_tokens
        samples = read(sources[0].params)
        units = list(dict.fromkeys(unit for unit, _ in samples))[: sources[0].limit]
        texts = [text for unit, text in samples if unit in units]
        distinct = list(dict.fromkeys(texts))
        if not distinct or len(texts) > (stage.part.steps.sample_limit or len(texts)):
            return None
        counted = count(model.params, distinct) if count else None
        counts = counted or [estimated_tokens(text) for text in distinct]
        return Workload(
            samples=len(texts),
            distinct=len(distinct),
            tokens=sum(counts),
            longest=max(counts),
            exact=bool(counted),
            characters=max(map(len, distinct)),
            tokens_from="tokeniser" if counted else "estimate",
        )

    def _saes(self, stage: Stage) -> Facts:
        """The facts of a stage's SAEs. For a stage that loads none and reads no samples, the facts
        of the SAEs whose features it reads.
        """
        if stage.saes is not None or "samples" in stage.part.reads:
            return facts(stage.saes)
        known = [facts(self.plan.stage(need).saes) for need in stage.needs]
        return max(known, key=lambda sae_facts: int(sae_facts.get("features", 0)), default={})

    def _max_samples_of(self, source: Stage) -> int | None:
        """The most samples that a source yields, or the number to expect."""
        return self._written(source).get("samples") or max_samples(source, self._made(source))

    def _made(self, source: Stage) -> Mapping[str, int]:
        """The rows of the tables that a source reads."""
        made: dict[str, int] = {}
        for need in source.needs:
            before = self.plan.stage(need)
            units, max_rows = before.units(), before.part.estimates.max_rows
            if units is None:
                continue
            if self.expected:
                made |= self._rows_of(before, units)
            elif max_rows:
                made |= max_rows(before.params, {"units": units}) or {}
        return made

    def _with_activations(self, stage: Stage, load: Workload) -> Workload:
        """Add the activations that earlier stages write, and their SAEs."""
        if "activations" not in (*stage.part.reads, *stage.part.optional):
            return load
        writers = [
            before
            for need in stage.needs
            if "activations" in (before := self.plan.stage(need)).part.writes
        ]
        costs = [cost for before in writers if (cost := self.cost(before, self.of(before)))]
        if stage.saes is None:
            known = [facts(before.saes) for before in writers]
            load = replace(
                load,
                saes=max(
                    known, key=lambda sae_facts: int(sae_facts.get("features", 0)), default={}
                ),
            )
        return replace(
            load, rows=sum(cost.rows for cost in costs), entries=sum(cost.entries for cost in costs)
        )


def max_samples(source: Stage, made: Mapping[str, int]) -> int | None:
    """The most samples that a source yields; the identity of its files may already state it."""
    known = source.files.facts if source.files else {}
    if "rows" in known:
        return _limited(int(known["rows"]), int(known.get("units", known["rows"])), source.limit)
    max_rows = source.part.estimates.max_rows
    rows = max_rows(source.params, made) if max_rows else None
    return rows["samples"] if rows else None


def _limited(rows: int, units: int, limit: int | None) -> int:
    """The most rows that the first units can have: every remaining unit has at least one."""
    return rows if limit is None else rows - max(0, units - limit)


def rows_of(todo: Sequence[Step], samples: pa.Table) -> pa.Table:
    """The samples of these steps."""
    import pyarrow as pa

    ranges = ((step.first or 0, step.last or 0) for step in todo)
    return pa.concat_tables(
        [samples.slice(0, 0), *(samples.slice(first, last - first) for first, last in ranges)]
    )


def as_row(
    stage: Stage,
    load: Workload | None,
    price: Callable[[Stage, Workload | None], Cost | None] = cost_of,
) -> dict[str, Any] | None:
    """The cost of a workload as plain data. `exact` is False for a bound or an estimate, `known` is
    False while sizes that it depends on are missing; `tokens_from` says how `tokens` were counted.
    """
    cost = price(stage, load)
    if cost is None or load is None:
        return None
    counted = {"tokens": load.tokens, "tokens_from": load.tokens_from}
    exact = load.exact and cost.exact
    return {**asdict(cost), "exact": exact, "known": _known(stage, load), **counted}


def _known(stage: Stage, load: Workload) -> bool:
    """Whether the files that state the sizes of the model and the SAEs are available."""
    if isinstance(stage.part, SourcePart):
        return True
    model = stage.model is None or "bytes" in load.model
    return model and ("count" in load.saes or not (stage.saes or "activations" in stage.part.reads))


def total_of(rows: Iterable[Mapping[str, Any] | None]) -> Cost:
    """The sum over all rows whose cost is known."""
    names = [part.name for part in fields(Cost)]
    costs = ({name: row[name] for name in names if name in row} for row in rows if row)
    return sum((Cost(**cost) for cost in costs), Cost())
