"""Builds the columns that all rows of a pass share, and list columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from toolkit.models.streams import Text

if TYPE_CHECKING:
    pass


class PassColumns:
    """The columns that the rows of one pass share for every SAE: sample, position, and the source
    row in the pass.

    `choose(text, n)` gives the positions of the n-th sample of a text, among those of the pass.
    """

    def __init__(
        self,
        texts: Sequence[Text],
        choose: Callable[[Text, int], Sequence[int]] = Text.positions_of,
    ) -> None:
        import numpy as np
        import pyarrow as pa

        starts = np.cumsum([0, *(len(text.positions) for text in texts)])
        rows = [
            (name, number, index)
            for index, text in enumerate(texts)
            for number, name in enumerate(text.samples)
        ]
        positions = [choose(texts[index], number) for _, number, index in rows]
        names = pa.array([name for name, _, _ in rows], pa.string())
        self.source = np.array(
            [
                starts[index] + index_in_text
                for (_, _, index), chosen in zip(rows, positions, strict=True)
                for index_in_text in _indices(texts[index].positions, chosen)
            ],
            dtype=np.int64,
        )
        self.sample = names.take(
            pa.array(np.repeat(np.arange(len(rows)), [len(chosen) for chosen in positions]))
        )
        self.position = pa.array(
            [position for chosen in positions for position in chosen], pa.int32()
        )


def _indices(positions: Sequence[int], chosen: Sequence[int]) -> Sequence[int]:
    """Indices of a sample's positions among those of its text."""
    if len(chosen) == len(positions):
        return range(len(positions))
    index = {position: number for number, position in enumerate(positions)}
    return [index[position] for position in chosen]
