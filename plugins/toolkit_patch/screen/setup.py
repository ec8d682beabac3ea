"""What a screen works with at every decision point: model, SAEs, candidates and outcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .arms import MeanDifference
from .candidates import ComparedFeatures
from .outcomes import Outcomes
from .passes import Reading, hookpoints_of, read_prompt
from .points import Point

if TYPE_CHECKING:
    import numpy as np

    from toolkit.models import Model
    from toolkit.saes import Sae
    from toolkit.work import Work

    from .params import Delta


@dataclass(frozen=True, eq=False)
class Screen:
    """Everything that is the same at every point. `family` are rows of `compared`, `step_rows`
    those of this step; `checked` is the number of features in the family that are screened exactly.
    `id` is shared by the steps of a stage and its control, and by no other screen.
    """

    work: Work
    model: Model
    params: Delta
    compared: ComparedFeatures
    family: np.ndarray[Any, Any]
    step_rows: np.ndarray[Any, Any]
    candidates: ComparedFeatures
    saes: Mapping[int, Sae]
    points: Sequence[Point]
    outcomes: Outcomes
    checked: int
    shuffled: np.ndarray[Any, Any] | None = None
    means: Mapping[str, MeanDifference] = field(default_factory=dict)
    id: str = ""

    @property
    def column(self) -> int:
        """Index of the outcome that verdicts are about."""
        return self.outcomes.names.index(self.params.about)

    def read(self, point: Point) -> Reading:
        """Read the prompt of a decision point."""
        hookpoints = hookpoints_of(self.saes.values())
        return read_prompt(self.model, self.outcomes, point.ids, hookpoints, point.position)
