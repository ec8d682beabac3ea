"""Gradient estimates of effects: (difference of a feature's two values) x (its decoder row . the
mean gradient of an outcome's probability at its hookpoint).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from toolkit.models import LOGITS

from .points import weights_of

if TYPE_CHECKING:
    import numpy as np

    from toolkit.models import Frozen
    from toolkit.saes import Sae
    from toolkit.work import Work

    from .candidates import ComparedFeatures
    from .outcomes import Outcomes
    from .points import Point

Method = Literal["atp", "relp"]
FROZEN: Mapping[Method, tuple[Frozen, ...]] = {"atp": (), "relp": ("attention", "norms", "mlp")}
"""The parts of the model that each method holds constant."""


def mean_gradients(
    work: Work,
    method: Method,
    points: Sequence[Point],
    outcomes: Outcomes,
    hookpoints: Sequence[str],
    finished: tuple[int, int] = (0, 1),
) -> dict[str, Any]:
    """By hookpoint, the mean over decision points of the gradient at the edited token. `finished`:
    how many methods are done, and of how many, for progress reports.
    """
    import torch

    listed = list(outcomes.tokens[outcomes.names.index(work.params.about)])

    def probability(captured: Mapping[str, Any]) -> Any:
        return torch.softmax(captured[LOGITS].float(), dim=-1)[:, listed].sum(1)

    weights, sums = weights_of(points), dict.fromkeys(hookpoints, 0.0)
    for number, (point, weight) in enumerate(zip(points, weights.tolist(), strict=True)):
        result = work.model.gradients([point.ids], hookpoints, probability, freeze=FROZEN[method])
        position = len(point.ids) - 1 if point.position is None else point.position
        for name in hookpoints:
            sums[name] = sums[name] + weight * result.gradients[name][0, position].detach().float()
        work.report.progress(finished[0] * len(points) + number + 1, finished[1] * len(points))
    return {name: value / float(weights.sum()) for name, value in sums.items()}


def estimates(
    compared: ComparedFeatures, rows: Sequence[int], sae: Sae, gradient: Any
) -> np.ndarray[Any, Any]:
    """The estimated specific effects of features of one space."""
    import numpy as np

    features = compared.feature[rows].tolist()
    directions = sae.decoder_rows(features).float().to(gradient.device)
    change = compared.values[rows, 0] - compared.values[rows, 1]
    return np.asarray((directions @ gradient).cpu().numpy().astype(float) * change)
