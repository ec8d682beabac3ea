"""`attribute.tokens`: what each token, head, block and feature contributes to an outcome, by
several methods side by side, with their completeness and their agreement with exact patching.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit.addresses import locate
from toolkit.edits import Edit, OnStream, Set, tokens
from toolkit.errors import BadInput, DataError
from toolkit.saes import Sae, space_id, space_row
from toolkit.tables import arrow_schema
from toolkit.work import Rows, Work

from . import difference, direct, published
from .outcome import DecisionOutcome, Patching, outcome_of
from .pairs import Pair, pairs_of
from .params import OF_PAIRS, Attribute
from .rows import About, TokenAttribution, all_rows

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
        attributions = _attribute_sample(work, sample, sites)
        for pair in (pair for pair in pairs if pair.clean["sample"] == sample["sample"]):
            attributions += _attribute_pair(work, pair, sites)
        rows, checks = all_rows(attributions)
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
    about = About(sample["sample"], "", outcome.name)
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
    work: Work, about: About, ids: tuple[int, ...], sites: Sequence[_CapturedSite]
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
    about: About,
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
    about: About,
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
        )


# --- two prompts ----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _ComparedPrompts:
    """A pair after its forward passes: the streams of both prompts, those of the clean one at the
    compared positions, and the outcome's gradients by method and hookpoint.
    """

    about: About
    ids: tuple[int, ...]
    outcome: DecisionOutcome
    patching: Patching
    clean: Mapping[str, Tensor]
    changed: Mapping[str, Tensor]
    gradients: Mapping[str, Mapping[str, Tensor]]


def _attribute_pair(
    work: Work, pair: Pair, sites: Sequence[_CapturedSite]
) -> list[TokenAttribution]:
    methods = [method for method in work.params.methods if method in OF_PAIRS]
    if not methods:
        return []
    compared = _compare_prompts(work, pair, [site.sae.hookpoint for site in sites], methods)
    attributions: list[TokenAttribution] = []
    for site in sites:
        attributions += _attribute_site(work, site, compared, methods)
    if "attribution_patching" in methods:
        layers = sorted({site.sae.layer for site in sites})
        attributions += _attribute_heads_and_blocks(work, pair, compared, layers)
    return attributions


def _compare_prompts(
    work: Work, pair: Pair, names: Sequence[str], methods: Sequence[str]
) -> _ComparedPrompts:
    """Run both prompts, and one backward pass of the clean one for each method that needs it."""
    model: Model = work.model
    ids = tuple(pair.clean["token_ids"])
    outcome = outcome_of(model, work.params, pair.clean)
    changed = difference.streams_of(model, tuple(pair.changed["token_ids"]), names)
    return _ComparedPrompts(
        about=About(pair.clean["sample"], pair.changed["sample"], outcome.name),
        ids=ids,
        outcome=outcome,
        patching=Patching(model, ids, outcome),
        clean=difference.streams_of(model, ids, names),
        changed={name: stream[list(pair.positions)] for name, stream in changed.items()},
        gradients={
            method: difference.outcome_gradients(
                model, ids, names, outcome, difference.FROZEN.get(method, ())
            )
            for method in methods
            if method != "integrated_gradients"
        },
    )


def _attribute_site(
    work: Work, site: _CapturedSite, compared: _ComparedPrompts, methods: Sequence[str]
) -> list[TokenAttribution]:
    """The difference of both prompts at one SAE, by each method."""
    params: Attribute = work.params
    name, patching = site.sae.hookpoint, compared.patching
    clean, changed = compared.clean[name], compared.changed[name]
    delta = changed - clean
    activation_delta = site.sae.encode(changed) - site.sae.encode(clean)
    parts = difference.split(delta, activation_delta, site.sae)
    targets = tokens([0] * len(delta), range(len(delta)))
    measured = patching.change([Edit(name, OnStream(Set(changed)), targets)])
    attributions: list[TokenAttribution] = []
    for method in methods:
        gradient = (
            difference.mean_gradient(
                work.model, compared.ids, name, compared.outcome, clean, delta, params.steps
            )
            if method == "integrated_gradients"
            else compared.gradients[method][name]
        )
        attributions += difference.attribute_features(
            compared.about, method, site.sae, site.space, parts, gradient, measured, params.keep
        )
    if params.exact:
        difference.check_exactly(patching, name, parts, attributions, params.exact_features)
    return attributions


def _attribute_heads_and_blocks(
    work: Work, pair: Pair, compared: _ComparedPrompts, layers: Sequence[int]
) -> list[TokenAttribution]:
    model: Model = work.model
    ids = compared.ids, tuple(pair.changed["token_ids"])
    result = model.attention([list(ids[0])], [[len(ids[0]) - 1]], layers[:1])
    heads = int(result.weights[layers[0]][0].shape[1])
    exact, outcome = work.params.exact, compared.outcome
    common = (compared.about, model, compared.patching, outcome, ids, pair.positions)
    return [
        *difference.attribute_heads(*common, layers, heads, exact),
        *difference.attribute_blocks(*common, exact),
    ]
