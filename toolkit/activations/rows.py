"""Read table `activations` one space at a time without copying: the host's file is sorted by space
and memory-mapped.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from toolkit.errors import DataError, choices

if TYPE_CHECKING:
    import pyarrow as pa


class BySpace:
    """The row ranges of each space. Rows may come in any order; in the host's file each space is
    one range.
    """

    def __init__(self, rows: pa.Table) -> None:
        self._rows = rows
        self._stretches: dict[str, list[tuple[int, int]]] = {}
        start = 0
        for chunk in rows["space"].chunks:
            start = self._note(chunk, start)

    def _note(self, chunk: pa.Array, start: int) -> int:
        import pyarrow.compute as pc

        if not len(chunk):
            return start
        runs = pc.run_end_encode(chunk)
        first = start
        for space, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
            self._stretches.setdefault(space, []).append((first, start + end - first))
            first = start + end
        return first

    @property
    def spaces(self) -> list[str]:
        """Every space that has rows, sorted by id."""
        return sorted(self._stretches)

    def of(self, space: str) -> pa.Table:
        """The rows of a space; none if it has none."""
        import pyarrow as pa

        parts = [self._rows.slice(first, count) for first, count in self._stretches.get(space, ())]
        return pa.concat_tables(parts) if parts else self._rows.slice(0, 0)


def described_spaces(spaces: pa.Table, active: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The rows of table `spaces` by id; one that has activations and no row is an error."""
    rows = {row["space"]: row for row in spaces.to_pylist()}
    for space in active:
        if space not in rows:
            raise DataError(
                f"space {space}: it has activations, but table 'spaces' does not describe it, so "
                "its width is unknown. Let the stage that writes the activations write 'spaces' "
                f"too. Spaces described: {choices(rows) if rows else 'none'}."
            )
    return rows
