"""Patching: change features at a decision and measure, exactly, what that does."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit import hookimpl
from toolkit.parts import Estimates, Part, ReportSection, StagePart

from . import _cost, _delta, _section
from ._params import Delta


@hookimpl
def toolkit_parts() -> Iterator[Part]:
    """Every part of this subject."""
    yield StagePart(
        name="patch.delta",
        help="Sets features to group values, error term kept, against sham, "
        "random "
        "and "
        "reconstruction arms.",
        params=Delta,
        run=_delta.patch,
        estimates=Estimates(cost=_cost.screening),
        reads=("samples", "features", "comparisons", "spaces"),
        writes=("effects", "features"),
        uses_model=True,
        uses_saes=True,
    )
    yield ReportSection(
        name="patch-effects",
        title="Patch effects against their controls",
        help="What setting a feature does to the decision, beside what the same "
        "edit "
        "does along random "
        "features.",
        reads=("effects", "features", "spaces"),
        run=_section.figures,
        order=30,
    )
