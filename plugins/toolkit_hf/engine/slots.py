"""Keys and values of the sequences of a session: one slot per sequence.

The slot of an ended sequence is free, and keeps its keys until its room is needed: a new prompt
that begins with the same tokens reuses them, without a copy if the slot is free. Live sequences are
moved into the first slots before a token is computed for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from toolkit.edits import OPEN_END, Edit

from .attention import AttentionPlan, Heads, masked_attention, whole_sequences

if TYPE_CHECKING:
    from torch import Tensor

    from .decoder import DecoderModules
    from .inputs import Window

COLUMNS = 64
"""The length of slots is a multiple of this."""


@dataclass(frozen=True)
class Marks:
    """What keys depend on besides tokens: a sequence's edits, and its row in them."""

    edits: tuple[Edit, ...] = ()
    row: int = 0

    @property
    def first_position(self) -> int:
        """The first edited position: keys of earlier tokens depend on the tokens alone."""
        return min((edit.first_position(self.row) for edit in self.edits), default=OPEN_END)

    def is_same(self, other: Marks) -> bool:
        """Whether these are the same edits, in the same order, of the same row."""
        same = len(self.edits) == len(other.edits) and all(
            mine is theirs for mine, theirs in zip(self.edits, other.edits, strict=True)
        )
        return same and (self.row == other.row or not self.edits)

    def shared(self, other: Marks, common: int) -> int:
        """How many of the first `common` equal tokens have equal keys."""
        if self.is_same(other):
            return common
        return min(common, self.first_position, other.first_position)


