"""The stage `compare.residual`: every number of the raw stream tested like a feature, in spaces of
its own.

The control for SAE features: what the stream shows without any SAE. It reads the rows that an
extraction kept, or makes one forward pass over the distinct texts; only sums of rows are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from toolkit.models.streams import Text, distinct_texts, last_only, passes
from toolkit.parts import UNHASHED
from toolkit.saes import raw_space_row
from toolkit.work import Rows, Work
from toolkit_stats.samples import params as _params
from toolkit_stats.samples.labelled import blocks
from toolkit_stats.samples.layers import HELP, KEPT, Layers, hookpoints
from toolkit_stats.samples.params import Between

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from toolkit_stats.math.means import Moments
    from toolkit_stats.math.streaming import Stream
    from toolkit_stats.samples.groups import Design

OPEN_BYTES = 2**30
"""If sums of open clusters would need more memory than this, the texts are reordered."""
OF_A_LAYER = ("mean", "fired", "squares", "variance", "skewness", "kurtosis")
"""The fields of moments that have a value per layer; the others are per group."""


class Residual(Between):
    """Which groups and layers, what is independent, and what is called significant."""

    layers: Layers = Field("all", description=HELP)
    alpha: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="Significance level: the allowed false discovery rate, or the family-wise "
        "error rate with holm and bonferroni.",
    )
    min_abs_d: float = Field(0.0, ge=0, description="Smallest |d| that counts as significant.")
    correct: Literal["bh", "by", "storey", "holm", "bonferroni"] = Field(
        "bh", description="Multiple-testing correction, as in compare.welch."
    )
    family: Literal["all", "space"] = Field(
        "all",
        description="Which tests are corrected together: those of all layers, or of each layer.",
    )
    details: Literal["discovered", "all"] = Field(
        "discovered",
        description="Which dimensions get intervals and test statistics in addition to effect, p "
        "and q.",
    )
    tokens: int = Field(
        8192, ge=1, description="Padded tokens per forward pass.", json_schema_extra=UNHASHED
    )

    @field_validator("layers")
    @classmethod
    def _named(cls, layers: Layers) -> Layers:
        """Check that `layers` is explicit: the size of the family has to be known before the
        run.
        """
        if layers == KEPT:
            raise ValueError(
                f"layers: name them, as all, 8, 1-31, 1- or [8, 15, 31]; `{KEPT}` is for "
                "compare.probe"
            )
        return layers

    def compared(self) -> _params.TwoGroups:
        """The same params in the form of a feature comparison, without `layers` and `tokens`."""
        return _params.TwoGroups(**self.model_dump(exclude={"layers", "tokens"}))


def compare_residual(work: Work) -> Rows:
    """Rows of `features` as compare.welch writes them, and the raw spaces that they belong to."""
    from toolkit_stats.samples.groups import group_design

    summary_work = replace(work, params=work.params.compared())
    design = group_design(summary_work)
    read = _read if "streams" in work.inputs.tables() else _computed
    spaces, sides = read(work, design)
    yield "spaces", blocks(spaces, "spaces")
    yield from _tested(summary_work, design, spaces, sides)


def _tested(work: Work, design: Design, spaces: Sequence[Any], sides: Sequence[Moments]) -> Rows:
    """Welch's test of every dimension of every layer, corrected and written as for features."""
    import numpy as np

    from toolkit_stats.compare.feature_rows import SpaceResult
    from toolkit_stats.compare.run_comparison import rows_of
    from toolkit_stats.compare.tests import Test
    from toolkit_stats.math.means import effects, welch

    (a, b), params = sides, work.params
    result = welch(a, b)
    sizes = effects(a, b, result.variance)
    stats = {name: getattr(sizes, name) for name in ("d", "d_low", "d_high", "g")} | {
        "t": result.t,
        "df": result.df,
        "p": result.p,
    }
    test = Test(
        "welch",
        " vs ".join(params.between),
        "d",
        params.min_abs_d,
        "compare.residual",
        run=lambda matrix, moments: {},
    )
    features = np.arange(a.mean.shape[1])
    tested = [
        SpaceResult(
            space["space"],
            space,
            features,
            len(features),
            [_layer_of(side, index) for side in sides],
            {name: numbers[index] for name, numbers in stats.items()},
        )
        for index, space in enumerate(spaces)
    ]
    yield from rows_of(work, design, test, tested)


