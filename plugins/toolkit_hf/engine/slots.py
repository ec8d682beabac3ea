"""Keys and values of the sequences of a session: one slot per sequence, live ones first.

Slots of ended sequences are kept after the live ones until the space is needed: a new prompt that
begins with the same tokens reuses their keys.
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
    of. Slots 0 to `live` - 1 belong to live sequences; `lengths` says how far each is filled.
    """

    decoder: DecoderModules
    live: int = 0
    keys: dict[int, Tensor] = field(default_factory=dict)
    values: dict[int, Tensor] = field(default_factory=dict)
    tokens: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), dtype=np.int64))
    lengths: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    marks: list[Marks] = field(default_factory=list)

    @property
    def columns(self) -> int:
        """The number of tokens that a slot can hold."""
        return int(self.tokens.shape[1])

    def reserve(self, slots: int, columns: int) -> None:
        """Allocate slots of this many tokens, keeping existing keys as far as they fit."""
        columns = -(-columns // COLUMNS) * COLUMNS
        if slots == len(self.marks) and columns == self.columns:
            return
        kept, width = min(slots, len(self.marks)), min(columns, self.columns)
        tokens = np.zeros((slots, columns), dtype=np.int64)
        tokens[:kept, :width] = self.tokens[:kept, :width]
        lengths = np.zeros(slots, dtype=np.int64)
        lengths[:kept] = np.minimum(self.lengths[:kept], columns)
        self.tokens, self.lengths = tokens, lengths
        self.marks = self.marks[:kept] + [Marks()] * (slots - kept)
        for by_layer in (self.keys, self.values):
            for layer, old in by_layer.items():
                new = old.new_zeros((slots, old.shape[1], columns, old.shape[3]))
                new[:kept, :, :width] = old[:kept, :, :width]
                by_layer[layer] = new

    def layer(self, heads: Heads) -> tuple[Tensor, Tensor]:
        """A block's keys and values, allocated when the block first runs."""
        if heads.layer not in self.keys:
            _, groups, _, size = heads.key.shape
            shape = (len(self.marks), groups, self.columns, size)
            self.keys[heads.layer] = heads.key.new_zeros(shape)
            self.values[heads.layer] = heads.value.new_zeros(shape)
        return self.keys[heads.layer], self.values[heads.layer]

    # --- what sequences share ---

    def best_source(self, ids: Sequence[int], marks: Marks) -> tuple[int, int]:
        """The slot with the longest reusable prefix of a new sequence, and its length: never the
        last token, whose state has to be computed.
        """
        best, longest = 0, 0
        for slot, common in enumerate(self._common(ids)):
            usable = min(marks.shared(self.marks[slot], common), len(ids) - 1) if common else 0
            if usable > longest:
                best, longest = slot, usable
        return best, longest

    def _common(self, ids: Sequence[int]) -> list[int]:
        """The length of the common prefix of each slot with a sequence."""
        width = min(len(ids), self.columns)
        if not len(self.marks) or not width:
            return [0] * len(self.marks)
        differs = self.tokens[:, :width] != np.asarray(ids[:width])
        until = np.where(differs.any(axis=1), differs.argmax(axis=1), width)
        common: list[int] = np.minimum(until, self.lengths).tolist()
        return common

    # --- slots that join and leave ---

    def join(self, source: int, kept: int, ids: Sequence[int], marks: Marks) -> int:
        """Take a slot for a new sequence; the keys of its first `kept` tokens are copied from
        `source`.
        """
        slot = self.live
        if source > slot and kept:
            self._swap(source, slot)
            source = slot
        if source != slot and kept:
            for tensor in (*self.keys.values(), *self.values.values()):
                tensor[slot, :, :kept] = tensor[source, :, :kept]
        self.tokens[slot, : len(ids)] = ids
        self.lengths[slot], self.marks[slot] = kept, marks
        self.live += 1
        return slot

    def leave(self, slot: int) -> int:
        """Free the slot of a sequence that ended: the last live sequence moves there. Returns its
        former slot.
        """
        self.live -= 1
        self._swap(slot, self.live)
        return self.live

    def _swap(self, slot: int, other: int) -> None:
        if slot == other:
            return
        pair, turned = [slot, other], [other, slot]
        self.tokens[pair], self.lengths[pair] = self.tokens[turned], self.lengths[turned]
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
    held: Slots
    slots: Tensor | None
    positions: Tensor
    is_token: Tensor
    _by_device: dict[torch.device, _Index] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._filled = int(self.positions.max()) + 1
        self._is_whole = self.positions.shape[1] > 1 and not bool(self.positions[:, 0].any())

    def attend(self, heads: Heads) -> Tensor:
        keys, values = self.held.layer(heads)
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
