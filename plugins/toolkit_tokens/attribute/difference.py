"""The difference between two prompts at the output of a block, as tokens and as SAE features, and
in what heads and blocks write: a gradient times the difference.

The part of the difference that the features do not explain, with anything that a decoder adds
beyond their directions, is one term per token: the SAE's error. Tokens, features and error add up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.edits import Edit, OnStream, Set, tokens
from toolkit.errors import BadInput

from .rows import BLOCK_SITES, AttributedPair, TokenAttribution

if TYPE_CHECKING:
    from torch import Tensor

    from toolkit.models import Frozen, Model
    from toolkit.saes import Sae

    from .outcome import DecisionOutcome, Patching

RELP: tuple[Frozen, ...] = ("attention", "norms", "mlp")
FROZEN: Mapping[str, tuple[Frozen, ...]] = {"relp": RELP}


@dataclass(frozen=True)
class Split:
    """A stream, or a difference of two, as features and an error. Entry k is the feature
    `features[k]` at `positions[k]`: it adds `amounts[k]` times `directions[k]`; `error` (tokens,
    width) is what remains.
    """

    stream: Tensor
    positions: Tensor
    features: Tensor
    amounts: Tensor
    directions: Tensor
    error: Tensor

    def values(self, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The contributions of tokens, of entries and of each token's error, float64 on the CPU."""
        slope = gradient.double()
        of_tokens = (slope * self.stream.double()).sum(dim=1)
        along = (slope[self.positions] * self.directions.double()).sum(dim=1)
        of_error = (slope * self.error.double()).sum(dim=1)
        return of_tokens.cpu(), (along * self.amounts.double()).cpu(), of_error.cpu()


def split(stream: Tensor, activations: Tensor, sae: Sae) -> Split:
    """`stream` (tokens, width) as the features of `activations` (tokens, features) and an error."""
    import torch

    entries = activations.nonzero()
    positions, features = entries[:, 0], entries[:, 1]
    amounts = activations[positions, features]
    used, inverse = torch.unique(features, return_inverse=True)
    directions = sae.decoder_rows(used).to(stream.device).float()[inverse]
    explained = torch.zeros_like(stream, dtype=torch.float32)
    explained.index_add_(0, positions, directions * amounts[:, None].float())
    return Split(stream, positions, features, amounts, directions, stream.float() - explained)


def streams_of(model: Model, ids: Sequence[int], names: Sequence[str]) -> dict[str, Tensor]:
    """One prompt's streams, (tokens, width), float32."""
    captured = model.run([list(ids)], list(names))
    return {name: captured[name][0, : len(ids)].float().clone() for name in names}


def outcome_gradients(
    model: Model,
    ids: Sequence[int],
    names: Sequence[str],
    outcome: DecisionOutcome,
    freeze: Sequence[Frozen] = (),
) -> dict[str, Tensor]:
    """The gradient of the outcome at hookpoints, (tokens, width)."""
    result = model.gradients([list(ids)], list(names), outcome.objective, freeze=freeze)
    return {name: result.gradients[name][0].float() for name in names}


def mean_gradient(
    model: Model,
    ids: Sequence[int],
    name: str,
    outcome: DecisionOutcome,
    clean: Tensor,
    delta: Tensor,
    steps: int,
) -> Tensor:
    """The mean gradient on the straight line from the clean stream to the changed one."""
    import torch

    count, total = len(ids), torch.zeros_like(clean)
    for step in range(steps):
        values = clean + (step + 0.5) / steps * delta
        edit = Edit(name, OnStream(Set(values)), tokens([0] * count, range(count)))
        result = model.gradients([list(ids)], [name], outcome.objective, edits=[edit])
        total += result.gradients[name][0].float()
    return total / steps


def attribute_features(
    about: AttributedPair,
    method: str,
    sae: Sae,
    space: str,
    parts: Split,
    gradient: Tensor,
    measured: float,
    keep: int,
    by_size: bool = False,
) -> tuple[TokenAttribution, TokenAttribution]:
    """The attribution by tokens, and by features with the error and the sum of the others."""
    of_tokens, of_entries, of_error = parts.values(gradient)
    site = (sae.layer, space, measured)
    by_token = TokenAttribution(about, method, "token", *site, by_size=by_size)
    for position, value in enumerate(of_tokens.tolist()):
        by_token.add("token", value, position=position)
    by_feature = TokenAttribution(about, method, "feature", *site, by_size=by_size)
    order = of_entries.abs().argsort(descending=True, stable=True).tolist()
    for entry in order[:keep]:
        location = {
            "position": int(parts.positions[entry]),
            "feature": int(parts.features[entry]),
        }
        by_feature.add("feature", float(of_entries[entry]), **location)
    if len(order) > keep:
        by_feature.add("other_features", float(of_entries[order[keep:]].sum()))
    for position, value in enumerate(of_error.tolist()):
        by_feature.add("error", value, position=position)
    return by_token, by_feature


# --- blocks and heads -----------------------------------------------------------------------------


def attribute_heads(
    about: AttributedPair,
    model: Model,
    patching: Patching,
    outcome: DecisionOutcome,
    ids: tuple[Sequence[int], Sequence[int]],
    positions: Sequence[int],
    layers: Sequence[int],
    heads: int,
) -> list[TokenAttribution]:
    """The effect of the difference that each head writes, and that of all heads of its layer
    together.
    """
    names = [f"attn_z.{layer}" for layer in layers]
    clean, changed = (streams_of(model, side, names) for side in ids)
    gradients = outcome_gradients(model, ids[0], names, outcome)
    attributions = []
    for layer, name in zip(layers, names, strict=True):
        patched = changed[name][list(positions)]
        delta = patched - clean[name]
        by_head = (gradients[name].double() * delta.double()).sum(dim=0).reshape(heads, -1)
        together = Edit(name, OnStream(Set(patched)), tokens([0] * len(delta), range(len(delta))))
        measured = patching.change([together])
        attribution = TokenAttribution(
            about, "attribution_patching", "head", layer, measured=measured
        )
        for head, value in enumerate(by_head.sum(dim=1).tolist()):
            attribution.add("head", value, head=head)
        attributions.append(attribution)
    return attributions


def attribute_blocks(
    about: AttributedPair,
    model: Model,
    outcome: DecisionOutcome,
    ids: tuple[Sequence[int], Sequence[int]],
    positions: Sequence[int],
) -> list[TokenAttribution]:
    """The effect of the difference that attention and MLP of each block write. Parts overlap: a
    later block also carries what an earlier one changed.
    """
    names = [f"{site}.{layer}" for layer in range(model.layers) for site in BLOCK_SITES]
    clean, changed = (streams_of(model, side, names) for side in ids)
    try:
        gradients = outcome_gradients(model, ids[0], names, outcome)
    except BadInput:  # the model scales its branches: no gradient
        return []
    attributions = []
    for site in BLOCK_SITES:
        attribution = TokenAttribution(about, "attribution_patching", site, None)
        for layer in range(model.layers):
            name = f"{site}.{layer}"
            delta = changed[name][list(positions)] - clean[name]
            value = float((gradients[name].double() * delta.double()).sum())
            attribution.add(site, value, layer=layer)
        attributions.append(attribution)
    return attributions


def effect_of_zeroing(patching: Patching, name: str, width: int) -> float:
    """The change of the outcome when the stream after a block is set to zero."""
    import torch

    count = len(patching.ids)
    targets = tokens([0] * count, range(count))
    return patching.change([Edit(name, OnStream(Set(torch.zeros(width))), targets)])
