"""`attribute.tokens`: what each token, head, block and feature gives to an outcome, by several
methods side by side, with their completeness and their agreement with exact patching.
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
    from toolkit.models import Model

Sample = Mapping[str, Any]


@dataclass(frozen=True)
class _Place:
    """An SAE, its space, and the importance that a spec gives to features of it."""

    sae: Sae
    space: str
    importance: Mapping[int, float]


def attribute(work: Work) -> Rows:
    """Rows of `attributions` and `attribution_checks`, and the spaces of the SAEs."""
    import pyarrow as pa

    params: Attribute = work.params
    model, places = work.model, _places(work)
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
    for done, sample in enumerate(clean, 1):
        found = _of_sample(work, sample, places)
        for pair in (pair for pair in pairs if pair.clean["sample"] == sample["sample"]):
            found += _of_pair(work, pair, places)
        rows, checks = all_rows(found)
        yield "attributions", pa.Table.from_pylist(rows, schema=arrow_schema("attributions"))
        schema = arrow_schema("attribution_checks")
        yield "attribution_checks", pa.Table.from_pylist(checks, schema=schema)
        work.report.progress(done, len(clean))
    spaces = [space_row(model.identity, place.sae) for place in places]
    yield "spaces", pa.Table.from_pylist(spaces, schema=arrow_schema("spaces"))


def _places(work: Work) -> list[_Place]:
    """The SAEs, which have to read and rebuild the stream after a block."""
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
    return [_Place(sae, space, important.get(space, {})) for sae, space in spaces]


# --- one prompt -----------------------------------------------------------------------------------


def _of_sample(work: Work, sample: Sample, places: Sequence[_Place]) -> list[TokenAttribution]:
    """What needs no second prompt."""
    params: Attribute = work.params
    model: Model = work.model
    ids, outcome = tuple(sample["token_ids"]), outcome_of(work.model, params, sample)
    about = About(sample["sample"], "", outcome.name)
    found: list[TokenAttribution] = []
    if {"published", "rollout"} & set(params.methods):
        found += _published(work, about, ids, places)
    if {"direct", "gradient_activation"} & set(params.methods):
        patching = Patching(model, ids, outcome)
        if "direct" in params.methods:
            found += _direct(work, about, ids, outcome, patching, places)
        if "gradient_activation" in params.methods:
            found += _gradient_activation(work, about, ids, outcome, patching, places)
    return found


def _published(
    work: Work, about: About, ids: tuple[int, ...], places: Sequence[_Place]
) -> Iterator[TokenAttribution]:
    model: Model = work.model
    layers = sorted({place.sae.layer for place in places})
    is_whole = "rollout" in work.params.methods
    shown = published.all_attention(model, ids, max(layers)) if is_whole else {}
    if is_whole:
        yield published.rollout(about, [shown[layer] for layer in sorted(shown)], layers)
    if "published" not in work.params.methods:
        return
    if not is_whole:
        last = model.attention([list(ids)], [[len(ids) - 1]], layers)
        shown = {layer: last.weights[layer][0] for layer in layers}
    streams = difference.streams_of(model, ids, [place.sae.hookpoint for place in places])
    for place in places:
        features = place.sae.encode(streams[place.sae.hookpoint])
        features[0] = 0 if model.bos_id is not None and ids[0] == model.bos_id else features[0]
        yield from published.published(
            about,
            shown[place.sae.layer][-1],
            features,
            place.sae,
            place.space,
            place.importance,
        )


def _direct(
    work: Work,
    about: About,
    ids: tuple[int, ...],
    outcome: DecisionOutcome,
    patching: Patching,
    places: Sequence[_Place],
) -> Iterator[TokenAttribution]:
    names = [place.sae.hookpoint for place in places]
    reader = direct.DirectReader(work.model, ids, outcome, names)
    yield direct.of_writers(about, reader, patching.clean)
    saes = [(place.sae, place.space) for place in places]
    yield from direct.of_features(about, reader, saes, patching.clean, work.params.keep)


def _gradient_activation(
    work: Work,
    about: About,
    ids: tuple[int, ...],
    outcome: DecisionOutcome,
    patching: Patching,
    places: Sequence[_Place],
) -> Iterator[TokenAttribution]:
    """Gradient times stream, against the outcome without any stream at that layer."""
    names = [place.sae.hookpoint for place in places]
    streams = difference.streams_of(work.model, ids, names)
    gradients = difference.slope(work.model, ids, names, outcome)
    for place in places:
        name = place.sae.hookpoint
        stream = streams[name]
        parts = difference.split(stream, place.sae.encode(stream), place.sae)
        measured = -difference.zeroed(patching, name, stream.shape[1])
        yield from difference.features_of(
            about,
            "gradient_activation",
            place.sae,
            place.space,
            parts,
            gradients[name],
            measured,
            work.params.keep,
        )


# --- two prompts ----------------------------------------------------------------------------------


def _of_pair(work: Work, pair: Pair, places: Sequence[_Place]) -> list[TokenAttribution]:
    params: Attribute = work.params
    model: Model = work.model
    methods = [method for method in params.methods if method in OF_PAIRS]
    if not methods:
        return []
    ids = tuple(pair.clean["token_ids"]), tuple(pair.changed["token_ids"])
    outcome = outcome_of(model, params, pair.clean)
    about = About(pair.clean["sample"], pair.changed["sample"], outcome.name)
    patching = Patching(model, ids[0], outcome)
    names = [place.sae.hookpoint for place in places]
    clean, changed = (difference.streams_of(model, side, names) for side in ids)
    slopes = {
        method: difference.slope(model, ids[0], names, outcome, difference.FROZEN.get(method, ()))
        for method in methods
        if method != "integrated_gradients"
    }
    found: list[TokenAttribution] = []
    for place in places:
        name = place.sae.hookpoint
        other = changed[name][list(pair.positions)]
        delta = other - clean[name]
        moved = place.sae.encode(other) - place.sae.encode(clean[name])
        parts = difference.split(delta, moved, place.sae)
        targets = tokens([0] * len(delta), range(len(delta)))
        measured = patching.change([Edit(name, OnStream(Set(other)), targets)])
        at_place: list[TokenAttribution] = []
        for method in methods:
            gradient = (
                difference.mean_slope(
                    model, ids[0], name, outcome, clean[name], delta, params.steps
                )
                if method == "integrated_gradients"
                else slopes[method][name]
            )
            at_place += difference.features_of(
                about, method, place.sae, place.space, parts, gradient, measured, params.keep
            )
        if params.exact:
            difference.check_exactly(patching, name, parts, at_place, params.exact_features)
        found += at_place
    if "attribution_patching" in methods:
        layers = sorted({place.sae.layer for place in places})
        found += _of_heads_and_blocks(work, about, pair, patching, outcome, layers)
    return found


def _of_heads_and_blocks(
    work: Work,
    about: About,
    pair: Pair,
    patching: Patching,
    outcome: DecisionOutcome,
    layers: Sequence[int],
) -> list[TokenAttribution]:
    model: Model = work.model
    ids = tuple(pair.clean["token_ids"]), tuple(pair.changed["token_ids"])
    shown = model.attention([list(ids[0])], [[len(ids[0]) - 1]], layers[:1])
    heads = int(shown.weights[layers[0]][0].shape[1])
    exact = work.params.exact
    common = (about, model, patching, outcome, ids, pair.positions)
    return [
        *difference.of_heads(*common, layers, heads, exact),
        *difference.of_blocks(*common, exact),
    ]
