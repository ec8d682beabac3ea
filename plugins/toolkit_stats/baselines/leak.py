"""The stage `compare.leak`: how well metadata alone separate the groups, by key and together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic import Field

from toolkit.work import Rows, Work
from toolkit_stats.samples.labelled import Labelled, blocks, folds, two_groups
from toolkit_stats.samples.params import Between

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from toolkit_stats.samples.metadata import Key

LEAK = 0.999
"""From this cross-validated AUROC on, a key is reported to separate the groups by itself."""


class Leak(Between):
    """Which groups, and which metadata to try."""

    folds: int = Field(
        5,
        ge=2,
        le=20,
        description="Number of folds of the cross-validation; units and equal prompts are never "
        "split over folds.",
    )
    leave_out: tuple[str, ...] = Field(
        (), description="Metadata keys to leave out; `by` is always left out."
    )


def compare_leak(work: Work) -> Rows:
    """Rows of `baselines`: AUROC and accuracy of each key and of all together, each with its
    interval, compared with chance.
    """
    from toolkit_stats.samples.metadata import lengths, read_keys

    data = two_groups(work)
    fold = folds(data, work.params.folds, work.rng("folds"))
    meta = work.inputs.read("sample_meta")
    keys = [
        *read_keys(meta, data.samples, (work.params.by, *work.params.leave_out)),
        lengths(data.tokens),
    ]
    telling = [key for key in keys if not key.constant]
    work.report.phase("compute")
    rows: list[dict[str, Any]] = []
    for done, key in enumerate(telling):
        rows += _rows(data, fold, [key], "metadata", key.name)
        work.report.progress(done + 1, len(telling) + 1)
    rows += _rows(
        data, fold, telling, "together", f"all {len(telling)} key{'s'[: len(telling) != 1]}"
    )
    yield "baselines", blocks(rows, "baselines")


def _rows(
    data: Labelled, fold: npt.NDArray[np.int64], keys: list[Key], kind: str, name: str
) -> Iterator[dict[str, Any]]:
    """The two rows of one predictor."""
    from toolkit_stats.math.auroc import accuracy, auroc
    from toolkit_stats.samples.metadata import predicted

    positive = data.label == 0
    scores = predicted(keys, positive, fold)
    area = auroc(scores, positive, fold, data.cluster)
    right = accuracy((scores > 0) == positive, data.cluster)
    share = float(max(positive.mean(), 1 - positive.mean()))
    for metric, value, chance in (("auroc", area, 0.5), ("accuracy", right, share)):
        numbers = {"value": value.value, "low": value.low, "high": value.high, "chance": chance}
        yield {
            "contrast": data.contrast,
            "kind": kind,
            "name": name,
            "metric": metric,
            **numbers,
            "folds": int(fold.max()) + 1,
            "groups": data.sizes(),
            "separates": area.value >= LEAK,
            "text": None,
        }
