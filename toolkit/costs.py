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
    """The input of a stage."""

    samples: int
    """The number of samples."""
    distinct: int
    """The number of distinct token sequences among them."""
    tokens: int
    """The tokens of the distinct sequences."""
    longest: int
    """The tokens of the longest text."""
    exact: bool = True
    """False while the samples do not exist yet: the numbers are then bounds or estimates."""
    model: Mapping[str, Any] = field(default_factory=dict)
    """The facts of the model's identity; empty until its files are fetched."""
    saes: Mapping[str, Any] = field(default_factory=dict)
    """The facts of the SAEs; for a stage that loads none, of those whose activations it reads.
    Empty until their files are fetched.
    """
    units: int = 0
    """The number of units, for a stage that makes its own."""
    rows: int = 0
    """The rows of activations that it reads."""
    entries: int = 0
    """The active features in these rows."""
    characters: int = 0
    """The characters of the longest text."""
    model_replaced: bool = False
    """Whether a table replaces the model, which is then not loaded."""
    totals: Mapping[str, int] = field(default_factory=dict)
    """The sums of `Cost.totals` of the needed stages, such as how many features a screen tries."""
    written: Mapping[str, int] = field(default_factory=dict)
    """The rows that a stage with units of its own is expected to write to each table; empty in a
    bound.
    """
    tokens_from: Literal["samples", "tokeniser", "estimate", "assumed"] = "samples"
    """How tokens were counted: in the samples that exist, by the model's tokeniser, estimated from
    the texts, or assumed for each text.
    """


@dataclass(frozen=True, kw_only=True)
class PlannedComparison:
    """What a stage will compare, so that a plan can report the smallest detectable effect."""

    by: str
    """The metadata key."""
    groups: tuple[str | None, ...] | None
    """The compared values of the key; None in a pair is every other sample, None alone all values.
    For `r`, the values of the samples that count.
    """
    effect: Literal["d", "r", "eta2"] = "d"
    """`d` of two groups, `eta2` of several, or `r`, the correlation with a number."""
    unit: str = "unit"
    """What is independent: `unit` (the samples' own), `sample` or a metadata key."""
    cluster: str = "prompt"
    """Whether units with equal prompts are joined (`prompt`) or not (`none`)."""
    half: str = "all"
    """The half of the units that is compared, or `all`."""
    alpha: float = 0.05
    """The error rate, shared over the family."""
    family: int | None = None
    """How many tests are corrected together; None: every feature of the SAEs, or of one SAE with
    `each_space`; 0: not known yet.
    """
    each_space: bool = False
    """Whether each SAE is corrected by itself."""
    discovered: bool = False
    """Whether only features are compared that an earlier stage selects."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What work needs, from configs and headers."""

    forwards: int = 0
    """Texts that the model reads."""
    flops: float = 0.0
    """Floating-point operations."""
    read: int = 0
    """Bytes read from files."""
    memory: int = 0
    """Peak memory of a worker, in bytes."""
    disk: int = 0
    """Bytes stored."""
    rows: int = 0
    """Rows of activations written; 0 if unknown."""
    entries: int = 0
    """Active features in these rows; 0 if unknown."""
    table_rows: int = 0
    """Rows of all tables; 0 if unknown."""
    exact: bool = True
    """False if these are bounds even for known samples."""
    totals: Mapping[str, int] = field(default_factory=dict)
    """Further sums on whose names parts agree, such as what an export needs to know."""

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
