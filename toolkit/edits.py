"""Edits of a model's streams. An edit is an operation at a hookpoint on chosen tokens, not a value.

    Edit("resid_post.12", OnStream(Add(vector)), from_position(0))          every token of every row
    Edit("attn_z.3", OnStream(Set(0.0), columns=(0, 64)), tokens([2], [9])) one head, one token
    Edit("resid_post.8", OnFeatures.of(sae, [2059], Scale(0.0)), ranges([0], [5], [9]))

Operations see float32 copies of the chosen tokens, whatever the model computes in, and return new
ones, so no shared tensor is ever changed in place. Edits at one hookpoint are made in the order in
which they are given, and an edit at a later hookpoint sees the stream that earlier ones left. Each
edit keeps a tally of how often it was made, by row and by phase (prompt or generation).

The values of an operation are either shared by all targets (a vector of the stream's width, one
number a feature) or have one more dimension in front: one entry for each target.

A model plugin makes edits with `Editing`: `stream = editing.apply("resid_post.3", stream)`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from toolkit.errors import BadInput, DataError, choices
from toolkit.hookpoints import hookpoint

if TYPE_CHECKING:
    from torch import Tensor

    from toolkit.saes import Sae

    Values = float | Tensor

Phase = Literal["prompt", "generation"]
OPEN_END = 1 << 60
"""The end of a range of positions that has none."""


# --- which tokens ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Targets:
    """Tokens by row and position: target t is the half-open range starts[t]:stops[t] of row
    rows[t], or of every row where `rows` is None. `index` says which of the operation's values a
    target takes. Positions count from 0, BOS included; int64 tensors on the CPU.
    """

    rows: Tensor | None
    starts: Tensor
    stops: Tensor
    index: Tensor


def tokens(rows: Sequence[int] | Tensor, positions: Sequence[int] | Tensor) -> Targets:
    """Single tokens: positions[t] of row rows[t]."""
    starts = _long(positions)
    return _targets(_long(rows), starts, starts + 1)


def ranges(
    rows: Sequence[int] | Tensor,
    starts: Sequence[int] | Tensor,
    stops: Sequence[int] | Tensor,
) -> Targets:
    """Ranges of positions: starts[t] up to before stops[t] of row rows[t]."""
    return _targets(_long(rows), _long(starts), _long(stops))


def from_position(first: int = 0, rows: Sequence[int] | Tensor | None = None) -> Targets:
    """Every position from `first` on, generated ones included, of every row or of some."""
    import torch

    count = 1 if rows is None else len(rows)
    starts = torch.full((count,), first)
    return _targets(None if rows is None else _long(rows), starts, torch.full((count,), OPEN_END))


def _targets(rows: Tensor | None, starts: Tensor, stops: Tensor) -> Targets:
    import torch

    if (rows is not None and len(rows) != len(starts)) or len(starts) != len(stops):
        raise BadInput("targets: give as many rows as starts and stops, one of each per target.")
    if len(starts) and (int(starts.min()) < 0 or bool((stops <= starts).any())):
        raise BadInput("targets: positions count from 0, and each range has at least one token.")
    return Targets(rows, starts, stops, torch.arange(len(starts)))


def _long(numbers: Sequence[int] | Tensor) -> Tensor:
    import torch

    return torch.as_tensor(numbers, dtype=torch.long, device="cpu").reshape(-1)


# --- what is changed: old numbers to new ones -----------------------------------------------------


class Change(ABC):
    """Compute new values from old ones: of a stream, of coordinates along directions, or of
    features.
    """

    @abstractmethod
    def new(self, old: Tensor, index: Tensor) -> Tensor:
        """(m, k) -> (m, k); token i belongs to target index[i]."""


@dataclass(frozen=True)
class Set(Change):
    """Replace the old value. Setting a stream to its value in another prompt is a patch; setting it
    to values of other samples is a resample.
    """

    values: Values

    def new(self, old: Tensor, index: Tensor) -> Tensor:
        return _for_targets(self.values, index, 1, old).expand_as(old)


@dataclass(frozen=True)
class Add(Change):
    """Add to the old value."""

    values: Values

    def new(self, old: Tensor, index: Tensor) -> Tensor:
        return old + _for_targets(self.values, index, 1, old)


@dataclass(frozen=True)
class Scale(Change):
    """Multiply the old value; 0 ablates."""

    factors: Values

    def new(self, old: Tensor, index: Tensor) -> Tensor:
        return old * _for_targets(self.factors, index, 1, old)


@dataclass(frozen=True)
class Clamp(Change):
    """The old value, moved to the nearest number from `low` to `high`."""

    low: Values = float("-inf")
    high: Values = float("inf")

    def new(self, old: Tensor, index: Tensor) -> Tensor:
        import torch

        low, high = (_for_targets(side, index, 1, old) for side in (self.low, self.high))
        return torch.minimum(torch.maximum(old, low), high)


ABLATE = Scale(0.0)
"""Set the value to zero."""


def _for_targets(values: Values, index: Tensor, shared_dims: int, like: Tensor) -> Tensor:
    """Values for each of m tokens: (m, ...) where there is one entry per target, else as they are,
    to be broadcast.
    """
    import torch

    given = torch.as_tensor(values, dtype=torch.float32).to(like.device)
    if given.is_inference() and torch.is_grad_enabled():
        given = given.clone()  # autograd takes no tensor that was made in inference mode
    if given.ndim <= shared_dims:
        return given
    return given if len(given) == 1 else given[index.to(given.device)]


# --- operations -----------------------------------------------------------------------------------


class Operation(ABC):
    """What is done to the chosen tokens of a stream."""

    @abstractmethod
    def apply(self, stream: Tensor, read: Tensor, index: Tensor) -> Tensor:
        """(m, width) -> (m, width), float32. `read` is the stream at the edit's `reads`: `stream`
        itself unless the edit names another hookpoint. Token i belongs to target index[i].
        """


@dataclass(frozen=True)
class OnStream(Operation):
    """Change the stream itself, or the columns first:last of it (one head of attn_z)."""

    change: Change
    columns: tuple[int, int] | None = None

    def apply(self, stream: Tensor, read: Tensor, index: Tensor) -> Tensor:
        if self.columns is None:
            return self.change.new(stream, index)
        first, last = self.columns
        new = stream.clone()
        new[:, first:last] = self.change.new(stream[:, first:last], index)
        return new


@dataclass(frozen=True)
class OnDirections(Operation):
    """Change the stream's coordinates along unit vectors: h' = h + sum (new_k - h.u_k) u_k.
    `directions`: (k, width), or (targets, k, width); their length does not matter.
    """

    directions: Tensor
    change: Change

    def apply(self, stream: Tensor, read: Tensor, index: Tensor) -> Tensor:
        import torch

        units = torch.nn.functional.normalize(self.directions.float(), dim=-1)
        units = _for_targets(units, index, 2, stream)
        old = _product(stream, units)
        return stream + _combined(self.change.new(old, index) - old, units)


@dataclass(frozen=True)
class Steer(Operation):
    """Move the stream along a direction: h' = h + strength * size * u, where the size is 1 (`raw`),
    the token's own norm (`norm`), or the standard deviation of the activation along u, which has to
    be given (`sd`). `direction`: (width,) or (targets, width).
    """

    direction: Tensor
    strength: Values
    unit: Literal["raw", "norm", "sd"] = "raw"
    sd: Values | None = None

    def __post_init__(self) -> None:
        if (self.unit == "sd") != (self.sd is not None):
            raise BadInput("steer: give `sd` with unit 'sd', and with no other unit.")

    def apply(self, stream: Tensor, read: Tensor, index: Tensor) -> Tensor:
        import torch

        unit = torch.nn.functional.normalize(self.direction.float(), dim=-1)
        strength = _for_targets(self.strength, index, 0, stream)
        size = stream.norm(dim=-1) if self.unit == "norm" else stream.new_ones(len(stream))
        if self.sd is not None:
            size = size * _for_targets(self.sd, index, 0, stream)
        return stream + (strength * size)[:, None] * _for_targets(unit, index, 1, stream)


@dataclass(frozen=True)
class OnFeatures(Operation):
    """Change features by rank-one edits that keep what the SAE does not explain:
    h' = h + sum (new_k - f_k) d_k, with f_k = z if z > threshold else 0 and z = read.column + bias.

    `columns`, `decoder_rows`: (k, width) or (targets, k, width); `biases`, `thresholds`: (k,) or
    (targets, k). Every target may edit other features. A threshold of -inf means no gate.
    `normalise` turns rows into what the columns read, where each row has a norm of its own.
    """

    columns: Tensor
    biases: Tensor
    thresholds: Tensor
    decoder_rows: Tensor
    change: Change
    normalise: Callable[[Tensor], Tensor] | None = None

    @classmethod
    def of(cls, sae: Sae, features: Sequence[int], change: Change) -> Operation:
        """Features of an SAE: by their columns where each is decided by itself, else (TopK) by
        encoding the whole row.
        """
        if not sae.pointwise:
            return OnSae(sae, tuple(features), change)
        return cls(
            sae.encoder_columns(features),
            sae.encoder_bias(features),
            sae.thresholds(features),
            sae.decoder_rows(features),
            change,
            sae.normalise,
        )

    def apply(self, stream: Tensor, read: Tensor, index: Tensor) -> Tensor:
        given = self.normalise(read) if self.normalise else read
        before = _product(given, _for_targets(self.columns, index, 2, given))
        before = before + _for_targets(self.biases, index, 1, given)
        old = before * (before > _for_targets(self.thresholds, index, 1, given))
        change = self.change.new(old, index) - old
        return stream + _combined(change, _for_targets(self.decoder_rows, index, 2, stream))


@dataclass(frozen=True)
class OnSae(Operation):
    """Edits that need the whole SAE: h' = h + sum (new_k - f_k) d_k, or with `keep_error=False`
    the reconstruction in place of the stream, with the chosen features changed in it. No features:
    the reconstruction alone.
    """

    sae: Sae
    features: tuple[int, ...] = ()
    change: Change = ABLATE
    keep_error: bool = True

    def apply(self, stream: Tensor, read: Tensor, index: Tensor) -> Tensor:
        active = self.sae.encode(read).to(stream.device)
        chosen = list(self.features)
        rows = self.sae.decoder_rows(chosen).to(stream) if chosen else stream.new_empty((0, 1))
        old = active[:, chosen]
        base = stream if self.keep_error else self.sae.reconstruct(read, active).to(stream)
        return base + (self.change.new(old, index) - old) @ rows if chosen else base


def _product(stream: Tensor, vectors: Tensor) -> Tensor:
    """(m, width) with (k, width) or (m, k, width) -> (m, k)."""
    if vectors.ndim == 2:
        return stream @ vectors.T
    return (stream[:, None] @ vectors.transpose(1, 2))[:, 0]


def _combined(weights: Tensor, vectors: Tensor) -> Tensor:
    """(m, k) with (k, width) or (m, k, width) -> (m, width)."""
    return weights @ vectors if vectors.ndim == 2 else (weights[:, None] @ vectors)[:, 0]


# --- an edit --------------------------------------------------------------------------------------


@dataclass
class Tally:
    """How often an edit was made: one count for each token, by row and phase."""

    counts: Counter[tuple[Hashable, Phase]] = field(default_factory=Counter)

    def record(
        self, rows: Sequence[Hashable], positions: Sequence[int], prompts: Sequence[int]
    ) -> None:
        """Token i is at positions[i] of row rows[i], whose prompt has prompts[i] tokens."""
        for row, position, prompt in zip(rows, positions, prompts, strict=True):
            self.counts[row, "prompt" if position < prompt else "generation"] += 1

    def total(self, row: Hashable | None = None, phase: Phase | None = None) -> int:
        """The sum over all rows and phases, or over those given."""
        return sum(
            count
            for (of, when), count in self.counts.items()
            if (row is None or of == row) and (phase is None or when == phase)
        )


@dataclass
class _ShiftedTally(Tally):
    """Counts for an edit of a larger batch, whose row numbers are shifted."""

    to: Tally = field(default_factory=Tally)
    by: int = 0

    def record(
        self, rows: Sequence[Hashable], positions: Sequence[int], prompts: Sequence[int]
    ) -> None:
        shifted = [row + self.by if isinstance(row, int) else row for row in rows]
        self.to.record(shifted, positions, prompts)


@dataclass(frozen=True, eq=False)
class Edit:
    """`operation` at `hookpoint` on the tokens of `targets`; by default on all of them.

    `reads`: another hookpoint of the same layer or of one below, whose stream the operation reads
    (a transcoder reads mlp_in and edits mlp_out).
    """

    hookpoint: str
    operation: Operation
    targets: Targets = field(default_factory=from_position)
    reads: str | None = None
    tally: Tally = field(default_factory=Tally)

    def first_position(self, row: int | None = None) -> int:
        """The first position that it changes, in one row or in any; OPEN_END if there is none."""
        starts = self.targets.starts
        if row is not None and self.targets.rows is not None:
            starts = starts[self.targets.rows == row]
        return int(starts.min()) if len(starts) else OPEN_END

    def of_rows(self, first: int, last: int) -> Edit:
        """The edit restricted to rows first:last of a batch, renumbered from `first`; it keeps its
        tally.
        """
        shifted = _ShiftedTally(to=self.tally, by=first)
        if self.targets.rows is None:
            return replace(self, tally=shifted)
        held = (self.targets.rows >= first) & (self.targets.rows < last)
        chosen = Targets(
            self.targets.rows[held] - first,
            *(part[held] for part in (self.targets.starts, self.targets.stops, self.targets.index)),
        )
        return replace(self, targets=chosen, tally=shifted)


def set_stream(
    hookpoint: str, rows: Sequence[int], positions: Sequence[int], values: Tensor
) -> Edit:
    """The stream of single tokens, set to values: (width,) for all of them, or one row each."""
    return Edit(hookpoint, OnStream(Set(values)), tokens(rows, positions))


# --- making edits in a pass -----------------------------------------------------------------------


@dataclass(frozen=True)
class PassRows:
    """The rows of one pass, as edits see them: column 0 of row i stands at position starts[i], and
    its tokens end before position stops[i]. Edits' targets name rows by `numbers`, tallies by
    `names`; `prompts` says how many tokens of each row are prompt.
    """

    starts: Sequence[int]
    stops: Sequence[int]
    numbers: Sequence[int]
    names: Sequence[Hashable]
    prompts: Sequence[int]

    @classmethod
    def of_batch(cls, batch: Sequence[Sequence[int]]) -> PassRows:
        """Whole sequences, all of them prompts."""
        lengths, numbers = [len(ids) for ids in batch], range(len(batch))
        return cls([0] * len(batch), lengths, numbers, numbers, lengths)


@dataclass(frozen=True)
class Chosen:
    """The edited tokens of a pass: row and column of each in the pass's tensors, and its target's
    index.
    """

    rows: Tensor
    columns: Tensor
    index: Tensor


class Editing:
    """The edits of one pass. Make one for each pass, and hand it the stream at every hookpoint that
    `hookpoints` names, in the order in which the model computes them.
    """

    def __init__(
        self,
        edits: Sequence[Edit],
        rows: PassRows | Sequence[Sequence[int]],
        *,
        shares: Mapping[int, Sequence[int]] | None = None,
        editable: Sequence[str],
        layers: int,
        model: str,
    ) -> None:
        """`shares`: for the edit number e, the rows of the pass that have it; by default all.
        `editable`: sites at which the model makes edits; `layers` and `model` are its number of
        layers and its name.
        """
        self._rows = rows if isinstance(rows, PassRows) else PassRows.of_batch(rows)
        self._kept: dict[str, Tensor] = {}
        self._made: dict[str, list[tuple[Edit, Chosen]]] = {}
        self._read: set[str] = set()
        for number, edit in enumerate(edits):
            point = hookpoint(edit.hookpoint)
            if point.site not in editable:
                raise BadInput(
                    f"edit at '{edit.hookpoint}': {model} cannot edit {point.site}. It edits "
                    f"{choices(f'{site}.LAYER' for site in editable)}."
                )
            if point.layer >= layers:
                raise BadInput(
                    f"edit at '{edit.hookpoint}': {model} has no layer {point.layer}; its layers "
                    f"are 0 to {layers - 1}."
                )
            if edit.reads is not None:
                self._read.add(str(hookpoint(edit.reads)))
            chosen = choose(edit, self._rows, (shares or {}).get(number))
            if len(chosen.rows):
                self._made.setdefault(str(point), []).append((edit, chosen))

    @property
    def hookpoints(self) -> set[str]:
        """Hookpoints whose stream is edited or read."""
        return {*self._made, *self._read}

    def apply(self, name: str, stream: Tensor) -> Tensor:
        """The stream at a hookpoint, (rows, columns, width), after its edits: a new tensor where
        anything changes.
        """
        point = str(hookpoint(name))
        made = self._made.get(point, ())
        if made:
            stream = stream.clone()
        for edit, chosen in made:
            rows, columns = chosen.rows.to(stream.device), chosen.columns.to(stream.device)
            before = stream[rows, columns].float()
            read = self._stream_read(edit, before, rows, columns)
            after = edit.operation.apply(before, read, chosen.index)
            stream[rows, columns] = after.to(stream)
            self._count(edit, chosen)
        if point in self._read:
            self._kept[point] = stream
        return stream

    def _stream_read(self, edit: Edit, stream: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        if edit.reads is None:
            return stream
        held = self._kept.get(str(hookpoint(edit.reads)))
        if held is None:
            raise BadInput(
                f"edit at '{edit.hookpoint}': it reads {edit.reads}, which this pass has not "
                "computed before it. Name a hookpoint that comes earlier."
            )
        return held.to(stream.device)[rows, columns].float()

    def _count(self, edit: Edit, chosen: Chosen) -> None:
        rows = chosen.rows.tolist()
        positions = [
            self._rows.starts[row] + column
            for row, column in zip(rows, chosen.columns.tolist(), strict=True)
        ]
        prompts = [self._rows.prompts[row] for row in rows]
        edit.tally.record([self._rows.names[row] for row in rows], positions, prompts)


def choose(edit: Edit, rows: PassRows, share: Sequence[int] | None = None) -> Chosen:
    """The tokens of a pass that an edit changes, each at most once."""
    import torch

    targets = edit.targets
    held = list(range(len(rows.starts))) if share is None else list(share)
    if targets.rows is None:
        row = torch.tensor(held, dtype=torch.long).repeat_interleave(len(targets.starts))
        target = torch.arange(len(targets.starts)).repeat(len(held))
    else:
        row, target = _matched(targets.rows, rows.numbers, held)
    starts = torch.tensor(list(rows.starts), dtype=torch.long)[row]
    stops = torch.tensor(list(rows.stops), dtype=torch.long)[row]
    first = torch.maximum(targets.starts[target], starts)
    counts = (torch.minimum(targets.stops[target], stops) - first).clamp(min=0)
    step = torch.arange(int(counts.sum())) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    columns = (first - starts).repeat_interleave(counts) + step
    chosen = Chosen(
        row.repeat_interleave(counts),
        columns,
        targets.index[target].repeat_interleave(counts),
    )
    _check_once(edit, chosen)
    return chosen


def _matched(
    requested: Tensor, numbers: Sequence[int], held: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Pairs (row of the pass, target) where the target names the row."""
    import torch

    by_number: dict[int, list[int]] = {}
    for row in held:
        by_number.setdefault(numbers[row], []).append(row)
    pairs = [
        (row, target)
        for target, number in enumerate(requested.tolist())
        for row in by_number.get(number, ())
    ]
    matched = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2)
    return matched[:, 0], matched[:, 1]


