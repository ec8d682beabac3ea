"""The sink `npz`: the activations of each space as one NumPy archive, in coordinates or dense."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from toolkit.activations.rows import described_spaces
from toolkit.costs import Cost
from toolkit.errors import DataError
from toolkit.files.archives import archive, dense, texts, whole
from toolkit.parts import SinkParams
from toolkit.work import SinkWork

from ._dense import NUMBERS, configurations, layers
from ._entries import Entries

if TYPE_CHECKING:
    pass


class Npz(SinkParams):
    """Where the archives go, and whether zeros are written too."""

    dense: bool = Field(False, description="Write every zero too: a matrix of rows by features.")
    layout: Literal["space", "configuration", "layer"] = Field(
        "space",
        description="Of dense archives. space: ours with `features` added; configuration: "
        "layer_20_l0_71_activations.npz; layer: SAMPLE/layer_15.npz.",
    )
    index: str | None = Field(
        None,
        min_length=1,
        description="layout: configuration: the metadata key with each sentence's number (sources "
        "of texts keep it with `row`); without it they are counted in order of their ids, which "
        "without `id` is the file's.",
    )

    @model_validator(mode="after")
    def _check_layout(self) -> Npz:
        if self.layout != "space" and not self.dense:
            raise ValueError(
                f"layout: {self.layout} writes every zero, which takes a lot of room. Set `dense: "
                "true` as well"
            )
        if self.index and self.layout != "configuration":
            raise ValueError(
                "index: only `layout: configuration` numbers sentences, and this is `layout: "
                f"{self.layout}`. Leave it out"
            )
        return self


def disk(params: Npz, cost: Cost) -> int:
    """Bytes of the dense matrices and of the texts with them, before compression."""
    if not params.dense:
        return 0
    if params.layout == "layer":
        return cost.totals.get("dense_bytes_all_tokens", 0)
    dense = cost.totals.get("dense_bytes", 0)
    if params.layout != "configuration":
        return dense
    return dense + 2 * cost.totals.get("text_bytes", 0) + cost.rows * NUMBERS


def write_npz(work: SinkWork) -> Iterator[tuple[str, bytes | Iterable[bytes]]]:
    """One archive per space: row i is `samples[i]` at `positions[i]`; entry j says that
    `feature[j]` is `value[j]` in `row[j]`.
    """
    import pyarrow.compute as pc

    if "activations" not in work.inputs.tables() and work.params.layout == "layer":
        yield from layers(work, [], _no_entries)
        return
    activations = work.inputs.read("activations")
    ids = sorted(pc.unique(activations["space"]).to_pylist())
    known = described_spaces(work.inputs.read("spaces"), ids)
    heads = [known[space] for space in ids]

    def rows_of(space: Mapping[str, Any]) -> Entries:
        return Entries(activations.filter(pc.equal(activations["space"], space["space"])))

    if work.params.layout == "configuration":
        yield from configurations(work, heads, rows_of)
    elif work.params.layout == "layer" and ids:
        yield from layers(work, heads, rows_of)
    elif work.params.layout == "space":
        for space, name in zip(heads, _names(known, ids), strict=True):
            yield (
                f"{name}.npz",
                archive(_arrays(rows_of(space), space, dense_too=work.params.dense)),
            )


def _no_entries(space: Mapping[str, Any]) -> Entries:
    raise DataError(f"space {space['space']} has no activations in this run.")


def _names(spaces: Mapping[str, Mapping[str, Any]], ids: Sequence[str]) -> list[str]:
    """Addresses as file names; names that would collide, also when case is ignored, get the
    space's id too.
    """
    safe = [
        re.sub(r"[^A-Za-z0-9._-]+", "-", spaces[space]["address"]).strip(".-") or space
        for space in ids
    ]
    counts = Counter(name.lower() for name in safe)
    return [
        name if counts[name.lower()] == 1 else f"{name}-{space}"
        for name, space in zip(safe, ids, strict=True)
    ]


def _arrays(entries: Entries, space: Mapping[str, Any], *, dense_too: bool) -> Iterator[Any]:
    import numpy as np

    yield texts("samples", len(entries), max(map(len, entries.names), default=0), entries.name)
    yield whole("positions", entries.positions)
    yield whole("row", entries.row.astype(np.int64))
    yield whole("feature", entries.rows.features)
    yield whole("value", entries.rows.values)
    yield whole("width", np.int64(space["width"]))
    if dense_too:
        yield dense("features", len(entries), space["width"], entries.rows.fill)
