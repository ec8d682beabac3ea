"""`patch.doses`: sets features with a verdict to doses, at decisions that their screen did not use.

A dose is a multiple of the larger of the two groups' means. Kendall's tau between dose and
probability at each point shows whether the outcome rises or falls with the dose; p is from a sign
test over clusters, q is corrected over the features. The specific effect of the screen is measured
again at these decisions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit.saes import space_id
from toolkit_patch.joint.choice import chosen_features
from toolkit_patch.screen.arms import check_sites
from toolkit_patch.screen.estimates import NOISE, corrected, estimate, sign_test
from toolkit_patch.screen.observed import observed_maxima, warn_out_of_range
from toolkit_patch.screen.outcomes import read_outcomes
from toolkit_patch.screen.passes import EditedStreams, hookpoints_of, push_edits, read_prompt
from toolkit_patch.screen.points import clusters_of, decision_points, weights_of

if TYPE_CHECKING:
    from toolkit.saes import Sae
    from toolkit.statistics.arrays import Floats
    from toolkit.work import Rows, Work
    from toolkit_patch.screen.candidates import ComparedFeatures

    from .params import Doses


def dose(work: Work) -> Rows:
    """Rows of `feature_doses` and `feature_dose_tests`; none where no feature qualifies."""
    import numpy as np

    params: Doses = work.params
    features, _ = chosen_features(work, 1)
    if features is None:
        text = f"no feature has the verdict {' or '.join(params.verdicts)}, so none gets doses"
        work.report.event("warning", text=text)
        return
    loaded_saes = {space_id(work.model.identity, sae): sae for sae in work.saes}
    saes = {
        space: loaded_saes[features.spaces[space]] for space in np.unique(features.space).tolist()
    }
    check_sites(work.model, list(saes.values()))
    values = _values(params, features)
    warn_out_of_range(work, features, values.max(axis=1))
    points = decision_points(work, params.points, params.half)
    outcomes = read_outcomes(work.model, params.outcomes, points[0].text, points[0].ids)
    column = outcomes.names.index(params.about)
    hookpoints = hookpoints_of(saes.values())
    chances, base = np.zeros((*values.shape, len(points))), np.zeros(len(points))
    for number, point in enumerate(points):
        reading = read_prompt(work.model, outcomes, point.ids, hookpoints)
        base[number] = reading.chances[column]
        edited = _streams(features, saes, values, reading)
        pushed = push_edits(work.model, outcomes, reading, list(edited.values()))
        for space, (probabilities, _) in zip(edited, pushed, strict=True):
            members = features.of_space(space)
            curves = probabilities[:, column].reshape(len(members), values.shape[1])
            chances[members, :, number] = curves
        work.report.progress(number + 1, len(points))
    yield from _DoseResults(work, params, features, values, chances, base, points).tables()


def _values(params: Doses, features: ComparedFeatures) -> Floats:
    """(K, doses + 2): the values of all doses, then both groups' means."""
    import numpy as np

    means: Floats = features.values
    scale = means.max(axis=1, keepdims=True)
    return np.concatenate([scale * np.array(params.doses), means], axis=1)


def _streams(
    features: ComparedFeatures, saes: Mapping[int, Sae], values: Floats, reading: Any
) -> dict[int, EditedStreams]:
    """By space, the streams of every feature at every value, features first."""
    import torch

    edited = {}
    for space, sae in saes.items():
        members = features.of_space(space)
        indices = features.feature[members].tolist()
        stream = reading.streams[sae.output_hookpoint]
        read = reading.streams[sae.hookpoint]
        activations = sae.activations_of(read[None], torch.tensor(indices))[0]
        change = torch.from_numpy(values[members]).to(activations) - activations[:, None]
        rows = sae.decoder_rows(indices).float().to(stream)
        streams = stream + change[:, :, None] * rows[:, None]
        edited[space] = EditedStreams(sae.output_hookpoint, streams.reshape(-1, len(stream)))
    return edited


@dataclass(frozen=True, eq=False)
class _DoseResults:
    """Results at all points, and the table rows made from them."""

    work: Work
    params: Doses
    features: ComparedFeatures
    values: Floats
    chances: Floats
    base: Floats
    points: Sequence[Any]

    def tables(self) -> Rows:
        """Both tables."""
        import pyarrow as pa

        from toolkit.tables import arrow_schema

        for name, rows in (("feature_doses", self._doses()), ("feature_dose_tests", self._tests())):
            yield name, pa.Table.from_pylist(list(rows), schema=arrow_schema(name))

    def _key(self, member: int) -> dict[str, Any]:
        return {
            "space": self.features.spaces[int(self.features.space[member])],
            "feature": int(self.features.feature[member]),
            "comparison": self.features.comparison.id,
            "contrast": self.features.comparison.name,
            "outcome": self.params.about,
        }

    def _estimate(self, values: Floats) -> Any:
        rng = self.work.rng("patch.bootstrap")
        return estimate(values, weights_of(self.points), clusters_of(self.points), rng)

    def _doses(self) -> Iterator[dict[str, Any]]:
        import numpy as np

        weights = weights_of(self.points)
        for member in range(len(self.features)):
            curves = self.chances[member, : len(self.params.doses)]
            effects = self._estimate(curves - self.base)
            means = np.average(curves, axis=1, weights=weights)
            for index, dose in enumerate(self.params.doses):
                yield {
                    **self._key(member),
                    "dose": dose,
                    "value": float(self.values[member, index]),
                    "probability": float(means[index]),
                    "effect": float(effects.mean[index]),
                    "low": float(effects.low[index]),
                    "high": float(effects.high[index]),
                }

    def _tests(self) -> list[dict[str, Any]]:
        specific = self._estimate(self.chances[:, -2] - self.chances[:, -1])
        weights, groups = weights_of(self.points), clusters_of(self.points)
        taus = self._taus()
        p_tau = sign_test(taus, weights, groups)
        q_specific, q_tau = corrected(specific.p), corrected(p_tau)
        maxima = observed_maxima(self.work, self.features)
        return [
            {
                **self._key(member),
                "effect": float(specific.mean[member]),
                "low": float(specific.low[member]),
                "high": float(specific.high[member]),
                "p": float(specific.p[member]),
                "q": float(q_specific[member]),
                "tau": float(taus[member] @ weights / weights.sum()),
                "p_tau": float(p_tau[member]),
                "q_tau": float(q_tau[member]),
                "monotone": self._is_monotone(member),
                "observed": None if maxima is None else float(maxima[member]),
                "points": len(self.points),
                "clusters": int(groups.max()) + 1,
            }
            for member in range(len(self.features))
        ]

    def _taus(self) -> Floats:
        """(K, P): Kendall's tau of dose and probability at each point, 0 where nothing moves."""
        import numpy as np
        from scipy.stats import kendalltau

        doses = self.params.doses
        curves = self.chances[:, : len(doses)].round(6)
        taus = [
            [
                kendalltau(doses, curve).statistic if np.ptp(curve) else 0.0
                for curve in feature_curves.T
            ]
            for feature_curves in curves
        ]
        return np.array(taus)

    def _is_monotone(self, member: int) -> bool:
        """Whether the mean probability never falls, or never rises, from one dose to the next, and
        moves at all.
        """
        import numpy as np

        curves = self.chances[member, : len(self.params.doses)][np.argsort(self.params.doses)]
        steps = np.diff(np.average(curves, axis=1, weights=weights_of(self.points)))
        moves = bool(abs(steps).max() > NOISE)
        return moves and bool((steps > -NOISE).all() or (steps < NOISE).all())
