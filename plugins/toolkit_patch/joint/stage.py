"""`patch.joint`: changes features together that a screen has tried one by one.

The set takes one group's means against the other's, at all layers at once. The effect is compared
with the sum of the single effects, and with random sets, in which each feature's change goes along
the decoder row of another feature of its space. The strongest features are also changed in pairs,
and the whole set is ablated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from toolkit.edits import check_made
from toolkit.features.addresses import prefixes
from toolkit.saes import space_id
from toolkit_patch.screen.arms import check_sites
from toolkit_patch.screen.candidates import ComparedFeatures, read_features
from toolkit_patch.screen.estimates import corrected, estimate
from toolkit_patch.screen.outcomes import read_outcomes
from toolkit_patch.screen.passes import hookpoints_of, read_prompt
from toolkit_patch.screen.points import clusters_of, decision_points, weights_of

from .choice import chosen_features
from .edits import Copy, edits_of

if TYPE_CHECKING:
    import numpy as np

    from toolkit.saes import Sae
    from toolkit.statistics.arrays import Floats
    from toolkit.work import Rows, Work

    from .params import Joint


ALL, ABLATED = "all", "ablated"


@dataclass(frozen=True, eq=False)
class JointSets:
    """The set: its features by space and index, their SAEs and names, the other features of each
    space, and the strongest members.
    """

    features: ComparedFeatures
    saes: Mapping[int, Sae]
    others: Mapping[int, np.ndarray[Any, Any]]
    names: Sequence[str]
    strongest: Sequence[int]


def joint(work: Work) -> Rows:
    """Rows of `joint_effects`; none where fewer than two features qualify."""
    import numpy as np

    params: Joint = work.params
    joint_sets = _choose(work)
    if joint_sets is None:
        work.report.event(
            "warning", text="fewer than two features qualify for a set: none is tested"
        )
        return
    check_sites(work.model, list(joint_sets.saes.values()))
    points = decision_points(work, params.points, params.half)
    outcomes = read_outcomes(work.model, params.outcomes, points[0].text, points[0].ids)
    column = outcomes.names.index(params.about)
    plan = _plan(params, joint_sets)
    chances: dict[Any, list[float]] = {key: [] for key in [*plan, "base"]}
    hookpoints = hookpoints_of(joint_sets.saes.values())
    for number, point in enumerate(points):
        reading = read_prompt(work.model, outcomes, point.ids, hookpoints)
        copies = {**plan, **_random_sets(work, joint_sets, reading)}
        edits = edits_of(
            list(copies.values()), joint_sets.features, joint_sets.saes, len(reading.prefix.ids) - 1
        )
        states = work.model.edited_states(reading.prefix, edits, len(copies))
        check_made(edits, [len(point.ids)] * len(copies))
        probabilities = outcomes.probabilities(work.model.readout(states, outcomes.listed))[
            :, column
        ]
        for key, value in zip(copies, probabilities.tolist(), strict=True):
            chances.setdefault(key, []).append(value)
        chances["base"].append(float(reading.chances[column]))
        work.report.progress(number + 1, len(points))
    arrays = {key: np.array(values) for key, values in chances.items()}
    yield "joint_effects", _Result(work, params, joint_sets, points, arrays).table()


# --- the set --------------------------------------------------------------------------------------


def _choose(work: Work) -> JointSets | None:
    import numpy as np

    params: Joint = work.params
    features, sizes = chosen_features(work, 2)
    if features is None:
        return None
    compared = read_features(work.inputs, params.between, "confirm", work.seed)
    spaces = {row["space"]: row for row in work.inputs.read("spaces").to_pylist()}
    loaded_saes = {space_id(work.model.identity, sae): sae for sae in work.saes}
    saes = {
        space: loaded_saes[compared.spaces[space]] for space in np.unique(features.space).tolist()
    }
    others = {
        space: np.setdiff1d(compared.feature[compared.of_space(space)], features.feature)
        for space in saes
    }
    address_prefixes = prefixes(spaces.values())
    names = [
        f"{address_prefixes[compared.spaces[int(space)]]}{index}"
        for space, index in zip(features.space, features.feature, strict=True)
    ]
    order = np.argsort(-sizes).tolist() if sizes is not None else range(len(features))
    return JointSets(features, saes, others, names, list(order)[: params.pairs])


# --- the copies -----------------------------------------------------------------------------------


def _plan(params: Joint, joint_sets: JointSets) -> dict[Any, Copy]:
    """The copies that are the same at every point, by (members, group)."""
    count, values = len(joint_sets.features), joint_sets.features.values
    groups = [tuple(range(count))]
    groups += [(member,) for member in range(count)]
    groups += list(combinations(sorted(joint_sets.strongest), 2))
    copies: dict[Any, Copy] = {}
    for members in dict.fromkeys(groups):
        for side in (0, 1):
            set_values = tuple(float(values[member, side]) for member in members)
            copies[members, side] = Copy(members, set_values)
    copies[ABLATED] = Copy(groups[0], (0.0,) * count)
    return copies


def _random_sets(work: Work, joint_sets: JointSets, reading: Any) -> dict[Any, Copy]:
    """Copies in which each member's change, taken in the unedited stream, goes along another
    feature's row.
    """
    import torch

    added: dict[Any, dict[str, Any]] = {}
    for space, sae in joint_sets.saes.items():
        members = joint_sets.features.of_space(space)
        indices = joint_sets.features.feature[members].tolist()
        stream = reading.streams[sae.hookpoint][None]
        activations = sae.activations_of(stream, torch.tensor(indices))[0]
        values = torch.from_numpy(joint_sets.features.values[members]).to(activations)
        lengths = sae.decoder_rows(indices).float().norm(dim=1)
        for number in range(work.params.sets):
            rng = work.rng("patch.sets", joint_sets.features.spaces[space], number)
            row_features = rng.choice(joint_sets.others[space], size=len(members))
            rows = torch.nn.functional.normalize(
                sae.decoder_rows(row_features.tolist()).float(), dim=1
            )
            for side in (0, 1):
                change = ((values[:, side] - activations) * lengths)[:, None] * rows
                vectors = added.setdefault(("random", number, side), {})
                vectors[sae.output_hookpoint] = change.sum(0)
    return {key: Copy(added=vectors) for key, vectors in added.items()}


# --- results --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Result:
    """Results at all points, and the table rows made from them."""

    work: Work
    params: Joint
    joint_sets: JointSets
    points: Sequence[Any]
    chances: Mapping[Any, Floats]

    def table(self) -> Any:
        """All rows."""
        import pyarrow as pa

        from toolkit.tables import arrow_schema

        all_members = tuple(range(len(self.joint_sets.features)))
        single = {(member,): self._specific((member,)) for member in all_members}
        rows = self._against_sum(ALL, all_members, self._specific(all_members), single)
        rows.append(
            self._row(ALL, all_members, ABLATED, self.chances[ABLATED] - self.chances["base"])
        )
        self._add_sets(rows[0])
        pairs = []
        for pair in combinations(sorted(self.joint_sets.strongest), 2):
            name = " + ".join(self.joint_sets.names[member] for member in pair)
            pairs += self._against_sum(name, pair, self._specific(pair), single)
        self._correct([row for row in pairs if row["arm"] == "interaction"])
        return pa.Table.from_pylist(rows + pairs, schema=arrow_schema("joint_effects"))

    def _specific(self, members: tuple[int, ...]) -> Floats:
        return self.chances[members, 0] - self.chances[members, 1]

    def _against_sum(
        self, name: str, members: tuple[int, ...], together: Floats, single: Mapping[Any, Floats]
    ) -> list[dict[str, Any]]:
        """Rows of the joint effect, of the sum of the single effects, and of their difference."""
        total = sum(single[member,] for member in members)
        return [
            self._row(name, members, "joint", together),
            self._row(name, members, "sum", total),
            self._row(name, members, "interaction", together - total),
        ]

    def _row(self, name: str, members: Sequence[int], arm: str, values: Any) -> dict[str, Any]:
        clusters, features = clusters_of(self.points), self.joint_sets.features
        rng = self.work.rng("patch.bootstrap")
        mean_effect = estimate(values[None], weights_of(self.points), clusters, rng)
        return {
            "name": name,
            "members": [
                {
                    "space": features.spaces[int(features.space[member])],
                    "feature": int(features.feature[member]),
                }
                for member in members
            ],
            "contrast": features.comparison.name,
            "arm": arm,
            "outcome": self.params.about,
            "effect": float(mean_effect.mean[0]),
            "low": float(mean_effect.low[0]),
            "high": float(mean_effect.high[0]),
            "p": float(mean_effect.p[0]),
            "q": None,
            "sets": 0,
            "beyond": None,
            "p_sets": None,
            "points": len(self.points),
            "clusters": int(clusters.max()) + 1,
        }

    def _add_sets(self, row: dict[str, Any]) -> None:
        """Count the random sets whose joint effect is at least as large."""
        import numpy as np

        weights = weights_of(self.points)
        effects = [
            np.average(
                self.chances["random", number, 0] - self.chances["random", number, 1],
                weights=weights,
            )
            for number in range(self.params.sets)
        ]
        beyond = int((abs(np.array(effects)) >= abs(row["effect"])).sum())
        row |= {"sets": self.params.sets, "beyond": beyond}
        row["p_sets"] = (1 + beyond) / (1 + self.params.sets)

    def _correct(self, rows: Sequence[dict[str, Any]]) -> None:
        import numpy as np

        for row, q in zip(rows, corrected(np.array([row["p"] for row in rows])), strict=True):
            row["q"] = float(q)
