"""Exact patching: what each token, feature, head and block of the changed prompt does to the
outcome when it is put alone into the clean one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from toolkit.edits import Add, Edit, OnStream, Set, tokens

from .difference import Split, streams_of
from .rows import BLOCK_SITES, TokenAttribution

if TYPE_CHECKING:
    from torch import Tensor

    from toolkit.models import Model

    from .outcome import Patching
    from .pairs import Pair

INPUT = "resid_pre.0"
WRITERS = {"mlp": "mlp_out", **{site: site for site in BLOCK_SITES}}
"""Parts that are the output of a block, and its site."""
FeatureAt = tuple[int, int]
"""A position and a feature."""


@dataclass(frozen=True)
class SiteEffects:
    """The effects at one SAE: of each token, and of the features that were patched. `differing`:
    where the two prompts differ; any other feature has no effect.
    """

    tokens: Sequence[float]
    features: Mapping[FeatureAt, float]
    differing: Collection[FeatureAt]

    def of_feature(self, key: FeatureAt) -> float | None:
        """The effect of a feature at a position; None if it was not patched."""
        return self.features.get(key) if key in self.differing else 0.0


@dataclass
class ExactEffects:
    """The effects of patching parts of one pair. `sites` are by space; `inputs` has the effect of
    each input token.
    """

    sites: dict[str, SiteEffects] = field(default_factory=dict)
    inputs: Sequence[float] = ()
    heads: Mapping[tuple[int, int], float] = field(default_factory=dict)
    blocks: Mapping[tuple[str, int], float] = field(default_factory=dict)

    def of(self, row: Mapping[str, Any]) -> float | None:
        """The effect of the part of a row of `attributions`; None if it was not patched."""
        part, space, layer = row["part"], row["space"], row["layer"]
        if part == "head":
            return self.heads.get((layer, row["head"]))
        if part in WRITERS:
            return self.blocks.get((WRITERS[part], layer))
        if part in ("token", "token_by_head"):
            effects = self.inputs if space is None else self.sites[space].tokens
            return effects[row["position"]] if effects else None
        if part == "feature":
            return self.sites[space].of_feature((row["position"], row["feature"]))
        return None

    def fill(self, attributions: Sequence[TokenAttribution]) -> None:
        """Add the measured effect of each part to its value."""
        for attribution in attributions:
            for row in attribution.rows:
                row["exact"] = self.of(row)


def patch_site(
    patching: Patching,
    name: str,
    difference: Split,
    attributions: Sequence[TokenAttribution],
    limit: int,
) -> SiteEffects:
    """Patch each token, and the features that the attributions of this SAE find largest."""
    differing = set(zip(difference.positions.tolist(), difference.features.tolist(), strict=True))
    largest = _largest(attributions, differing, limit)
    return SiteEffects(
        _tokens(patching, name, difference.stream),
        _features(patching, name, difference, largest),
        differing,
    )


def _largest(
    attributions: Sequence[TokenAttribution], differing: Collection[FeatureAt], limit: int
) -> list[FeatureAt]:
    """The features that differ and have the largest shares of the largest part of any method."""
    shares: dict[FeatureAt, float] = {}
    for attribution in attributions:
        sizes = {
            (row["position"], row["feature"]): abs(row["value"])
            for row in attribution.rows
            if row["part"] == "feature"
        }
        peak = max(sizes.values(), default=0.0) or 1.0
        for key in sizes.keys() & differing:
            shares[key] = max(shares.get(key, 0.0), sizes[key] / peak)
    return sorted(shares, key=lambda key: (-shares[key], key))[:limit]


def patch_inputs(model: Model, patching: Patching, pair: Pair) -> list[float]:
    """The effect of each input token's embedding. Equal tokens have none, and are not patched."""
    clean, changed = (
        streams_of(model, sample["token_ids"], [INPUT])[INPUT]
        for sample in (pair.clean, pair.changed)
    )
    delta = changed[list(pair.positions)] - clean
    positions = delta.abs().sum(dim=1).nonzero()[:, 0].tolist()
    effects = [0.0] * len(clean)
    if positions:
        targets = tokens(range(len(positions)), positions)
        edit = Edit(INPUT, OnStream(Add(delta[positions])), targets)
        outcomes = patching.values([edit], len(positions)).tolist()
        for position, value in zip(positions, outcomes, strict=True):
            effects[position] = value - patching.clean
    return effects


def _tokens(patching: Patching, name: str, delta: Tensor) -> list[float]:
    """The effect of each token's difference alone."""
    count = len(delta)
    edit = Edit(name, OnStream(Add(delta)), tokens(range(count), range(count)))
    return [float(value) - patching.clean for value in patching.values([edit], count)]


def _features(
    patching: Patching, name: str, difference: Split, chosen: Sequence[FeatureAt]
) -> dict[FeatureAt, float]:
    """The effect of each feature alone; the error and all other features stay."""
    import torch

    if not chosen:
        return {}
    pairs = zip(difference.positions.tolist(), difference.features.tolist(), strict=True)
    entry_of = {pair: number for number, pair in enumerate(pairs)}
    entries = torch.tensor([entry_of[key] for key in chosen])
    entries = entries.to(difference.directions.device)
    moves = difference.directions[entries] * difference.amounts[entries][:, None].float()
    targets = tokens(range(len(chosen)), [position for position, _ in chosen])
    outcomes = patching.values([Edit(name, OnStream(Add(moves)), targets)], len(chosen))
    changes = [float(value) - patching.clean for value in outcomes]
    return dict(zip(chosen, changes, strict=True))


def patch_heads(
    model: Model, patching: Patching, pair: Pair, layers: Sequence[int], heads: int
) -> dict[tuple[int, int], float]:
    """The effect of what each head of these layers writes, at all tokens together."""
    names = [f"attn_z.{layer}" for layer in layers]
    clean, changed = _aligned(model, pair, names)
    effects = {}
    for layer, name in zip(layers, names, strict=True):
        size = clean[name].shape[1] // heads
        for head in range(heads):
            columns = (head * size, (head + 1) * size)
            patched = changed[name][:, slice(*columns)]
            targets = tokens([0] * len(patched), range(len(patched)))
            edit = Edit(name, OnStream(Set(patched), columns), targets)
            effects[layer, head] = patching.change([edit])
    return effects


def patch_blocks(model: Model, patching: Patching, pair: Pair) -> dict[tuple[str, int], float]:
    """The effect of what attention and MLP of each block write, at all tokens together."""
    sites = [(site, layer) for layer in range(model.layers) for site in BLOCK_SITES]
    names = {key: f"{key[0]}.{key[1]}" for key in sites}
    clean, changed = _aligned(model, pair, list(names.values()))
    effects = {}
    for key, name in names.items():
        delta = changed[name] - clean[name]
        targets = tokens([0] * len(delta), range(len(delta)))
        effects[key] = patching.change([Edit(name, OnStream(Add(delta)), targets)])
    return effects


def _aligned(
    model: Model, pair: Pair, names: Sequence[str]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The streams of the clean prompt, and those of the changed one at its tokens."""
    clean = streams_of(model, pair.clean["token_ids"], names)
    changed = streams_of(model, pair.changed["token_ids"], names)
    return clean, {name: rows[list(pair.positions)] for name, rows in changed.items()}
