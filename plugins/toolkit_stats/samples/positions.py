"""Which of the positions that an extraction kept are read: the words of `toolkit.selectors`,
applied to rows instead of tokens.

One extraction at the union of several selectors thus serves a comparison each. What was not kept
cannot be read, and is refused.

A selector leaves BOS out, and tables do not say which token it is. A loader puts it first in every
text and nowhere else. So it is there if all texts begin with one token. If the extraction left that
token out it is taken for BOS; its activations are the same in every text anyway, since nothing
stands before it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from toolkit.errors import DataError
from toolkit.halves import marked as of_half
from toolkit.parts import Params
from toolkit.selectors import Read, Selector, selected
from toolkit_stats.samples.by_space import BySpace

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
        description="Which of the positions that were kept are read: last, all, or "
        "selectors as of "
        "extract.activations; "
        "by default all "
        "that were kept.",
    )

    @field_validator("at")
    @classmethod
    def _some_selector(cls, given: Asked | None) -> Asked | None:
        if given == ():
            raise ValueError(
                "the list of selectors is empty; leave `at` out to read every position that was "
                "kept"
            )
        return given


def shown(at: Asked | None) -> str:
    """The selector in few words, for texts beside numbers; empty for every position. It holds no `:
    `, after which texts go on.
    """
    if at is None or isinstance(at, str):
        return at or ""
    plain = [
        one.model_dump(mode="json", exclude_defaults=True)
        for one in ([at] if isinstance(at, Selector) else at)
    ]
    return json.dumps(
        plain[0] if isinstance(at, Selector) else plain, separators=(",", ":")
    ).replace(": ", ":\\u0020")


def marked(text: str | None, at: Asked | None, half: str) -> str | None:
    """The text of a row of a comparison of these positions and that half; every position goes
    without saying, and so do all units.
    """
    said = f"at {shown(at)}" if at is not None else None
    return of_half(f"{text}, {said}" if text and said else text or said, half)


def mark_of(text: str | None) -> str:
    """The positions and the half that a row's text is marked with; empty without a mark."""
    plain = text or ""
    head = f", {plain.rpartition(': ')[0] or plain}"
    return head[
        min((at for at in map(head.find, (", at ", ", half ")) if at >= 0), default=len(head)) :
    ]


def rows_marked(rows: pa.Table, mark: str) -> pa.Table:
    """The rows of `features` with that mark. Few texts stand in many rows."""
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = [text for text in pc.unique(rows["text"]).to_pylist() if mark_of(text) == mark]
    return rows.filter(pc.is_in(rows["text"], value_set=pa.array(texts, pa.string())))


class Activations:
    """Rows of `activations` by space, of the positions asked for."""

    def __init__(self, inputs: Inputs, at: Asked | None) -> None:
        rows = inputs.read("activations")
        self._samples, self._by_space = rows["sample"], BySpace(rows)
        self._chosen = None if at is None else _Chosen(inputs.read("samples"), rows, at)

    @property
    def spaces(self) -> list[str]:
        """Every space that has rows, in order of ids."""
        return self._by_space.spaces

    @property
    def measured(self) -> frozenset[str]:
        """The samples in which something is read: those with a row in every space, or with a token
        that the selector finds.
        """
        if self._chosen is not None:
            return self._chosen.samples
        there = [
            frozenset(self._by_space.of(space)["sample"].unique().to_pylist())
            for space in self.spaces
        ]
        return frozenset.intersection(*there) if there else frozenset()

    def check_looked(self, samples: Sequence[str]) -> None:
        """Refuse when nobody looked anywhere: a result of no rows at all would read as silence
        everywhere.
        """
        if self._chosen is None and not _any_among(self._samples, samples):
            raise DataError(
                f"no space has a row of any of the {len(samples)} samples in table 'activations' "
                f"(the first is '{samples[0]}'). Where nothing fires there is a row with empty "
                "lists: these samples were not looked at, as where a selector finds no token. "
                "Extract at tokens that they have."
            )
        if self._chosen is not None and self._chosen.samples.isdisjoint(samples):
            raise DataError(
                f"at: {self._chosen.at} finds no token in any of the {len(samples)} samples (the "
                f"first is '{samples[0]}'). Ask for tokens that they have."
            )

    def of(self, space: str, samples: Sequence[str], named: str) -> pa.Table:
        """The rows of a space; a position asked for in one of the samples that was not kept is an
        error.
        """
        rows = self._by_space.of(space)
        return rows if self._chosen is None else self._chosen.of(rows, samples, named)


