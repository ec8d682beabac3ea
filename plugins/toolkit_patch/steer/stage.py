"""`patch.steer`: moves the stream at the last token along an axis by doses, at several layers
together; a later layer sees the edits of earlier ones. Random directions that are moved as far are
the null.

Shapes: D directions (the axis first), S doses, P points.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.edits import Edit, Steer, check_made, tokens
from toolkit.errors import DataError
from toolkit_patch.screen.estimates import estimate, sign_test
from toolkit_patch.screen.outcomes import Outcomes, read_outcomes
from toolkit_patch.screen.passes import read_prompt
from toolkit_patch.screen.points import clusters_of, decision_points, weights_of

from .axis import Axis, make_axis, random_axes

if TYPE_CHECKING:
    from toolkit.models import Model
    from toolkit.statistics.arrays import Floats
    from toolkit.work import Rows, Work

    from .params import Steering as Params


def steer(work: Work) -> Rows:
    """Rows of `doses` for every direction, and of `dose_tests` for the axis."""
    import numpy as np

    params, model = work.params, work.model
    layers = params.chosen_layers(model.layers)
    points = decision_points(work, params.points, params.half)
    outcomes = read_outcomes(model, params.outcomes, points[0].text, points[0].ids)
    axis = make_axis(work, layers)
    axes = [axis, *random_axes(work, axis, params.directions)]
    shape = len(axes), len(params.doses), len(points)
    chances = np.zeros((*shape, len(outcomes.names)))
    base = np.zeros((len(points), len(outcomes.names)))
    kl = np.zeros(shape)
    for number, point in enumerate(points):
        reading = read_prompt(model, outcomes, point.ids, [])
        base[number] = reading.chances
        probabilities, divergences = _steered(model, outcomes, reading, axes, params.doses)
        chances[:, :, number], kl[:, :, number] = probabilities, divergences
        work.report.progress(number + 1, len(points))
    result = _SteeringResults(work, params, layers, outcomes, chances, base, kl, points)
    yield "doses", result.doses()
    yield "dose_tests", result.tests()


def _steered(
    model: Model, outcomes: Outcomes, reading: Any, axes: Sequence[Axis], doses: Sequence[float]
) -> tuple[Floats, Floats]:
    """(D, S, outcomes) probabilities and (D, S) divergences at one point."""
    import torch

    count, last = len(axes) * len(doses), len(reading.prefix.ids) - 1
    strengths = torch.tensor(list(doses)).repeat(len(axes))
    edits = []
    for index, layer in enumerate(axes[0].layers):
        directions = torch.stack([axis.directions[index] for axis in axes])
        operation = Steer(
            directions.repeat_interleave(len(doses), dim=0), strengths * axes[0].spreads[index]
        )
        targets = tokens(range(count), [last] * count)
        edits.append(Edit(f"resid_post.{layer}", operation, targets))
    states = model.edited_states(reading.prefix, edits, count)
    check_made(edits, [last + 1] * count)
    readout = model.readout(states, outcomes.listed, reading.state)
    assert readout.kl is not None
    if len(states) != count:
        raise DataError(f"{count} edits were planned at a decision point, {len(states)} were made.")
    shape = len(axes), len(doses)
    probabilities = outcomes.probabilities(readout).reshape(*shape, -1)
    return probabilities, readout.kl.cpu().numpy().reshape(shape)


class _SteeringResults:
    """Results at all points, and the table rows made from them."""

    def __init__(
        self,
        work: Work,
        params: Params,
        layers: Sequence[int],
        outcomes: Outcomes,
        chances: Floats,
        base: Floats,
        kl: Floats,
        points: Sequence[Any],
    ) -> None:
        self.work, self.params, self.outcomes = work, params, outcomes
        self.chances, self.base, self.kl, self.points = chances, base, kl, points
        self.weights, self.clusters = weights_of(points), clusters_of(points)
        self.labels = {"axis": " vs ".join(params.between), "layers": shown_layers(layers)}

    def doses(self) -> Any:
        """One row per direction, dose and outcome."""
        import pyarrow as pa

        from toolkit.tables import arrow_schema

        rows = [row for column in range(len(self.outcomes.names)) for row in self._doses(column)]
        return pa.Table.from_pylist(rows, schema=arrow_schema("doses"))

    def _doses(self, column: int) -> Iterator[dict[str, Any]]:
        import numpy as np

        shape = self.kl.shape
        values = (self.chances[..., column] - self.base[:, column]).reshape(-1, shape[2])
        effects = estimate(values, self.weights, self.clusters, self.work.rng("patch.bootstrap"))
        means = np.average(self.chances[..., column], axis=2, weights=self.weights)
        kl = np.average(self.kl, axis=2, weights=self.weights)
        for number in range(shape[0]):
            for index, dose in enumerate(self.params.doses):
                row = number * shape[1] + index
                yield {
                    **self.labels,
                    "direction": f"random {number}" if number else "axis",
                    "dose": dose,
                    "outcome": self.outcomes.names[column],
                    "probability": float(means[number, index]),
                    "effect": float(effects.mean[row]),
                    "low": float(effects.low[row]),
                    "high": float(effects.high[row]),
                    "kl": float(kl[number, index]),
                }

    def tests(self) -> Any:
        """One row per outcome."""
        import pyarrow as pa

        from toolkit.tables import arrow_schema

        rows = [self._test(column) for column in range(len(self.outcomes.names))]
        return pa.Table.from_pylist(rows, schema=arrow_schema("dose_tests"))

    def _test(self, column: int) -> dict[str, Any]:
        """The axis' slope over doses against those of random directions, and whether the outcome
        rises or falls all the way.
        """
        import numpy as np
        from scipy.stats import kendalltau

        doses, curves = np.array(self.params.doses), self.chances[..., column]
        centred = doses - doses.mean()
        slopes = np.einsum("dsp,s->dp", curves, centred) / (centred**2).sum()
        rng = self.work.rng("patch.bootstrap")
        slope = estimate(slopes[:1], self.weights, self.clusters, rng)
        taus = np.array([kendalltau(doses, point).statistic for point in curves[0].T])
        taus = np.nan_to_num(taus)
        p_tau = sign_test(taus[None], self.weights, self.clusters)[0]
        means = np.average(slopes, axis=1, weights=self.weights)
        beyond = int((abs(means[1:]) >= abs(means[0])).sum())
        spread = float(means[1:].std(ddof=1))
        steps = np.diff(np.average(curves[0], axis=1, weights=self.weights)[np.argsort(doses)])
        return {
            **self.labels,
            "outcome": self.outcomes.names[column],
            "slope": float(slope.mean[0]),
            "low": float(slope.low[0]),
            "high": float(slope.high[0]),
            "p_units": float(slope.p[0]),
            "directions": len(means) - 1,
            "beyond": beyond,
            "z": float((means[0] - means[1:].mean()) / spread) if spread > 0 else None,
            "p_directions": (1 + beyond) / len(means),
            "monotone": bool((steps > 0).all() or (steps < 0).all()),
            "tau": float(np.average(taus, weights=self.weights)),
            "p_tau": float(p_tau),
            "points": len(self.points),
            "clusters": int(self.clusters.max()) + 1,
        }


def shown_layers(layers: Sequence[int]) -> str:
    """`16-21`, or `3, 5`."""
    first, last = layers[0], layers[-1]
    if len(layers) > 1 and list(layers) == list(range(first, last + 1)):
        return f"{first}-{last}"
    return ", ".join(map(str, layers))
