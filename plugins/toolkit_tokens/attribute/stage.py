"""`attribute.tokens`: what each token, head, block and feature contributes to an outcome, by
several methods side by side, with their completeness and their agreement with exact patching.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit.edits import Edit, OnStream, Set, tokens
from toolkit.errors import BadInput, DataError
from toolkit.features.addresses import locate
from toolkit.saes import Sae, space_id, space_row
from toolkit.tables import arrow_schema
from toolkit.work import Rows, Work

from . import difference, direct, exact, published
from .exact import ExactEffects
from .outcome import DecisionOutcome, Patching, outcome_of
from .pairs import Pair, pairs_of
from .params import OF_PAIRS, Attribute, Method
from .rows import AttributedPair, TokenAttribution, all_rows

if TYPE_CHECKING:
    from torch import Tensor

    from toolkit.models import Model

Sample = Mapping[str, Any]


@dataclass(frozen=True)
class _CapturedSite:
    """An SAE, its space, and the importance that the spec assigns to its features."""

    sae: Sae
    space: str
    importance: Mapping[int, float]


def attribute(work: Work) -> Rows:
    """Rows of `attributions` and `attribution_checks`, and the spaces of the SAEs."""
    import pyarrow as pa

    params: Attribute = work.params
    model, sites = work.model, _sites(work)
    samples = work.inputs.read("samples").to_pylist()
    meta = work.inputs.read("sample_meta").to_pylist()
    pairs = pairs_of(samples, meta, params.pair)
    changed = {pair.changed["sample"] for pair in pairs}
    clean = [row for row in samples if row["sample"] not in changed]
    if not pairs and set(params.methods) <= set(OF_PAIRS):
        raise DataError(
            f"attribute.tokens: no sample names a clean one under the metadata key "
            f"'{params.pair}', and every method asked for compares two prompts. Add changed "
            "prompts (`changes` of source `scenarios`), or another method."
        )
    work.report.phase("compute")
    for number, sample in enumerate(clean, 1):
        alone = _attribute_sample(work, sample, sites)
        of_sample = [pair for pair in pairs if pair.clean["sample"] == sample["sample"]]
        attributions = [
            attribution
            for pair in of_sample
            for attribution in _attribute_pair(work, pair, sites, alone)
        ]
        rows, checks = all_rows(attributions if of_sample else alone)
        yield "attributions", pa.Table.from_pylist(rows, schema=arrow_schema("attributions"))
        schema = arrow_schema("attribution_checks")
        yield "attribution_checks", pa.Table.from_pylist(checks, schema=schema)
        work.report.progress(number, len(clean))
    spaces = [space_row(model.identity, site.sae) for site in sites]
    yield "spaces", pa.Table.from_pylist(spaces, schema=arrow_schema("spaces"))


def _sites(work: Work) -> list[_CapturedSite]:
    """The SAEs, checked to read and rebuild the stream after a block."""
    model, saes = work.model, list(work.saes)
    for sae in saes:
        if not sae.hookpoint.startswith("resid_post.") or sae.output_hookpoint != sae.hookpoint:
            raise BadInput(
                f"attribute.tokens: SAE {sae.name} reads {sae.hookpoint} and rebuilds "
                f"{sae.output_hookpoint}; this stage takes SAEs of the stream after a block "
                "(resid_post)."
            )
    rows = {sae.name: space_row(model.identity, sae) for sae in saes}
    important: dict[str, dict[int, float]] = {}
    for address, factor in work.params.importance.items():
        space, feature = locate(address, rows.values())
        important.setdefault(str(space["space"]), {})[feature] = factor
    spaces = [(sae, space_id(model.identity, sae)) for sae in saes]
    return [_CapturedSite(sae, space, important.get(space, {})) for sae, space in spaces]


# --- one prompt -----------------------------------------------------------------------------------


def _attribute_sample(
    work: Work, sample: Sample, sites: Sequence[_CapturedSite]
) -> list[TokenAttribution]:
    """The attributions that need no second prompt."""
    params: Attribute = work.params
    model: Model = work.model
    ids, outcome = tuple(sample["token_ids"]), outcome_of(work.model, params, sample)
    about = AttributedPair(sample["sample"], "", outcome.name)
    attributions: list[TokenAttribution] = []
    if {"published", "rollout"} & set(params.methods):
        attributions += _published(work, about, ids, sites)
    if {"direct", "gradient_activation"} & set(params.methods):
        patching = Patching(model, ids, outcome)
        if "direct" in params.methods:
            attributions += _direct(work, about, ids, outcome, patching, sites)
        if "gradient_activation" in params.methods:
            attributions += _gradient_activation(work, about, ids, outcome, patching, sites)
    return attributions


def _published(
    work: Work, about: AttributedPair, ids: tuple[int, ...], sites: Sequence[_CapturedSite]
) -> Iterator[TokenAttribution]:
    model: Model = work.model
    layers = sorted({site.sae.layer for site in sites})
    with_rollout = "rollout" in work.params.methods
    attention = published.all_attention(model, ids, max(layers)) if with_rollout else {}
    if with_rollout:
        yield published.rollout(about, [attention[layer] for layer in sorted(attention)], layers)
    if "published" not in work.params.methods:
        return
    if not with_rollout:
        result = model.attention([list(ids)], [[len(ids) - 1]], layers)
        attention = {layer: result.weights[layer][0] for layer in layers}
    streams = difference.streams_of(model, ids, [site.sae.hookpoint for site in sites])
    for site in sites:
        features = site.sae.encode(streams[site.sae.hookpoint])
        features[0] = 0 if model.bos_id is not None and ids[0] == model.bos_id else features[0]
        yield from published.published(
            about,
            attention[site.sae.layer][-1],
            features,
            site.sae,
            site.space,
            site.importance,
        )


def _direct(
    work: Work,
    about: AttributedPair,
    ids: tuple[int, ...],
    outcome: DecisionOutcome,
    patching: Patching,
    sites: Sequence[_CapturedSite],
) -> Iterator[TokenAttribution]:
    names = [site.sae.hookpoint for site in sites]
    reader = direct.DirectReader(work.model, ids, outcome, names)
    yield direct.attribute_writers(about, reader, patching.clean)
    saes = [(site.sae, site.space) for site in sites]
    yield from direct.attribute_features(about, reader, saes, patching.clean, work.params.keep)


def _gradient_activation(
    work: Work,
    about: AttributedPair,
    ids: tuple[int, ...],
    outcome: DecisionOutcome,
    patching: Patching,
    sites: Sequence[_CapturedSite],
) -> Iterator[TokenAttribution]:
    """Gradient times stream, against the outcome without any stream at that layer."""
    names = [site.sae.hookpoint for site in sites]
    streams = difference.streams_of(work.model, ids, names)
    gradients = difference.outcome_gradients(work.model, ids, names, outcome)
    for site in sites:
        name = site.sae.hookpoint
        stream = streams[name]
        parts = difference.split(stream, site.sae.encode(stream), site.sae)
        measured = -difference.effect_of_zeroing(patching, name, stream.shape[1])
        yield from difference.attribute_features(
            about,
            "gradient_activation",
            site.sae,
            site.space,
            parts,
            gradients[name],
            measured,
            work.params.keep,
            by_size=True,
        )


# --- two prompts ----------------------------------------------------------------------------------


def _attribute_pair(
    work: Work, pair: Pair, sites: Sequence[_CapturedSite], alone: Sequence[TokenAttribution]
) -> list[TokenAttribution]:
    """The attributions of the change and, compared with the same exact patching, those of the clean
    prompt alone.
    """
    params: Attribute = work.params
    outcome = outcome_of(work.model, params, pair.clean)
    about = AttributedPair(pair.clean["sample"], pair.changed["sample"], outcome.name)
    patching = Patching(work.model, tuple(pair.clean["token_ids"]), outcome)
    attributions = [attribution.with_exact(about) for attribution in alone]
    effects = ExactEffects()
    gradients = _gradients(work, pair, sites, outcome)
    streams = _streams(work.model, pair, sites)
    for site in sites:
        clean, changed = (side[site.sae.hookpoint] for side in streams)
        activation_delta = site.sae.encode(changed) - site.sae.encode(clean)
        parts = difference.split(changed - clean, activation_delta, site.sae)
        attributions += _attribute_site(work, about, site, parts, clean, patching, gradients)
        if params.exact:
            of_space = [
                attribution for attribution in attributions if attribution.space == site.space
            ]
            effects.sites[site.space] = exact.patch_site(
                patching, site.sae.hookpoint, parts, of_space, params.exact_features
            )
    layers = _head_layers(work, sites)
    heads = _head_count(work.model, pair, layers)
    if "attribution_patching" in params.methods:
        ids = tuple(pair.clean["token_ids"]), tuple(pair.changed["token_ids"])
        common = (ids, pair.positions)
        attributions += difference.attribute_heads(
            about, work.model, patching, outcome, *common, layers, heads
        )
        attributions += difference.attribute_blocks(about, work.model, outcome, *common)
    if params.exact:
        if "rollout" in params.methods:
            effects.inputs = exact.patch_inputs(work.model, patching, pair)
        if {"attribution_patching", "direct"} & set(params.methods):
            effects.heads = exact.patch_heads(work.model, patching, pair, layers, heads)
            effects.blocks = exact.patch_blocks(work.model, patching, pair)
        effects.fill(attributions)
    return attributions


def _gradients(
    work: Work, pair: Pair, sites: Sequence[_CapturedSite], outcome: DecisionOutcome
) -> Mapping[Method, Mapping[str, Tensor]]:
    """By method, the gradient of the clean prompt at each hookpoint."""
    ids, names = tuple(pair.clean["token_ids"]), [site.sae.hookpoint for site in sites]
    return {
        method: difference.outcome_gradients(
            work.model, ids, names, outcome, difference.FROZEN.get(method, ())
        )
        for method in work.params.methods
        if method in OF_PAIRS and method != "integrated_gradients"
    }


def _streams(
    model: Model, pair: Pair, sites: Sequence[_CapturedSite]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The streams of the clean prompt, and those of the changed one at its tokens."""
    names = [site.sae.hookpoint for site in sites]
    clean, changed = (
        difference.streams_of(model, tuple(sample["token_ids"]), names)
        for sample in (pair.clean, pair.changed)
    )
    return clean, {name: rows[list(pair.positions)] for name, rows in changed.items()}