def _layer_of(side: Moments, layer: int) -> Moments:
    """The moments of one layer."""
    return replace(side, **{name: getattr(side, name)[layer] for name in OF_A_LAYER})


def _computed(work: Work, design: Design) -> tuple[list[dict[str, Any]], list[Moments]]:
    """The raw spaces, and each group's sums after one pass of the model over the texts."""
    import numpy as np

    model = work.model
    places = hookpoints(work.params.layers, model.layers, model.identity.name)
    sums, done = _Sums(design, (len(places), model.width)), 0
    for batch in passes(
        model, _texts(work, design, len(places) * model.width), places, work.params.tokens
    ):
        streams = [batch.rows[hookpoint].double().cpu().numpy() for hookpoint in places]
        for index, text in enumerate(batch.texts):
            sums.add(text, np.stack([stream[index] for stream in streams]))
        done += sum(len(text.samples) for text in batch.texts)
        work.report.progress(done, len(design.samples))
    return [
        raw_space_row(model.identity, hookpoint, model.width) for hookpoint in places
    ], sums.moments()


def _read(work: Work, design: Design) -> tuple[list[dict[str, Any]], list[Moments]]:
    """The same from rows that an extraction kept, one hookpoint at a time: texts come in the same
    order, so sums are equal.
    """
    from toolkit_stats.samples.stored_streams import StoredStreams

    stored = StoredStreams(work)
    texts = _texts(work, design, len(stored.hookpoints) * stored.width)
    results: list[list[Moments]] = []
    for done, hookpoint in enumerate(stored.hookpoints):
        work.report.progress(done, len(stored.hookpoints))
        sums = _Sums(design, (1, stored.width))
        for text, row in zip(texts, stored.rows(hookpoint, texts), strict=True):
            sums.add(text, row[None].astype("float64"))
        results.append(sums.moments())
    spaces = [
        raw_space_row(stored.identity, hookpoint, stored.width) for hookpoint in stored.hookpoints
    ]
    return spaces, [_layers_of(side) for side in zip(*results, strict=True)]


def _layers_of(side: Sequence[Moments]) -> Moments:
    """Moments of all layers, from those of each."""
    import numpy as np

    joined: dict[str, Any] = {
        name: np.concatenate([getattr(layer_values, name) for layer_values in side])
        for name in OF_A_LAYER
    }
    return replace(side[0], **joined)


class _Sums:
    """Each group's sums, from rows that arrive text by text."""

    def __init__(self, design: Design, shape: tuple[int, ...]) -> None:
        from toolkit_stats.math.streaming import Stream

        groups = design.groups
        self._group = {
            sample: index
            for index, group in enumerate(groups)
            for sample in design.samples[group.start : group.end]
        }
        numbers = [int(number) for group in groups for number in group.clusters]
        self._cluster = dict(zip(design.samples, numbers, strict=True))
        self._sides: list[Stream] = [Stream(group.clusters, shape) for group in groups]

    def add(self, text: Text, row: npt.NDArray[np.float64]) -> None:
        """One text's row, for the samples that have this text."""
        for number, side in enumerate(self._sides):
            rows = [
                self._cluster[sample] for sample in text.samples if self._group[sample] == number
            ]
            if rows:
                side.add(row, rows)

    def moments(self) -> list[Moments]:
        """The moments of each group, after the last text."""
        return [side.moments() for side in self._sides]


def _texts(work: Work, design: Design, numbers: int) -> list[Text]:
    """The distinct texts of the groups, in the order in which their rows are summed."""
    samples = set(design.samples)
    rows = work.inputs.read("samples").select(["sample", "token_ids"]).to_pylist()
    return _ordered(
        distinct_texts([row for row in rows if row["sample"] in samples], last_only),
        design,
        numbers,
    )


def _ordered(texts: list[Text], design: Design, numbers: int) -> list[Text]:
    """The texts, shortest first; where too many clusters would be open at once, cluster by
    cluster.
    """
    joined = dict(zip(design.samples, design.joined.tolist(), strict=True))
    cluster = {text: int(joined[text.samples[0]]) for text in texts}
    repeats = len(texts) - len(set(cluster.values()))
    if repeats * numbers * 8 <= OPEN_BYTES:
        return texts
    longest: dict[int, int] = {}
    for text in texts:
        longest[cluster[text]] = max(longest.get(cluster[text], 0), len(text.ids))
    return sorted(
        texts, key=lambda text: (longest[cluster[text]], cluster[text], len(text.ids), text.ids)
    )
