"""The cost of work: records for the estimates of parts, and the cost of forward passes and rows
from the facts of identities.

Facts are those that loaders state (`Identity.facts`). If a fact is missing because the model's
files are not fetched yet, a pass costs 0 and the plan reports the cost as unknown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

CHARACTER = 4
"""Bytes of a character in an array of texts."""
ENTRY, ROW = 8, 40
"""Bytes of an active feature (number and value), and of a row of `activations` or of numbers with
names, before compression.
"""
TOKENS = 8192
"""Padded tokens of a pass without a batch plan."""
ANSWERED = 16_384
"""Padded tokens, replies included, whose keys a model keeps while it answers many prompts."""

Facts = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The input of a stage: samples, the distinct token sequences among them, and the tokens of
    these.

    `exact` is False while the samples do not exist yet; the numbers are then bounds. `model` and
    `saes` are the facts of their identities; empty while they are unknown because the files have
    not been fetched. For a stage that loads no SAEs, `saes` are those whose activations it reads:
    `rows` of them, with `entries` active features. `units` is for a stage that makes its own.
    `longest` is the longest text in tokens, `characters` in characters. `model_replaced`: a table
    replaces the model, which is not loaded. `totals` are the sums of `Cost.totals` of the needed
    stages, such as how many features a screen tries. `tokens_from`: of the samples that exist; of
    their texts by the model's tokeniser; estimated from the texts; or assumed for each text.
    `written`: the rows that a stage which makes its own units is expected to write to each table;
    empty where the workload is a bound.
    """

    samples: int
    distinct: int
    tokens: int
    longest: int
    exact: bool = True
    model: Mapping[str, Any] = field(default_factory=dict)
    saes: Mapping[str, Any] = field(default_factory=dict)
    units: int = 0
    rows: int = 0
    entries: int = 0
    characters: int = 0
    model_replaced: bool = False
    totals: Mapping[str, int] = field(default_factory=dict)
    written: Mapping[str, int] = field(default_factory=dict)
    tokens_from: Literal["samples", "tokeniser", "estimate", "assumed"] = "samples"


@dataclass(frozen=True, kw_only=True)
class PlannedComparison:
    """What a stage will compare, so that a plan can report the smallest detectable effect.

    `effect` says how: `d` of two groups by a metadata key, of which a group None is every other
    sample; `eta2` of several groups, or of all if `groups` is None; `r`, the correlation with a
    number over the samples that have the key (with `groups`, one of these values of it). `unit`:
    what is independent, `unit` (the samples' own), `sample` or a metadata key; `cluster`: whether
    equal `prompt`s join units, or `none`. `family`: how many tests are corrected together; None:
    every feature of the SAEs, or of one SAE where `each_space` is corrected by itself; 0: not known
    yet. `discovered`: only features that an earlier stage selects, whose number is not known yet.
    """

    by: str
    groups: tuple[str | None, ...] | None
    effect: Literal["d", "r", "eta2"] = "d"
    unit: str = "unit"
    cluster: str = "prompt"
    half: str = "all"
    alpha: float = 0.05
    family: int | None = None
    each_space: bool = False
    discovered: bool = False


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What work needs, from configs and headers: floating-point operations, bytes read, peak
    memory, bytes stored.

    `rows` and `entries` are the rows of activations that it writes and the active features in them,
    `table_rows` the rows of all tables; 0 if unknown.
    `totals` are further sums on whose names parts agree, such as what an export needs to know.
    `exact` is False if these are bounds even for known samples.
    """

    forwards: int = 0
    flops: float = 0.0
    read: int = 0
    memory: int = 0
    disk: int = 0
    rows: int = 0
    entries: int = 0
    table_rows: int = 0
    exact: bool = True
    totals: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: Cost) -> Cost:
        """The cost of both, one after the other: the memory is that of the higher peak."""
        return Cost(
            forwards=self.forwards + other.forwards,
            flops=self.flops + other.flops,
            read=self.read + other.read,
            memory=max(self.memory, other.memory),
            disk=self.disk + other.disk,
            rows=self.rows + other.rows,
            entries=self.entries + other.entries,
            table_rows=self.table_rows + other.table_rows,
            exact=self.exact and other.exact,
            totals=dict(Counter(self.totals) + Counter(other.totals)),
        )


def token_flops(model: Facts, mean: float, blocks: int | None = None) -> float:
    """Operations of one token in the first `blocks` blocks (default: all): their weights, and
    attention to half of a text of `mean` tokens.
    """
    layers = max(1, model.get("layers", 1))
    used = layers if blocks is None else min(layers, blocks)
    return float(
        2 * model.get("block_parameters", 0) * used / layers
        + 2 * mean * model.get("width", 0) * used
    )


def head_flops(model: Facts) -> float:
    """Operations for the logits of one token."""
    return float(2 * model.get("width", 0) * model.get("vocabulary", 0))


def token_bytes(model: Facts, kept: int) -> int:
    """Memory of one token of a pass: the `kept` streams, and what a block needs while it runs."""
    width, item = model.get("width", 0), model.get("item", 4)
    return int(item * width * (kept + 8 + 3 * model.get("intermediate", 4 * width) / max(1, width)))


def pass_bytes(model: Facts, tokens: int, longest: int, kept: int, limit: int = TOKENS) -> int:
    """Memory of the model and one pass of at most `limit` padded tokens."""
    return int(
        model.get("bytes", 0)
        + min(max(limit, longest), max(tokens, longest)) * token_bytes(model, kept)
    )


def key_bytes(model: Facts) -> int:
    """Memory of the keys and values of one token, kept in every block."""
    return int(
        2 * model.get("layers", 0) * model.get("keys", model.get("width", 0)) * model.get("item", 4)
    )
