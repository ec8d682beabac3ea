"""The attributions of the published token study, for comparison: attention times magnitude, head by
head, and rollout.

The study's formula is importance = A * |f|, normalised to sum 1, with A the attention that the last
token pays (its code took the last *column*, the attention that tokens pay to the last one: 0 except
for itself). None of these adds up to a measured change, so they have no measured total; with exact
patching of the same tokens and features they are compared by size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .rows import AttributedPair, TokenAttribution

if TYPE_CHECKING:
    from torch import Tensor

    from toolkit.models import Model
    from toolkit.saes import Sae


def published(
    about: AttributedPair,
    attention: Tensor,
    features: Tensor,
    sae: Sae,
    space: str,
    importance: Mapping[int, float],
) -> Iterator[TokenAttribution]:
    """The published attributions. `attention`: the last token's, (heads, tokens); `features`:
    (tokens, width)."""
    magnitude = features.norm(dim=1).double().cpu()
    weights = attention.double().cpu()
    site = (sae.layer, space)
    mean = TokenAttribution(about, "attention_magnitude", "token", *site, by_size=True)
    attended = weights.mean(dim=0)
    shares = attended * magnitude
    total = float(shares.sum()) or 1.0
    for position, value in enumerate(shares.tolist()):
        factors = {"attention": float(attended[position]), "norm": float(magnitude[position])}
        mean.add("token", value / total, position=position, **factors)
    yield mean
    by_head = TokenAttribution(about, "attention_magnitude_by_head", "token", *site, by_size=True)
    for head, row in enumerate((weights * magnitude).tolist()):
        head_total = sum(row) or 1.0
        for position, value in enumerate(row):
            by_head.add("token_by_head", value / head_total, position=position, head=head)
    yield by_head
    if importance:
        named = TokenAttribution(
            about, "attention_activation_importance", "feature", *site, by_size=True
        )
        for feature, factor in importance.items():
            values = attended * features[:, feature].double().cpu() * factor
            for position, value in enumerate(values.tolist()):
                named.add("feature", value, position=position, feature=feature)
        yield named


def rollout(
    about: AttributedPair, attention: Sequence[Tensor], layers: Sequence[int]
) -> TokenAttribution:
    """Attention from the last token down through all layers, half of each step staying in the
    residual stream. `attention`: by layer from 0, (tokens, heads, tokens).
    """
    import torch

    attribution = TokenAttribution(about, "rollout", "token", max(layers), by_size=True)
    tokens = attention[0].shape[0]
    flow = torch.zeros(tokens, dtype=torch.float64)
    flow[-1] = 1.0
    for weights in reversed([attention[layer] for layer in range(max(layers) + 1)]):
        mean = weights.double().cpu().mean(dim=1)
        flow = 0.5 * flow + 0.5 * flow @ mean
    for position, value in enumerate(flow.tolist()):
        attribution.add("token", value, position=position)
    return attribution


def all_attention(model: Model, ids: Sequence[int], last_layer: int) -> dict[int, Any]:
    """The attention of every query of a prompt, for every layer up to `last_layer`."""
    layers = list(range(last_layer + 1))
    result = model.attention([list(ids)], [list(range(len(ids)))], layers)
    return {layer: result.weights[layer][0] for layer in layers}