@dataclass
class Slots:
    """Keys and values by layer, (slots, key heads, columns, size), and the tokens that they are
    of. `lengths` says how far each slot is filled.
    """

    decoder: DecoderModules
    keys: dict[int, Tensor] = field(default_factory=dict)
    values: dict[int, Tensor] = field(default_factory=dict)
    tokens: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), dtype=np.int32))
    lengths: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    marks: list[Marks] = field(default_factory=list)
    is_live: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    _used: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """When each slot was last left or joined, as a count of such events."""
    _first: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Each slot's first edited position."""
    _events: int = 0

    @property
    def live(self) -> int:
        """How many sequences are live."""
        return int(self.is_live.sum())

    @property
    def columns(self) -> int:
        """Tokens that a slot has room for."""
        return int(self.tokens.shape[1])

    def reserve(self, slots: int, columns: int) -> None:
        """Make room for this many sequences of this many tokens. Existing keys stay, as far as they
        fit; if slots are removed, live sequences must be in the first ones.
        """
        columns = -(-columns // COLUMNS) * COLUMNS
        if slots == len(self.marks) and columns == self.columns:
            return
        used_slots, width = min(slots, len(self.marks)), min(columns, self.columns)
        tokens = np.zeros((slots, columns), dtype=np.int32)
        tokens[:used_slots, :width] = self.tokens[:used_slots, :width]
        lengths = np.zeros(slots, dtype=np.int64)
        lengths[:used_slots] = np.minimum(self.lengths[:used_slots], columns)
        self.tokens, self.lengths = tokens, lengths
        self.marks = self.marks[:used_slots] + [Marks()] * (slots - used_slots)
        self.is_live, self._used = (
            np.concatenate([part[:used_slots], np.zeros(slots - used_slots, dtype=part.dtype)])
            for part in (self.is_live, self._used)
        )
        self._first = np.array([marks.first_position for marks in self.marks], dtype=np.int64)
        for by_layer in (self.keys, self.values):
            for layer, old in by_layer.items():
                new = old.new_zeros((slots, old.shape[1], columns, old.shape[3]))
                new[:used_slots, :, :width] = old[:used_slots, :, :width]
                by_layer[layer] = new

    def layer(self, heads: Heads) -> tuple[Tensor, Tensor]:
        """A block's keys and values, allocated when the block first runs."""
        if heads.layer not in self.keys:
            _, groups, _, size = heads.key.shape
            shape = (len(self.marks), groups, self.columns, size)
            self.keys[heads.layer] = heads.key.new_zeros(shape)
            self.values[heads.layer] = heads.value.new_zeros(shape)
        return self.keys[heads.layer], self.values[heads.layer]

    # --- shared keys ---

    def best_source(self, ids: Sequence[int], marks: Marks) -> tuple[int, int]:
        """The slot whose keys serve the most tokens of a new sequence, and how many: at most all
        but the last, whose state has to be computed. Of equal ones a free slot, whose keys need not
        be copied.
        """
        if not len(self.marks):
            return 0, 0
        usable = np.minimum(self._shared(self._common(ids), marks), len(ids) - 1)
        best = int((2 * usable + ~self.is_live).argmax())
        return best, int(usable[best])

    def _shared(self, common: np.ndarray, marks: Marks) -> np.ndarray:
        """How many of the common tokens have equal keys, by slot."""
        if not marks.edits:
            usable: np.ndarray = np.minimum(common, self._first)
            return usable
        shared = zip(self.marks, common.tolist(), strict=True)
        return np.array([marks.shared(other, count) if count else 0 for other, count in shared])

    def _common(self, ids: Sequence[int]) -> np.ndarray:
        """How many first tokens of each slot are those of a sequence."""
        width = min(len(ids), self.columns)
        differs = self.tokens[:, :width] != np.asarray(ids[:width], dtype=np.int32)
        first = differs.argmax(axis=1)
        until = np.where(differs[np.arange(len(first)), first], first, width)
        common: np.ndarray = np.minimum(until, self.lengths)
        return common

    # --- slots that join and leave ---

    def join(self, source: int, kept: int, ids: Sequence[int], marks: Marks, among: int) -> int:
        """Choose a slot for a new sequence, whose first `kept` tokens have their keys from
        `source`: that slot if it is free, else the free one that has been so for longest, among the
        first `among` slots, one of which is free.
        """
        in_place = kept and source < among and not self.is_live[source]
        slot = source if in_place else self._oldest_free(among)
        if kept and not in_place:
            for tensor in (*self.keys.values(), *self.values.values()):
                tensor[slot, :, :kept] = tensor[source, :, :kept]
        self.tokens[slot, : len(ids)] = ids
        self.lengths[slot], self.marks[slot] = kept, marks
        self._first[slot] = marks.first_position
        self.is_live[slot] = True
        self._touch(slot)
        return slot

    def _oldest_free(self, among: int) -> int:
        free = np.flatnonzero(~self.is_live[:among])
        return int(free[self._used[free].argmin()])

    def leave(self, slot: int) -> None:
        """End a sequence and free its slot."""
        self.is_live[slot] = False
        self._touch(slot)

    def _touch(self, slot: int) -> None:
        self._events += 1
        self._used[slot] = self._events

    def pack(self) -> list[tuple[int, int]]:
        """Move live sequences into the first slots; gives the moves made, from and to."""
        live = self.live
        moves = list(
            zip(
                (live + np.flatnonzero(self.is_live[live:])).tolist(),
                np.flatnonzero(~self.is_live[:live]).tolist(),
                strict=True,
            )
        )
        for source, target in moves:
            self._swap(source, target)
        return moves

    def _swap(self, slot: int, other: int) -> None:
        pair, turned = [slot, other], [other, slot]
        for rows in (self.tokens, self.lengths, self.is_live, self._used, self._first):
            rows[pair] = rows[turned]
        self.marks[slot], self.marks[other] = self.marks[other], self.marks[slot]
        until = int(self.lengths[pair].max())
        for tensor in (*self.keys.values(), *self.values.values()):
            tensor[pair, :, :until] = tensor[turned, :, :until]


@dataclass(frozen=True)
class _Index:
    """Where the new tokens of a pass are, on one device: rows and columns of the pass, slots and
    positions that their keys go to; the slots of all rows, and what each query sees by window.
    """

    rows: Tensor
    columns: Tensor
    slots: Tensor
    positions: Tensor
    row_slots: Tensor | None
    visible: dict[Window, Tensor]


@dataclass
class InSlots(AttentionPlan):
    """New tokens of some slots: their keys are written into the slots, and each query reads its
    slot up to itself. `slots`: (R,), or None for the live ones in order. `positions` and
    `is_token`: (R, Q), the latter False where a row is padded; all on the CPU.
    """

    windows: tuple[Window, ...]
    target: Slots
    slots: Tensor | None
    positions: Tensor
    is_token: Tensor
    _by_device: dict[torch.device, _Index] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._filled = int(self.positions.max()) + 1
        self.past = self._filled - self.positions.shape[1]
        self._is_whole = self.positions.shape[1] > 1 and not bool(self.positions[:, 0].any())

    def attend(self, heads: Heads) -> Tensor:
        keys, values = self.target.layer(heads)
        index = self._index(keys.device)
        keys[index.slots, :, index.positions] = heads.key[index.rows, :, index.columns]
        values[index.slots, :, index.positions] = heads.value[index.rows, :, index.columns]
        window = self.windows[heads.layer]
        if self._is_whole:
            return whole_sequences(heads, window)
        if index.row_slots is None:
            keys, values = keys[: len(heads.query)], values[: len(heads.query)]
        else:
            keys, values = keys[index.row_slots], values[index.row_slots]
        keys, values = keys[:, :, : self._filled], values[:, :, : self._filled]
        return masked_attention(heads, keys, values, index.visible[window])

    def _index(self, device: torch.device) -> _Index:
        if device not in self._by_device:
            rows, columns = self.is_token.nonzero(as_tuple=True)
            slots = rows if self.slots is None else self.slots[rows]
            positions = self.positions[rows, columns]
            distance = self.positions[:, :, None] - torch.arange(self._filled)
            seen = {
                window: (distance >= 0) & (distance < (window or self._filled + 1))
                for window in set(self.windows)
            }
            self._by_device[device] = _Index(
                rows=rows.to(device),
                columns=columns.to(device),
                slots=slots.to(device),
                positions=positions.to(device),
                row_slots=None if self.slots is None else self.slots.to(device),
                visible={window: visible.to(device) for window, visible in seen.items()},
            )
        return self._by_device[device]
