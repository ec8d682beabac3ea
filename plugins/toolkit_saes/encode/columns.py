"""The columns that rows of one pass share, and columns of lists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.streams import Text

if TYPE_CHECKING:
    import pyarrow as pa


class PassColumns:
    """The columns that rows of one pass share, whatever the SAE: sample, position, and the row of
    the pass that each comes from.

    `positions_of(text, n)` gives the positions of the n-th sample of a text, among those of the
    pass.
    """

    def __init__(
        self,
        texts: Sequence[Text],
        positions_of: Callable[[Text, int], Sequence[int]] = Text.positions_of,
    ) -> None:
        import numpy as np
        import pyarrow as pa

        starts = np.cumsum([0, *(len(text.positions) for text in texts)])
        rows = [
            (name, number, index)
            for index, text in enumerate(texts)
            for number, name in enumerate(text.samples)
        ]
        asked = [positions_of(texts[index], number) for _, number, index in rows]
        names = pa.array([name for name, _, _ in rows], pa.string())
        self.source = np.array(
            [
                starts[index] + place
                for (_, _, index), own in zip(rows, asked, strict=True)
                for place in _indices(texts[index].positions, own)
            ],
            dtype=np.int64,
        )
        self.sample = names.take(
            pa.array(np.repeat(np.arange(len(rows)), [len(own) for own in asked]))
        )
        self.position = pa.array([position for own in asked for position in own], pa.int32())


def _indices(positions: Sequence[int], own: Sequence[int]) -> Sequence[int]:
    """Indices of a sample's positions among those of its text."""
    if len(own) == len(positions):
        return range(len(positions))
    index = {position: place for place, position in enumerate(positions)}
    return [index[position] for position in own]


def lists(offsets: Any, values: Any, kind: pa.ListType) -> pa.Array:
    """A column of lists: `offsets` say where each begins, and where the last ends."""
    import pyarrow as pa

    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values), type=kind)
