"""Direct logit attribution: the last token's stream as the sum of what the embedding and every head
and MLP wrote, or as features of a layer and a remainder, each read through the final norm with its
scale frozen.

Both sums are complete: with the constant of norm and head they equal the outcome.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from .difference import split, streams_of
from .rows import AttributedPair, TokenAttribution

if TYPE_CHECKING:
    from torch import Tensor

    from toolkit.models import Model
    from toolkit.saes import Sae

    from .outcome import DecisionOutcome

METHOD = "direct"


class DirectReader:
    """Reads what parts of a prompt's last stream contribute to the outcome."""

    def __init__(
        self, model: Model, ids: Sequence[int], outcome: DecisionOutcome, names: Sequence[str]
    ) -> None:
        self.model, self.last = model, f"resid_post.{model.layers - 1}"
        blocks = [
            f"{site}.{layer}"
            for layer in range(model.layers)
            for site in ("attn_z", "attn_out", "mlp_out")
        ]
        captured_names = dict.fromkeys(("resid_pre.0", *blocks, *names, self.last))
        captured = streams_of(model, ids, list(captured_names))
        self.streams: Mapping[str, Tensor] = {name: rows[-1] for name, rows in captured.items()}
        self.position = len(ids) - 1
        self.direction, self.constant = outcome.direction(model)

    def values(self, parts: Tensor) -> list[float]:
        """The contribution of each row of `parts`, (n, width)."""
        last_stream = self.streams[self.last].expand_as(parts)
        normed = self.model.fold_final_norm(parts, last_stream).double()
        return [float(value) for value in normed @ self.direction.to(normed.device)]


def attribute_writers(
    about: AttributedPair, reader: DirectReader, measured: float
) -> TokenAttribution:
    """The attribution by embedding, head, what attention adds beyond its heads, and MLP."""
    attribution = TokenAttribution(about, METHOD, "head", None, measured=measured, by_size=True)
    streams, model = reader.streams, reader.model
    attribution.add("embedding", reader.values(streams["resid_pre.0"][None])[0])
    for layer in range(model.layers):
        heads = model.head_outputs(layer, streams[f"attn_z.{layer}"])
        attention_out = streams[f"attn_out.{layer}"].to(heads.device)
        for head, value in enumerate(reader.values(heads)):
            attribution.add("head", value, layer=layer, head=head)
        remainder, mlp = reader.values(
            _stacked(attention_out - heads.sum(dim=0), streams[f"mlp_out.{layer}"])
        )
        attribution.add("attention_rest", remainder, layer=layer)
        attribution.add("mlp", mlp, layer=layer)
    attribution.add("constant", reader.constant)
    return attribution


def attribute_features(
    about: AttributedPair,
    reader: DirectReader,
    saes: Sequence[tuple[Sae, str]],
    measured: float,
    keep: int,
) -> Iterator[TokenAttribution]:
    """The attribution by features of each layer, the SAE's error, and what later blocks write."""
    for sae, space in saes:
        stream = reader.streams[sae.hookpoint][None]
        parts = split(stream, sae.encode(stream), sae)
        later = reader.streams[reader.last] - stream[0]
        attribution = TokenAttribution(
            about, METHOD, "feature", sae.layer, space, measured, by_size=True
        )
        contributions = reader.values(parts.directions * parts.amounts[:, None].float())
        order = sorted(range(len(contributions)), key=lambda entry: -abs(contributions[entry]))
        for entry in order[:keep]:
            feature = int(parts.features[entry])
            attribution.add(
                "feature", contributions[entry], position=reader.position, feature=feature
            )
        if len(order) > keep:
            attribution.add("other_features", sum(contributions[entry] for entry in order[keep:]))
        error, after = reader.values(_stacked(parts.error[0], later))
        attribution.add("error", error)
        attribution.add("later_blocks", after)
        attribution.add("constant", reader.constant)
        yield attribution


def _stacked(*rows: Tensor) -> Tensor:
    import torch

    return torch.stack([row.float().to(rows[0].device) for row in rows])