def _check_once(edit: Edit, chosen: Chosen) -> None:
    import torch

    if not len(chosen.rows):
        return
    places = chosen.rows * (int(chosen.columns.max()) + 1) + chosen.columns
    if len(torch.unique(places)) < len(places):
        raise BadInput(
            f"edit at '{edit.hookpoint}': two of its targets name the same token. Write "
            f"them as two edits, so that their order is defined."
        )


def check_targets(edits: Sequence[Edit], lengths: Sequence[int]) -> None:
    """Every target names a row of the batch and begins inside it."""
    for edit in edits:
        rows = edit.targets.rows
        if rows is None:
            continue
        for row, start in zip(rows.tolist(), edit.targets.starts.tolist(), strict=True):
            if not 0 <= row < len(lengths) or start >= lengths[row]:
                has = f"has {lengths[row]} tokens" if 0 <= row < len(lengths) else "is not there"
                raise DataError(
                    f"edit at '{edit.hookpoint}': position {start} of row {row} is outside of the "
                    f"batch: row {row} {has}, of {len(lengths)} rows. Positions count from 0."
                )


def check_made(edits: Sequence[Edit], lengths: Sequence[int]) -> None:
    """Every edit was made once at each token that its targets name in prompts of these lengths, and
    nowhere else. To be called once, after the only pass of these edits.
    """
    for edit in edits:
        planned: Counter[tuple[Hashable, Phase]] = Counter()
        targets = edit.targets
        starts, stops = targets.starts.tolist(), targets.stops.tolist()
        rows = targets.rows.tolist() if targets.rows is not None else None
        for number, (start, stop) in enumerate(zip(starts, stops, strict=True)):
            for row in range(len(lengths)) if rows is None else (rows[number],):
                planned[row, "prompt"] += max(0, min(stop, lengths[row]) - start)
        planned, made = +planned, +edit.tally.counts
        if planned != made:
            row, phase = next(key for key in planned | made if planned[key] != made[key])
            raise DataError(
                f"edit at '{edit.hookpoint}': {planned[row, phase]} tokens of row {row} were "
                f"planned in its {phase}, and {made[row, phase]} were edited. The model's loader "
                "makes edits more or less often than it was told."
            )