def _attribute_site(
    work: Work,
    about: AttributedPair,
    site: _CapturedSite,
    parts: difference.Split,
    clean: Tensor,
    patching: Patching,
    gradients: Mapping[Method, Mapping[str, Tensor]],
) -> Iterator[TokenAttribution]:
    """The methods of a pair at one SAE. `parts` is the difference of the two streams there."""
    params: Attribute = work.params
    name, count = site.sae.hookpoint, len(clean)
    edit = Edit(name, OnStream(Set(clean + parts.stream)), tokens([0] * count, range(count)))
    measured = patching.change([edit])
    for method in (method for method in params.methods if method in OF_PAIRS):
        gradient = (
            difference.mean_gradient(
                work.model, patching.ids, name, patching.outcome, clean, parts.stream, params.steps
            )
            if method == "integrated_gradients"
            else gradients[method][name]
        )
        yield from difference.attribute_features(
            about, method, site.sae, site.space, parts, gradient, measured, params.keep
        )


def _head_layers(work: Work, sites: Sequence[_CapturedSite]) -> list[int]:
    """The layers whose heads are attributed and patched."""
    if work.params.heads == "all":
        return list(range(work.model.layers))
    return sorted({site.sae.layer for site in sites})


def _head_count(model: Model, pair: Pair, layers: Sequence[int]) -> int:
    ids = list(pair.clean["token_ids"])
    return int(model.attention([ids], [[len(ids) - 1]], layers[:1]).weights[layers[0]][0].shape[1])
