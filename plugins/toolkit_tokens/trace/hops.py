"""One prompt's hops: gradients through frozen attention and norms, split into the contributions of
positions and features, and an intervention on each.

A hop's gradient is the mean along the straight line from a stream without the lower feature to the
stream as it is, so that a gate which the feature opens counts in full. The strength is the
feature's contribution by that gradient; its parts are the positions where it fires. The `whole` is
the gradient times the stream at the lower layer: the feature, all others, the SAE's error and its
bias add up to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from toolkit.edits import Add, Edit, OnStream, Set, tokens
from toolkit.models import LOGITS, Frozen, Model
from toolkit.saes import FeatureType, Sae
from toolkit.samples.selectors import Selector, SelectorText, selected

if TYPE_CHECKING:
    from torch import Tensor

    from toolkit_tokens.attribute.outcome import DecisionOutcome

INACTIVE = "inactive at this position"
CONFIRMED = "confirmed"
REFUTED = "not confirmed by intervention"
NOTHING = "no strength"
NO_OTHERS = "no other token to take its place"
EMBEDDING = "resid_pre.0"
ROWS = 8
"""Interpolation points in one forward and backward pass."""


@dataclass(frozen=True)
class TraceNode:
    """A feature on the path."""

    address: str
    sae: Sae
    feature: int

    @property
    def hookpoint(self) -> str:
        """The hookpoint where it is read and written."""
        return self.sae.hookpoint

    @property
    def feature_type(self) -> FeatureType:
        """The type of the node, as feature graphs name it."""
        return self.sae.feature_type


@dataclass
class Hop:
    """One hop of one prompt."""

    number: int
    upper: str
    lower: str
    position: int | None
    """The position of the upper end."""
    strength: float | None = None
    whole: float | None = None
    effect: float | None = None
    verdict: str = INACTIVE
    parts: list[tuple[str, int | None, float]] = field(default_factory=list)

    def sum_of_parts(self) -> float | None:
        """The sum of all parts: `whole`, up to rounding."""
        return sum(value for _, _, value in self.parts) if self.parts else None


@dataclass(frozen=True)
class _Target:
    """The upper end of a hop: a scalar of the forward pass, and how it is measured under edits."""

    name: str
    position: int | None
    reads: tuple[str, ...]
    objective: Callable[[Mapping[str, Tensor]], Tensor]
    feature: TraceNode | None = None


class PathTracer:
    """Follows a path down through one prompt."""

    def __init__(
        self,
        model: Model,
        nodes: Sequence[TraceNode],
        freeze: Sequence[Frozen],
        min_effect: float,
        steps: int,
    ) -> None:
        self.model, self.nodes, self.steps = model, list(nodes), steps
        self.freeze, self.min_effect = tuple(freeze), min_effect

    def hops(self, sample: Mapping[str, Any], outcome: DecisionOutcome, to: Selector) -> list[Hop]:
        """All hops; the path is not followed beyond an inactive feature."""
        ids = tuple(sample["token_ids"])
        names = list(dict.fromkeys([EMBEDDING, *(node.hookpoint for node in self.nodes)]))
        captured = self.model.run([list(ids)], names)
        streams = {name: captured[name][0, : len(ids)].float().clone() for name in names}
        target = _Target(outcome.name, len(ids) - 1, (LOGITS,), outcome.objective)
        hops = []
        for number, node in enumerate(self.nodes):
            is_first = number == 0
            hop = self._feature_hop(number, ids, streams, target, node, outcome, is_first)
            hops.append(hop)
            if hop.verdict == INACTIVE:
                return hops
            position = _strongest(hop)
            target = _Target(
                node.address, position, (node.hookpoint,), _feature_objective(node, position), node
            )
        positions = selected(to, SelectorText.of(sample), self.model.bos_id)
        hops.append(self._token_hop(len(self.nodes), ids, streams, target, positions, outcome, to))
        return hops

    # --- one hop ---

    def _feature_hop(
        self,
        number: int,
        ids: tuple[int, ...],
        streams: Mapping[str, Tensor],
        target: _Target,
        node: TraceNode,
        outcome: DecisionOutcome,
        at_last: bool,
    ) -> Hop:
        hop = Hop(number, target.name, node.address, target.position)
        stream = streams[node.hookpoint]
        activations = node.sae.encode(stream)
        feature_acts = activations[:, node.feature].float()
        if at_last:  # the decision is read at the last token, so that is where the feature counts
            feature_acts = feature_acts * _one_hot(len(feature_acts), target.position, feature_acts)
        active = [
            position
            for position in feature_acts.nonzero()[:, 0].tolist()
            if not self._is_bos(ids, position)
        ]
        if not active:
            return hop
        direction = node.sae.decoder_rows([node.feature])[0].to(stream.device).double()
        contribution = (feature_acts[active][:, None].double() * direction).float()
        absent = [1 - (step + 0.5) / self.steps for step in range(self.steps)]
        gradient = self._gradient(ids, node.hookpoint, target, active, contribution, absent)
        along = gradient @ direction
        for position in active:
            hop.parts.append(("feature", position, float(along[position] * feature_acts[position])))
        hop.strength = sum(value for _, _, value in hop.parts)
        hop.whole = float((gradient * stream.double()).sum())
        self._add_others(hop, node.sae, stream, activations, gradient)
        edit = Edit(node.hookpoint, OnStream(Add(-contribution)), tokens([0] * len(active), active))
        hop.effect = -self._change(ids, [edit], target, outcome)
        hop.verdict = self._verdict(hop)
        return hop

    def _token_hop(
        self,
        number: int,
        ids: tuple[int, ...],
        streams: Mapping[str, Tensor],
        target: _Target,
        positions: Sequence[int],
        outcome: DecisionOutcome,
        to: Selector,
    ) -> Hop:
        """The contribution of some tokens' embeddings beyond the mean embedding of the prompt's
        other tokens, checked by putting that mean in their place. The gradient is taken at the
        prompt itself, because a half-way embedding would have attention patterns of its own.
        """
        import torch

        hop = Hop(number, target.name, to.span or "tokens", target.position)
        if not positions:
            return hop
        stream = streams[EMBEDDING]
        other_positions = [
            position
            for position in range(len(ids))
            if position not in positions and not self._is_bos(ids, position)
        ]
        if not other_positions:
            hop.verdict = NO_OTHERS
            return hop
        mean = stream[torch.tensor(other_positions)].mean(dim=0)
        contribution = stream[list(positions)] - mean
        gradient = self._gradient(ids, EMBEDDING, target, list(positions), contribution, [0.0])
        of_tokens = (gradient * stream.double()).sum(dim=1)
        of_means = gradient @ mean.double()
        for position in range(len(ids)):
            if position in positions:
                hop.parts.append(
                    ("token", position, float(of_tokens[position] - of_means[position]))
                )
            else:
                hop.parts.append(("other_token", position, float(of_tokens[position])))
        hop.parts.append(("mean_token", None, float(of_means[list(positions)].sum())))
        hop.strength = sum(value for part, _, value in hop.parts if part == "token")
        hop.whole = float(of_tokens.sum())
        targets = tokens([0] * len(positions), list(positions))
        edit = Edit(EMBEDDING, OnStream(Set(mean)), targets)
        hop.effect = -self._change(ids, [edit], target, outcome)
        hop.verdict = self._verdict(hop)
        return hop

    def _add_others(
        self, hop: Hop, sae: Sae, stream: Tensor, activations: Tensor, gradient: Tensor
    ) -> None:
        """Add the other parts of the stream at the lower layer: other features, the error, the
        bias.
        """
        from toolkit_tokens.attribute.difference import split

        parts = split(stream, activations, sae)
        along = (gradient[parts.positions] * parts.directions.double()).sum(dim=1)
        of_features = float((along * parts.amounts.double()).sum())
        rebuilt = sae.reconstruct(stream, activations).to(gradient.device).double()
        error = float((gradient * (stream.double() - rebuilt)).sum())
        unexplained = float((gradient * parts.error.double()).sum())
        hop.parts.append(("other_features", None, of_features - (hop.strength or 0.0)))
        hop.parts.append(("error", None, error))
        hop.parts.append(("bias", None, unexplained - error))

    # --- gradients and interventions ---

    def _gradient(
        self,
        ids: tuple[int, ...],
        name: str,
        target: _Target,
        positions: Sequence[int],
        contribution: Tensor,
        absent: Sequence[float],
    ) -> Tensor:
        """The mean gradient over streams that lack a share of `contribution` (one row per
        position), one stream per share in `absent`: (tokens, width), float64.
        """
        import torch

        total = torch.zeros(
            len(ids), contribution.shape[1], dtype=torch.float64, device=contribution.device
        )
        for start in range(0, len(absent), ROWS):
            shares = absent[start : start + ROWS]
            values = torch.cat([-share * contribution for share in shares])
            rows = [row for row in range(len(shares)) for _ in positions]
            targets = tokens(rows, list(positions) * len(shares))
            result = self.model.gradients(
                [list(ids)] * len(shares),
                [name],
                target.objective,
                reads=target.reads,
                edits=[Edit(name, OnStream(Add(values)), targets)],
                freeze=self.freeze,
            )
            total += result.gradients[name].double().sum(dim=0)
        return total / len(absent)

    def _change(
        self, ids: tuple[int, ...], edits: Sequence[Edit], target: _Target, outcome: DecisionOutcome
    ) -> float:
        """The effect of edits on the upper end, with nothing frozen."""
        values = [self._measure(ids, applied, target, outcome) for applied in ((), edits)]
        return values[1] - values[0]

    def _measure(
        self, ids: tuple[int, ...], edits: Sequence[Edit], target: _Target, outcome: DecisionOutcome
    ) -> float:
        name = self.model.last_hookpoint() if target.feature is None else target.feature.hookpoint
        stream = self.model.run([list(ids)], [name], edits)[name][:, : len(ids)]
        if target.feature is None:
            return float(outcome.of_states(self.model, stream[:, -1])[0])
        return float(target.objective({name: stream})[0])

    def _verdict(self, hop: Hop) -> str:
        strength, effect = hop.strength or 0.0, hop.effect or 0.0
        if abs(effect) < self.min_effect:
            return NOTHING if abs(strength) < self.min_effect else REFUTED
        return CONFIRMED if (strength > 0) == (effect > 0) else REFUTED

    def _is_bos(self, ids: Sequence[int], position: int) -> bool:
        return position == 0 and ids[0] == self.model.bos_id and len(ids) > 1


def _feature_objective(node: TraceNode, position: int) -> Callable[[Mapping[str, Tensor]], Tensor]:
    """The pre-activation of a feature at a position, or its activation where it has none."""

    def objective(captured: Mapping[str, Tensor]) -> Tensor:
        rows = captured[node.hookpoint][:, position].float()
        if node.sae.pointwise:
            preactivations: Tensor = node.sae.preactivations(rows, [node.feature])[:, 0]
            return preactivations
        activations: Tensor = node.sae.encode(rows)[:, node.feature]
        return activations

    return objective


def _one_hot(count: int, position: int | None, template: Tensor) -> Tensor:
    mask = template.new_zeros(count)
    mask[-1 if position is None else position] = 1
    return mask


def _strongest(hop: Hop) -> int:
    """The position where the lower feature contributes most: the upper end of the next hop."""
    sizes = [(abs(value), position) for part, position, value in hop.parts if part == "feature"]
    return int(max(sizes)[1] or 0)
