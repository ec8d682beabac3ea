"""Direct logit attribution: the last token's stream as the sum of what the embedding and every head
and MLP wrote, or as features of a layer and the rest, each read through the final norm as it
stands.

Both sums are complete: with the constant of norm and head they are the outcome itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from .difference import split, streams_of
from .rows import About, TokenAttribution

if TYPE_CHECKING:
    from torch import Tensor

    from toolkit.models import Model
    from toolkit.saes import Sae

    from .outcome import DecisionOutcome

METHOD = "direct"


class DirectReader:
    """Reads parts of one prompt's last stream as what they give to the outcome."""

    def __init__(
        self, model: Model, ids: Sequence[int], outcome: DecisionOutcome, names: Sequence[str]
    ) -> None:
        self.model, self.last = model, f"resid_post.{model.layers - 1}"
        blocks = [
            f"{site}.{layer}"
            for layer in range(model.layers)
            for site in ("attn_z", "attn_out", "mlp_out")
        ]
        wanted = dict.fromkeys(("resid_pre.0", *blocks, *names, self.last))
        captured = streams_of(model, ids, list(wanted))
        self.streams: Mapping[str, Tensor] = {name: rows[-1] for name, rows in captured.items()}
        self.direction, self.constant = outcome.direction(model)

    def values(self, parts: Tensor) -> list[float]:
        """(n, width) -> what each gives."""
        whole = self.streams[self.last].expand_as(parts)
        read = self.model.fold_final_norm(parts, whole).double()
        return [float(value) for value in read @ self.direction.to(read.device)]


def of_writers(about: About, reader: DirectReader, measured: float) -> TokenAttribution:
    """By embedding, head, what attention adds beyond its heads, and MLP."""
    found = TokenAttribution(about, METHOD, "head", None, measured=measured)
    streams, model = reader.streams, reader.model
    found.add("embedding", reader.values(streams["resid_pre.0"][None])[0])
    for layer in range(model.layers):
        heads = model.head_outputs(layer, streams[f"attn_z.{layer}"])
        written = streams[f"attn_out.{layer}"].to(heads.device)
        for head, value in enumerate(reader.values(heads)):
            found.add("head", value, layer=layer, head=head)
        rest, mlp = reader.values(_stacked(written - heads.sum(dim=0), streams[f"mlp_out.{layer}"]))
        found.add("attention_rest", rest, layer=layer)
        found.add("mlp", mlp, layer=layer)
    found.add("constant", reader.constant)
    return found


def of_features(
    about: About, reader: DirectReader, saes: Sequence[tuple[Sae, str]], measured: float, keep: int
) -> Iterator[TokenAttribution]:
    """By features of each layer, the SAE's error, and what later blocks write."""
    for sae, space in saes:
        stream = reader.streams[sae.hookpoint][None]
        parts = split(stream, sae.encode(stream), sae)
        later = reader.streams[reader.last] - stream[0]
        found = TokenAttribution(about, METHOD, "feature", sae.layer, space, measured)
        moved = reader.values(parts.directions * parts.amounts[:, None].float())
        order = sorted(range(len(moved)), key=lambda entry: -abs(moved[entry]))
        for entry in order[:keep]:
            found.add("feature", moved[entry], feature=int(parts.features[entry]))
        if len(order) > keep:
            found.add("other_features", sum(moved[entry] for entry in order[keep:]))
        error, after = reader.values(_stacked(parts.error[0], later))
        found.add("error", error)
        found.add("later_blocks", after)
        found.add("constant", reader.constant)
        yield found


def _stacked(*rows: Tensor) -> Tensor:
    import torch

    return torch.stack([row.float().to(rows[0].device) for row in rows])
