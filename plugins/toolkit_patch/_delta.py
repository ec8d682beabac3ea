"""`patch.delta`: a causal screen of the features that a comparison found.

At the last token of each decision point, feature i is set to the mean of either group: h' = h + (v
- f_i) d_i. What the SAE does not explain stays as it is. Beside it stand the controls: the edit to
its own value (sham), the same change along random features of equal firing rate, the whole stream
replaced by its reconstruction, and that with feature i set to either value.

The effect that counts is *specific*: one group's value against the other's, in the exact
probability of an outcome. Decision points are other units than those on which the features were
found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit.errors import BadInput, DataError, choices, nearest
from toolkit.models import Model
from toolkit.randomness import half
from toolkit.saes import Sae, space_id
from toolkit.work import Rows, Work

from ._candidates import Feature, Known, as_rows, chosen, known, matched
from ._outcomes import OTHER, outcome_matrix, token_sets
from ._params import Delta
from ._verdict import Judge, summaries

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

SHAM_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Point:
    """A distinct prompt, and the (sample, unit) pairs that it stands for."""

    text: str
    ids: tuple[int, ...]
    owners: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Screen:
    """Everything that is the same at every point."""

    model: Model
    saes: Mapping[str, Sae]
    features: Sequence[Feature]
    randoms: Mapping[tuple[str, int], Sequence[int]]
    groups: tuple[str, str]
    matrix: Tensor
    names: Sequence[str]


@dataclass(frozen=True)
class Outcome:
    """What one edit gave at one point: probabilities of the outcomes, and the divergence from the
    unedited distribution.
    """

    chances: np.ndarray[Any, Any]
    kl: float


def patch(work: Work) -> Rows:
    """Rows of `effects` for each point and summed up (sample `*`); a verdict for each feature."""
    points = _points(work)
    screen = _screen(work, points)
    found: dict[tuple[Feature, str], list[Outcome]] = {}
    for done, point in enumerate(points):
        for key, outcome in _at_point(screen, point):
            found.setdefault(key, []).append(outcome)
        work.report.progress(done + 1, len(points))
    _check_sham(screen, points, found)
    judge = Judge(work.params, screen.names, screen.groups, [point.owners for point in points])
    effects, verdicts = summaries(judge, screen.features, found)
    yield "effects", as_rows([*_each(screen, points, found), *effects], "effects")
    yield "features", as_rows(verdicts, "features")


# --- what is screened, and where ------------------------------------------------------------------


def _points(work: Work) -> list[Point]:
    """Distinct prompts of the units that may confirm, in an order drawn by seed."""
    rows = work.inputs.read("samples").select(["sample", "unit", "text", "token_ids"]).to_pylist()
    if work.params.half == "confirm":
        rows = [row for row in rows if half(work.seed, row["unit"]) == "confirm"]
    if not rows:
        raise DataError(
            "half: no decision point is left in the half of the units that confirms. Play more "
            "games, or `half: all`."
        )
    seen: dict[str, int] = {}
    ranked: list[tuple[int, int, dict[str, Any]]] = []
    for row in sorted(
        rows, key=lambda row: float(work.rng("patch.points", row["sample"]).random())
    ):
        ranked.append((seen.setdefault(row["unit"], 0), len(ranked), row))
        seen[row["unit"]] += 1
    kept = [row for _, _, row in sorted(ranked, key=lambda entry: entry[:2])[: work.params.points]]
    prompts: dict[tuple[int, ...], list[dict[str, Any]]] = {}
    for row in kept:
        prompts.setdefault(tuple(row["token_ids"]), []).append(row)
    return [
        Point(same[0]["text"], ids, tuple((row["sample"], row["unit"]) for row in same))
        for ids, same in sorted(prompts.items())
    ]


def _screen(work: Work, points: Sequence[Point]) -> Screen:
    params, model = work.params, work.model
    everything = known(work.inputs, params.between)
    features = chosen(
        everything,
        top=params.top,
        alpha=params.alpha,
        min_abs_d=params.min_abs_d,
        min_count=params.min_count,
    )
    saes = _saes(work, features)
    sets = token_sets(model, params.outcomes, points[0].text, points[0].ids)
    _check_outcome(params)
    vocabulary = model.unembed(_state(model, points[0])[None]).shape[-1]
    return Screen(
        model,
        saes,
        features,
        _randoms(work, everything, features),
        everything.groups,
        outcome_matrix(sets, vocabulary),
        (*sets, OTHER),
    )


def _check_outcome(params: Delta) -> None:
    if params.outcome is not None and params.outcome not in params.outcomes:
        near = nearest(params.outcome, params.outcomes)
        raise BadInput(
            f"outcome: there is no outcome '{params.outcome}'.{near} Outcomes: "
            f"{choices(params.outcomes)}."
        )


def _saes(work: Work, features: Sequence[Feature]) -> dict[str, Sae]:
    """The SAE of each space in use. A feature of another space is refused: its number means nothing
    here.
    """
    there = {space_id(work.model.identity, sae): sae for sae in work.saes}
    for feature in features:
        if feature.space not in there:
            addresses = {
                row["space"]: row["address"] for row in work.inputs.read("spaces").to_pylist()
            }
            raise DataError(
                f"feature {feature.index} belongs to space "
                f"{addresses.get(feature.space, feature.space)}, and no SAE of this stage makes "
                f"that space with {work.model.identity.name}. Patch with the model and SAEs that "
                "the features come from."
            )
        if not there[feature.space].hookpoint.startswith("resid_post."):
            raise DataError(
                f"{there[feature.space].name} reads {there[feature.space].hookpoint}; patch.delta "
                "edits resid_post only."
            )
    return {feature.space: there[feature.space] for feature in features}


def _randoms(
    work: Work, everything: Known, features: Sequence[Feature]
) -> dict[tuple[str, int], list[int]]:
    taken = {(feature.space, feature.index) for feature in features}
    return {
        (feature.space, feature.index): matched(
            feature,
            everything,
            taken,
            work.params.random,
            work.rng("patch.random", feature.space, feature.index),
        )
        for feature in features
    }


def _state(model: Model, point: Point) -> Tensor:
    captured = model.prefix(point.ids).captured
    assert captured is not None
    return captured[model.last_hookpoint()]


# --- one point ------------------------------------------------------------------------------------


def _at_point(screen: Screen, point: Point) -> Iterator[tuple[tuple[Feature, str], Outcome]]:
    """Every arm of every feature at one prompt: the prompt's own work once, then all edits
    together.
    """
    import torch

    model = screen.model
    hookpoints = sorted({sae.hookpoint for sae in screen.saes.values()})
    prefix = model.prefix(point.ids, hookpoints)
    assert prefix.captured is not None
    with torch.inference_mode():
        own = {
            space: _own(sae, prefix.captured[sae.hookpoint]) for space, sae in screen.saes.items()
        }
        edits = [
            edit
            for feature in screen.features
            for edit in _edits(screen, feature, own[feature.space])
        ]
    layers = torch.tensor([screen.saes[feature.space].layer for feature, _, _ in edits])
    states = model.suffix(prefix, layers, torch.stack([row for _, _, row in edits]))
    base = torch.log_softmax(
        model.unembed(prefix.captured[model.last_hookpoint()][None]).double().cpu(), dim=-1
    )
    logp = torch.log_softmax(model.unembed(states).double().cpu(), dim=-1)
    chances, kl = logp.exp() @ screen.matrix, (base.exp() * (base - logp)).sum(-1)
    unedited = (base.exp() @ screen.matrix)[0].numpy()
    for feature in screen.features:
        yield (feature, "base"), Outcome(unedited, 0.0)
    for at, (feature, arm, _) in enumerate(edits):
        yield (feature, arm), Outcome(chances[at].numpy(), float(kl[at]))


@dataclass(frozen=True)
class Own:
    """What an SAE makes of the unedited prompt: its stream in float32, all activations, and the
    stream that they give.
    """

    stream: Tensor
    active: Tensor
    rebuilt: Tensor


def _own(sae: Sae, stream: Tensor) -> Own:
    """All features once for each prompt: the arm `reconstruct` asks for every one, whatever the
    candidates are.
    """
    active = sae.encode(stream.float()[None])
    return Own(stream.float(), active[0], sae.decode(active)[0])


def _edits(screen: Screen, feature: Feature, own: Own) -> Iterator[tuple[Feature, str, Tensor]]:
    """(feature, arm, stream): the edits are made in float32, whatever the model computes in. Of the
    decoder, rows are all it takes.
    """
    import torch

    sae, stream, value = screen.saes[feature.space], own.stream, float(own.active[feature.index])
    row = sae.decoder_rows([feature.index])[0].to(stream)
    yield feature, "sham", stream + (value - value) * row
    for group, wanted in zip(screen.groups, feature.values, strict=True):
        yield feature, f"set:{group}", stream + (wanted - value) * row
        yield feature, f"reconstruct:{group}", own.rebuilt + (wanted - value) * row
    yield feature, "reconstruct", own.rebuilt
    others = screen.randoms[feature.space, feature.index]
    beside = torch.nn.functional.normalize(sae.decoder_rows(others).to(stream), dim=1) * row.norm()
    for number, other in enumerate(beside):
        for group, wanted in zip(screen.groups, feature.values, strict=True):
            yield feature, f"random{number}:{group}", stream + (wanted - value) * other


def _check_sham(
    screen: Screen, points: Sequence[Point], found: Mapping[tuple[Feature, str], Sequence[Outcome]]
) -> None:
    """Setting a feature to the value it has must change nothing: else no other number here means
    anything.
    """
    worst = max(
        float(abs(sham.chances - base.chances).max())
        for feature in screen.features
        for sham, base in zip(found[feature, "sham"], found[feature, "base"], strict=True)
    )
    if worst > SHAM_TOLERANCE:
        raise DataError(
            f"The sham arm changes a probability by {worst:.2g} (at most {SHAM_TOLERANCE:g} "
            f"allowed) over {len(points)} points: {screen.model.identity.name}'s `suffix` does not "
            "agree with its own pass. Its loader is at fault, or its dtype too coarse."
        )


def _each(
    screen: Screen, points: Sequence[Point], found: Mapping[tuple[Feature, str], Sequence[Outcome]]
) -> Iterator[dict[str, Any]]:
    """A row for each point, arm and outcome; random arms are summed up only."""
    for (feature, arm), outcomes in found.items():
        if arm.startswith("random"):
            continue
        for point, outcome, base in zip(points, outcomes, found[feature, "base"], strict=True):
            for sample, _ in point.owners:
                for column, name in enumerate(screen.names):
                    yield {
                        "space": feature.space,
                        "feature": feature.index,
                        "sample": sample,
                        "arm": arm,
                        "outcome": name,
                        "probability": float(outcome.chances[column]),
                        "effect": float(outcome.chances[column] - base.chances[column]),
                        **dict.fromkeys(("low", "high", "p", "q")),
                        "kl": outcome.kl,
                    }
