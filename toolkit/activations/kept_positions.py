"""Select among the positions that an extraction kept: the selectors of
`toolkit.samples.selectors`, applied to rows instead of tokens. One extraction at the union of
several selectors thus serves one comparison per selector. A position that was not kept is refused.

A selector leaves BOS out; column `bos` of table `samples` says which texts begin with it. Imported
samples may lack this fact; a selector that depends on it is then refused.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from toolkit.activations.rows import BySpace
from toolkit.errors import DataError
from toolkit.params import Params
from toolkit.samples.selectors import Selector, SelectorText, selected

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    from toolkit.work import Inputs

Asked = Literal["last", "all"] | Selector | tuple[Selector, ...]


class AtKept(Params):
    """Base of the params of parts that read activations."""

    at: Asked | None = Field(
        None,
        description="Which of the kept positions to read: last, all, or selectors as of "
        "extract.activations. Default: all of them.",
    )

    @field_validator("at")
    @classmethod
    def _some_selector(cls, selectors: Asked | None) -> Asked | None:
        if selectors == ():
            raise ValueError(
                "the list of selectors is empty; leave `at` out to read every position that was "
                "kept"
            )
        return selectors


def shown(at: Asked | None) -> str:
    """The selector as text; empty for every position."""
    if at is None or isinstance(at, str):
        return at or ""
    return json.dumps(_plain(at), separators=(",", ":"))


def _plain(at: Asked) -> Any:
    """The selector as plain data, without defaults."""
    if isinstance(at, str):
        return at
    if isinstance(at, Selector):
        return at.model_dump(mode="json", exclude_defaults=True)
    return [selector.model_dump(mode="json", exclude_defaults=True) for selector in at]


def recorded(at: Asked | None) -> str:
    """The selector as table `comparisons` records it: JSON, empty for every position."""
    if at is None:
        return ""
    return json.dumps(_plain(at), separators=(",", ":"))


def asked_of(positions: str) -> Asked | None:
    """The selector that table `comparisons` records."""
    if not positions:
        return None
    return AtKept.model_validate({"at": json.loads(positions)}).at


class Activations:
    """Rows of `activations` by space, at the requested positions."""

    def __init__(self, inputs: Inputs, at: Asked | None) -> None:
        rows = inputs.read("activations")
        self._samples, self._by_space = rows["sample"], BySpace(rows)
        self._chosen = None if at is None else _ChosenPositions(inputs.read("samples"), at)

    @property
    def spaces(self) -> list[str]:
        """Every space that has rows, sorted by id."""
        return self._by_space.spaces

    @property
    def measured(self) -> frozenset[str]:
        """The samples with a row in every space or, given a selector, with a selected token."""
        if self._chosen is not None:
            return self._chosen.samples
        there = [
            frozenset(self._by_space.of(space)["sample"].unique().to_pylist())
            for space in self.spaces
        ]
        return frozenset.intersection(*there) if there else frozenset()

    def check_looked(self, samples: Sequence[str]) -> None:
        """Refuse samples if none of them was measured: without any rows, it would look as if
        nothing fired.
        """
        if self._chosen is None and not _any_among(self._samples, samples):
            raise DataError(
                f"no space has a row of any of the {len(samples)} samples in table 'activations' "
                f"(the first is '{samples[0]}'). Where nothing fires there is a row with empty "
                "lists: these samples were not measured, for example because a selector "
                "matched no token. Extract at tokens that they have."
            )
        if self._chosen is not None and self._chosen.samples.isdisjoint(samples):
            raise DataError(
                f"at: {self._chosen.at} selects no token in any of the {len(samples)} samples "
                f"(the first is '{samples[0]}'). Select tokens that they have."
            )

    def of(self, space: str, samples: Sequence[str], named: str) -> pa.Table:
        """The rows of a space; a requested position of one of the samples that was not kept is an
        error.
        """
        rows = self._by_space.of(space)
        return rows if self._chosen is None else self._chosen.of(rows, samples, named)


def _any_among(column: pa.ChunkedArray, samples: Sequence[str]) -> bool:
    import pyarrow as pa
    import pyarrow.compute as pc

    ids = pa.array(samples, pa.string())
    return any(pc.any(pc.is_in(chunk, value_set=ids)).as_py() for chunk in column.chunks)


class _ChosenPositions:
    """The positions that a selector selects in each sample, as sorted numbers: the sample's number
    times `_stride`, plus the position.
    """

    def __init__(self, table: pa.Table, at: Asked) -> None:
        import numpy as np
        import pyarrow as pa

        texts = [
            SelectorText.of(row)
            for row in table.select(["sample", "token_ids", "pieces", "spans"]).to_pylist()
        ]
        begins = table["bos"].to_pylist()
        results = [_selected(at, text, bos) for text, bos in zip(texts, begins, strict=True)]
        self._names = pa.array([text.sample for text in texts], pa.string())
        self._stride = max((len(text.ids) for text in texts), default=0) + 1
        places = [
            number * self._stride + position
            for number, positions in enumerate(results)
            for position in positions
        ]
        self._selected_numbers = np.sort(np.array(places, dtype=np.int64))
        self.samples = frozenset(
            text.sample for text, positions in zip(texts, results, strict=True) if positions
        )
        self.at = shown(at)

    def of(self, rows: pa.Table, samples: Sequence[str], named: str) -> pa.Table:
        """The rows at these positions."""
        import numpy as np
        import pyarrow as pa

        there = self._numbers(rows["sample"]) * self._stride + rows["position"].to_numpy()
        self._check(there, self._numbers(pa.chunked_array([pa.array(samples, pa.string())])), named)
        return rows.filter(pa.array(np.isin(there, self._selected_numbers)))

    def _numbers(self, samples: pa.ChunkedArray) -> npt.NDArray[np.int64]:
        """The number of each sample; a sample missing from table `samples` gets a number without
        selected positions.
        """
        import numpy as np
        import pyarrow.compute as pc

        numbers = pc.fill_null(pc.index_in(samples, value_set=self._names), len(self._names))
        return np.asarray(numbers.to_numpy(), dtype=np.int64)

    def _check(
        self, there: npt.NDArray[np.int64], samples: npt.NDArray[np.int64], named: str
    ) -> None:
        import numpy as np

        requested = self._selected_numbers[np.isin(self._selected_numbers // self._stride, samples)]
        lacking = requested[~np.isin(requested, there)]
        if len(lacking):
            sample, position = (
                self._names[int(lacking[0] // self._stride)].as_py(),
                int(lacking[0] % self._stride),
            )
            raise DataError(
                f"at: {self.at} selects position {position} of sample '{sample}', which was not "
                f"kept in space {named} ({len(lacking)} such positions). Only positions that the "
                "extraction kept can be read: add this selector to its `at` (a list is the "
                "union of its selectors), or select positions that were kept."
            )


def _selected(at: Asked, text: SelectorText, bos: bool | None) -> tuple[int, ...]:
    """The selected positions. `bos`: whether the text begins with BOS; None if this was not
    recorded.
    """
    first = text.ids[0] if text.ids else None
    without = selected(at, text, None)
    if bos is False:
        return without
    positions = selected(at, text, first)
    if bos is None and positions != without:
        raise DataError(
            f"at: {shown(at)} depends on whether sample '{text.sample}' begins with BOS, which a "
            "selector leaves out, and its row of table 'samples' does not record it "
            "(column 'bos' is null). State it: `exclude: {bos: false}` reads the first token, "
            "`exclude: {positions: [0], bos: false}` leaves it out."
        )
    return positions
