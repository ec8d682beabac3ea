"""Edits made during a pass. A model plugin calls `editing.apply("resid_post.3", stream)` at each
hookpoint.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.edits.edit import Edit, Phase
from toolkit.errors import BadInput, DataError, choices
from toolkit.hookpoints import hookpoint

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PassRows:
    """The rows of one pass, as edits see them: column 0 of row i is position starts[i], and its
    tokens end before position stops[i]. Edits' targets name rows by `numbers`, tallies by `names`;
    `prompts` says how many tokens of each row are prompt.
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
        self._streams_read: dict[str, Tensor] = {}
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
            self._streams_read[point] = stream
        return stream

    def _stream_read(self, edit: Edit, stream: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        if edit.reads is None:
            return stream
        stream_read = self._streams_read.get(str(hookpoint(edit.reads)))
        if stream_read is None:
            raise BadInput(
                f"edit at '{edit.hookpoint}': it reads {edit.reads}, which this pass has not "
                "computed before it. Name a hookpoint that comes earlier."
            )
        return stream_read.to(stream.device)[rows, columns].float()

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
    pass_rows = list(range(len(rows.starts))) if share is None else list(share)
    if targets.rows is None:
        row = torch.tensor(pass_rows, dtype=torch.long).repeat_interleave(len(targets.starts))
        target = torch.arange(len(targets.starts)).repeat(len(pass_rows))
    else:
        row, target = _matched(targets.rows, rows.numbers, pass_rows)
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
    requested: Tensor, numbers: Sequence[int], pass_rows: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Pairs (row of the pass, target) where the target names the row."""
    import torch

    by_number: dict[int, list[int]] = {}
    for row in pass_rows:
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
    """Check that every target names a row of the batch and begins inside it."""
    for edit in edits:
        rows = edit.targets.rows
        if rows is None:
            continue
        for row, start in zip(rows.tolist(), edit.targets.starts.tolist(), strict=True):
            if not 0 <= row < len(lengths) or start >= lengths[row]:
                has = f"has {lengths[row]} tokens" if 0 <= row < len(lengths) else "does not exist"
                raise DataError(
                    f"edit at '{edit.hookpoint}': position {start} of row {row} is outside of the "
                    f"batch: row {row} {has}, of {len(lengths)} rows. Positions count from 0."
                )


def check_made(edits: Sequence[Edit], lengths: Sequence[int]) -> None:
    """Check that every edit was made once at each token that its targets name in prompts of these
    lengths, and nowhere else. Call it once, after the only pass with these edits.
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
                "makes edits more or less often than requested."
            )