def _any_among(column: pa.ChunkedArray, samples: Sequence[str]) -> bool:
    import pyarrow as pa
    import pyarrow.compute as pc

    ids = pa.array(samples, pa.string())
    return any(pc.any(pc.is_in(chunk, value_set=ids)).as_py() for chunk in column.chunks)


class _Chosen:
    """The positions that a selector finds in each sample, as sorted numbers: the sample's number
    times `_stride`, and the position.
    """

    def __init__(self, table: pa.Table, rows: pa.Table, at: Asked) -> None:
        import numpy as np
        import pyarrow as pa

        texts = [
            Read.of(row)
            for row in table.select(["sample", "token_ids", "pieces", "spans"]).to_pylist()
        ]
        bos = _bos(texts, rows, at)
        found = [selected(at, text, bos) for text in texts]
        self._names = pa.array([text.sample for text in texts], pa.string())
        self._stride = max((len(text.ids) for text in texts), default=0) + 1
        places = [
            number * self._stride + position for number, own in enumerate(found) for position in own
        ]
        self._wanted = np.sort(np.array(places, dtype=np.int64))
        self.samples = frozenset(text.sample for text, own in zip(texts, found, strict=True) if own)
        self.at = shown(at)

    def of(self, rows: pa.Table, samples: Sequence[str], named: str) -> pa.Table:
        """The rows that stand at these positions."""
        import numpy as np
        import pyarrow as pa

        there = self._numbers(rows["sample"]) * self._stride + rows["position"].to_numpy()
        self._check(there, self._numbers(pa.chunked_array([pa.array(samples, pa.string())])), named)
        return rows.filter(pa.array(np.isin(there, self._wanted)))

    def _numbers(self, samples: pa.ChunkedArray) -> npt.NDArray[np.int64]:
        """The number of each sample; one that table `samples` lacks has one that no position is
        asked for in.
        """
        import numpy as np
        import pyarrow.compute as pc

        found = pc.fill_null(pc.index_in(samples, value_set=self._names), len(self._names))
        return np.asarray(found.to_numpy(), dtype=np.int64)

    def _check(
        self, there: npt.NDArray[np.int64], samples: npt.NDArray[np.int64], named: str
    ) -> None:
        import numpy as np

        wanted = self._wanted[np.isin(self._wanted // self._stride, samples)]
        lacking = wanted[~np.isin(wanted, there)]
        if len(lacking):
            sample, position = (
                self._names[int(lacking[0] // self._stride)].as_py(),
                int(lacking[0] % self._stride),
            )
            raise DataError(
                f"at: {self.at} asks for position {position} of sample '{sample}', which was not "
                f"kept in space {named} ({len(lacking)} such positions). Only what the extraction "
                "looked at can be read: add this selector to its `at` (a list is the union of its "
                "selectors), or ask for positions that were kept."
            )


def _bos(texts: Sequence[Read], rows: pa.Table, at: Asked) -> int | None:
    """The token that a selector leaves out at the start; None without one."""
    longer = [text for text in texts if len(text.ids) > 1]
    firsts = {text.ids[0] for text in longer}
    if len(firsts) != 1:
        return None
    first = firsts.pop()
    if not _first_kept(longer, rows):
        return first
    if any(first in text.ids[1:] for text in longer):
        return None
    unsure = next(
        (text for text in longer if selected(at, text, first) != selected(at, text, None)), None
    )
    if unsure is not None:
        raise DataError(
            f"at: {shown(at)} may or may not ask for the first token of sample '{unsure.sample}': "
            "each text begins with it, so that it may be BOS, which a selector leaves out, and "
            "the extraction kept it. Say which is meant: `exclude: {bos: false}` reads it, "
            "`exclude: {positions: [0], bos: false}` leaves it out."
        )
    return None


def _first_kept(longer: Sequence[Read], rows: pa.Table) -> bool:
    """Whether the first token of some text of several was kept."""
    import pyarrow as pa
    import pyarrow.compute as pc

    first = rows.select(["sample"]).filter(pc.equal(rows["position"], 0))
    found: Any = pc.any(
        pc.is_in(first["sample"], value_set=pa.array([text.sample for text in longer], pa.string()))
    )
    return bool(found.as_py())
