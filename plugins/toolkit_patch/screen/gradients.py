"""Effects as gradients estimate them: (difference of a feature's two values) x (its decoder row .
the mean gradient of an outcome's probability at its place).
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
"""What each method takes for a constant."""


def mean_gradients(
    work: Work,
    method: Method,
    points: Sequence[Point],
    outcomes: Outcomes,
    hookpoints: Sequence[str],
    done: tuple[int, int] = (0, 1),
) -> dict[str, Any]:
    """By hookpoint, the mean over decision points of the gradient at the edited token. `done`: how
    many of how many methods are.
    """
    import torch

    listed = list(outcomes.tokens[outcomes.names.index(work.params.about)])

    def chance(seen: Mapping[str, Any]) -> Any:
        return torch.softmax(seen[LOGITS].float(), dim=-1)[:, listed].sum(1)

    weights, sums = weights_of(points), dict.fromkeys(hookpoints, 0.0)
    for number, (point, weight) in enumerate(zip(points, weights.tolist(), strict=True)):
        found = work.model.gradients([point.ids], hookpoints, chance, freeze=FROZEN[method])
        place = len(point.ids) - 1 if point.position is None else point.position
        for name in hookpoints:
            sums[name] = sums[name] + weight * found.gradients[name][0, place].detach().float()
        work.report.progress(done[0] * len(points) + number + 1, done[1] * len(points))
    return {name: value / float(weights.sum()) for name, value in sums.items()}


def estimates(
    everything: ComparedFeatures, rows: Sequence[int], sae: Sae, gradient: Any
) -> np.ndarray[Any, Any]:
    """The estimated specific effects of features of one space."""
    import numpy as np

    features = everything.feature[rows].tolist()
    directions = sae.decoder_rows(features).float().to(gradient.device)
    change = everything.values[rows, 0] - everything.values[rows, 1]
    return np.asarray((directions @ gradient).cpu().numpy().astype(float) * change)
