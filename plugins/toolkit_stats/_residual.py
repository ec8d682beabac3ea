"""The stage `compare.residual`: every number of the raw stream tested like a feature, in spaces of its own.

The control beside SAE features: what the stream shows without any SAE. One forward pass over the distinct texts; of the rows only
sums are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from toolkit.records import UNHASHED, Rows, Work
from toolkit.saes import raw_space_row
from toolkit.streams import Text, distinct_texts, last_only, passes
from toolkit.tables import arrow_schema

from ._labelled import Labelled, TwoGroups, blocks, two_groups
from ._layers import HELP, Layers, hookpoints

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    from ._streaming import Stream

OPEN_BYTES = 2**30
"""Sums of open clusters that would need more than this are kept few by another order of the texts."""


class Residual(TwoGroups):
    """Which groups and layers, what is independent, and what is called significant."""

    layers: Layers = Field("all", description=HELP)
    unit: Literal["unit", "sample"] = Field("unit", description="What is independent: units (games, say) or single samples.")
    cluster: Literal["prompt", "none"] = Field("prompt", description="Whether samples with equal prompts count as one cluster.")
    alpha: float = Field(0.05, gt=0, lt=1, description="Share of false discoveries to allow among significant dimensions.")
    min_abs_d: float = Field(0.0, ge=0, description="Smallest |d| that is called significant.")
    correct: Literal["bh"] = Field("bh", description="Correction for many tests: bh is Benjamini-Hochberg.")
    tokens: int = Field(8192, ge=1, description="Padded tokens of one forward pass.", json_schema_extra=UNHASHED)


def compare_residual(work: Work) -> Rows:
    """Rows of `features` as compare.welch writes them, and the raw spaces that they belong to."""
    import numpy as np

    from ._statistics import benjamini_hochberg, welch

    model, data = work.model, two_groups(work)
    places = hookpoints(work.params.layers, model.layers, model.identity.name)
    sides = _streamed(work, data, places)
    a, b = (side.moments() for side in sides)
    test = welch(a, b)
    family = len(places) * model.width
    q = benjamini_hochberg(test.p.ravel(), family).reshape(test.p.shape)
    spaces = [raw_space_row(model.identity, place, model.width) for place in places]
    yield "spaces", blocks(spaces, "spaces")
    significant = (q <= work.params.alpha) & (np.abs(test.d) >= work.params.min_abs_d)
    sizes = [f"{one.samples} samples in {one.clusters} clusters" for one in (a, b)]
    for at, space in enumerate(spaces):
        rows: list[tuple[str, str, npt.NDArray[np.float64], str | None]] = []
        for name, one, size in zip(data.names, (a, b), sizes, strict=True):
            rows += [("mean", name, one.mean[at], size), ("density", name, one.fired[at] / one.samples, None)]
        rows += [(stat, data.contrast, getattr(test, stat)[at], None) for stat in ("d", "t", "df", "p")]
        rows += [("q", data.contrast, q[at], f"{work.params.correct} over {family}")]
        rows += [("significant", data.contrast, significant[at].astype(np.float64), None)]
        rows += [("fired", "", (a.fired[at] + b.fired[at]).astype(np.float64), None)]
        yield from (("features", _block(space["space"], *row)) for row in rows)


def _streamed(work: Work, data: Labelled, places: Sequence[str]) -> list[Stream]:
    """Both groups' sums after one pass over the texts."""
    import numpy as np

    from ._streaming import Stream

    owner = {sample: at for at, sample in enumerate(data.samples)}
    group_cluster = [_clusters(data, number, work.params) for number in range(2)]
    sides = [Stream(clusters[clusters >= 0], (len(places), work.model.width)) for clusters in group_cluster]
    rows = work.inputs.read("samples").select(["sample", "token_ids"]).to_pylist()
    texts = distinct_texts([row for row in rows if row["sample"] in owner], last_only)
    done = 0
    for found in passes(work.model, _ordered(texts, data, owner, len(places) * work.model.width), places, work.params.tokens):
        streams = [found.rows[place].double().cpu().numpy() for place in places]
        for at, text in enumerate(found.texts):
            row = np.stack([stream[at] for stream in streams])
            for side, clusters in zip(sides, group_cluster, strict=True):
                own = [int(clusters[owner[sample]]) for sample in text.samples if clusters[owner[sample]] >= 0]
                if own:
                    side.add(row, own)
        done += sum(len(text.samples) for text in found.texts)
        work.report.progress(done, len(data.samples))
    return sides


def _clusters(data: Labelled, number: int, params: Residual) -> npt.NDArray[np.int64]:
    """The cluster of each sample of a group, -1 elsewhere. Inside a group: a unit with samples in both is one cluster in each."""
    import numpy as np

    from ._statistics import clusters_of

    own = np.flatnonzero(data.label == number)
    columns = [data.units] if params.unit == "unit" else []
    columns += [data.prompts] if params.cluster == "prompt" else []
    joins = [np.unique([column[at] for at in own], return_inverse=True)[1] for column in columns]
    found = np.full(len(data.label), -1, dtype=np.int64)
    found[own] = clusters_of(joins, len(own))
    return found


def _ordered(texts: list[Text], data: Labelled, owner: dict[str, int], numbers: int) -> list[Text]:
    """Shortest first, as they are; where too many clusters would be open at a time, a cluster's texts one after the other."""
    cluster = {text: int(data.cluster[owner[text.samples[0]]]) for text in texts}
    many = len(texts) - len(set(cluster.values()))
    if many * numbers * 8 <= OPEN_BYTES:
        return texts
    longest: dict[int, int] = {}
    for text in texts:
        longest[cluster[text]] = max(longest.get(cluster[text], 0), len(text.ids))
    return sorted(texts, key=lambda text: (longest[cluster[text]], cluster[text], len(text.ids), text.ids))


def _block(space: str, stat: str, group: str, numbers: npt.NDArray[np.float64], text: str | None) -> pa.Table:
    import numpy as np
    import pyarrow as pa

    count = len(numbers)
    words = [pa.repeat(pa.scalar(word, pa.string()), count) for word in (space, stat, group, text)]
    feature, number = pa.array(np.arange(count, dtype=np.uint32)), pa.array(numbers, mask=np.isnan(numbers))
    return pa.table([words[0], feature, words[1], words[2], number, words[3]], schema=arrow_schema("features"))
