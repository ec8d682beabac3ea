"""The stage `compare.residual`: every number of the raw stream tested like a feature, in spaces of its own.

The control beside SAE features: what the stream shows without any SAE. One forward pass over the distinct texts; of the rows only
sums are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from toolkit.records import UNHASHED, Rows, Work
from toolkit.saes import raw_space_row
from toolkit.streams import Text, distinct_texts, last_only, passes

from . import _params
from ._labelled import blocks
from ._layers import HELP, Layers, hookpoints
from ._params import Between

if TYPE_CHECKING:
    from ._groups import Design
    from ._statistics import Moments
    from ._streaming import Stream

OPEN_BYTES = 2**30
"""Sums of open clusters that would need more than this are kept few by another order of the texts."""


class Residual(Between):
    """Which groups and layers, what is independent, and what is called significant."""

    layers: Layers = Field("all", description=HELP)
    alpha: float = Field(0.05, gt=0, lt=1, description="Share of false discoveries (or chance of one) to allow.")
    min_abs_d: float = Field(0.0, ge=0, description="Smallest |d| that is called significant.")
    correct: Literal["bh", "by", "storey", "holm", "bonferroni"] = Field("bh", description="Correction, as in compare.welch.")
    family: Literal["all", "space"] = Field("all", description="What is corrected together: all layers, or each by itself.")
    details: Literal["discovered", "all"] = Field(
        "discovered", description="Which dimensions get intervals and test statistics too, beside effect, p and q."
    )
    tokens: int = Field(8192, ge=1, description="Padded tokens of one forward pass.", json_schema_extra=UNHASHED)

    def compared(self) -> _params.TwoGroups:
        """The same as a comparison of features is told it; `layers` and `tokens` apart."""
        return _params.TwoGroups(**self.model_dump(exclude={"layers", "tokens"}))


def compare_residual(work: Work) -> Rows:
    """Rows of `features` as compare.welch writes them, and the raw spaces that they belong to."""
    from ._groups import group_design

    model, params = work.model, work.params.compared()
    told = replace(work, params=params)
    design = group_design(told)
    places = hookpoints(work.params.layers, model.layers, model.identity.name)
    spaces = [raw_space_row(model.identity, place, model.width) for place in places]
    sides = [stream.moments() for stream in _streamed(work, design, places)]
    yield "spaces", blocks(spaces, "spaces")
    yield from _tested(told, design, spaces, sides)


def _tested(work: Work, design: Design, spaces: Sequence[Any], sides: Sequence[Moments]) -> Rows:
    """Welch's test of every dimension of every layer, corrected and written as that of features is."""
    import numpy as np

    from ._family import Tested, rows_of
    from ._statistics import effects, welch
    from ._tests import Test

    (a, b), params = sides, work.params
    found = welch(a, b)
    sizes = effects(a, b, found.variance)
    stats = {name: getattr(sizes, name) for name in ("d", "d_low", "d_high", "g")} | {"t": found.t, "df": found.df, "p": found.p}
    test = Test("welch", " vs ".join(params.between), "d", params.min_abs_d, run=lambda matrix, moments: {})
    features = np.arange(a.mean.shape[1])
    tested = [
        Tested(
            space["space"],
            space,
            features,
            len(features),
            [_at(side, at) for side in sides],
            {name: numbers[at] for name, numbers in stats.items()},
        )
        for at, space in enumerate(spaces)
    ]
    yield from rows_of(work, design, test, tested)


def _at(side: Moments, layer: int) -> Moments:
    """One layer of moments of all layers."""
    names = ("mean", "fired", "squares", "variance")
    return replace(side, **{name: getattr(side, name)[layer] for name in names})


def _streamed(work: Work, design: Design, places: Sequence[str]) -> list[Stream]:
    """Each group's sums after one pass over the texts."""
    import numpy as np

    from ._streaming import Stream

    group_of = {sample: at for at, group in enumerate(design.groups) for sample in design.samples[group.start : group.end]}
    cluster_of = dict(zip(design.samples, [int(number) for group in design.groups for number in group.clusters], strict=True))
    sides = [Stream(group.clusters, (len(places), work.model.width)) for group in design.groups]
    rows = work.inputs.read("samples").select(["sample", "token_ids"]).to_pylist()
    texts = distinct_texts([row for row in rows if row["sample"] in group_of], last_only)
    done = 0
    for found in passes(work.model, _ordered(texts, design, len(places) * work.model.width), places, work.params.tokens):
        streams = [found.rows[place].double().cpu().numpy() for place in places]
        for at, text in enumerate(found.texts):
            row = np.stack([stream[at] for stream in streams])
            for number, side in enumerate(sides):
                own = [cluster_of[sample] for sample in text.samples if group_of[sample] == number]
                if own:
                    side.add(row, own)
        done += sum(len(text.samples) for text in found.texts)
        work.report.progress(done, len(design.samples))
    return sides


def _ordered(texts: list[Text], design: Design, numbers: int) -> list[Text]:
    """Shortest first, as they are; where too many clusters would be open at a time, a cluster's texts one after the other."""
    joined = dict(zip(design.samples, design.joined.tolist(), strict=True))
    cluster = {text: int(joined[text.samples[0]]) for text in texts}
    many = len(texts) - len(set(cluster.values()))
    if many * numbers * 8 <= OPEN_BYTES:
        return texts
    longest: dict[int, int] = {}
    for text in texts:
        longest[cluster[text]] = max(longest.get(cluster[text], 0), len(text.ids))
    return sorted(texts, key=lambda text: (longest[cluster[text]], cluster[text], len(text.ids), text.ids))
