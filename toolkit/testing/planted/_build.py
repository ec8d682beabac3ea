"""Builds a planted model: weights, files, residuals of planted prompts, SAEs over them, and the
truth.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from toolkit.statistics.arrays import Floats
from toolkit.testing.planted import _words as words
from toolkit.testing.planted._files import write_gemma_scope, write_llama_scope
from toolkit.testing.planted._forward import ReferenceModel
from toolkit.testing.planted._model import (
    PlantedDesign,
    make_design,
    make_weights,
    write_model,
)
from toolkit.testing.planted._saes import (
    Dictionary,
    explained_variance,
    make_dictionary,
    mean_l0,
    shuffled,
)
from toolkit.testing.planted._truth import Duplicate, Kind, Planted, PlantedTruth, SaeTruth

N_MEASURED = 120  # prompts on which norms, L0 and explained variance are measured
LLAMA_SCOPE, LOSSY, GEMMA_SCOPE = "Planted-LXR-{}x", "PlantedLossy-LXR-{}x", "planted-scope-res"


@dataclass(frozen=True, eq=False)
class _Site:
    """Residuals after one layer, over the measured prompts."""

    layer: int
    words: Floats  # without BOS
    all: Floats  # with it


@dataclass(frozen=True)
class _DictionaryMeasurements:
    """Measurements of a dictionary on the measured prompts; fields as in SaeTruth. BOS is the same
    in every prompt.
    """

    l0: float
    explained_variance: float
    l0_bos: float
    explained_variance_with_bos: float


def build_planted(
    folder: Path,
    *,
    seed: int = 0,
    d_model: int = 48,
    n_layers: int = 4,
    expansion: int = 8,
    effect: float = 3.0,
    shield_effect: float = 1.8,
    drift_effect: float = 1.0,
    bos_ratio: float = 80.0,
    pair_effect: float = 0.0,
    lossy_layer: int = 1,
) -> Planted:
    """Write a planted model and its SAEs below `folder` and return their paths and the truth about
    them.

    Effects are in units of the decision logit difference, stop minus bet. `pair_effect` plants two
    more directions after the cause that have this effect together: ablating one of them changes
    nothing, ablating both removes the effect. The same arguments write the same bytes.
    """
    if not 0 <= lossy_layer < n_layers:
        raise ValueError(
            f"lossy_layer must be one of the layers 0..{n_layers - 1}, got {lossy_layer}"
        )
    design = make_design(
        seed, d_model, n_layers, effect, shield_effect, drift_effect, bos_ratio, pair_effect
    )
    write_model(folder / "model", design, make_weights(design))
    planted_saes = list(_write_saes(folder, design, expansion, lossy_layer))
    return Planted(
        folder=folder,
        model=folder / "model",
        llama_scope=folder / "llama_scope" / LLAMA_SCOPE.format(expansion),
        lossy=folder / "llama_scope" / LOSSY.format(expansion),
        gemma_scope=folder / "gemma_scope" / GEMMA_SCOPE,
        truth=_truth(design, tuple(planted_saes)),
    )


def _write_saes(
    folder: Path, design: PlantedDesign, expansion: int, lossy_layer: int
) -> Iterator[SaeTruth]:
    width = expansion * design.d_model
    for site in _sites(folder / "model", design):
        kinds: tuple[Kind, ...] = (
            ("wide", "narrow", "lossy") if site.layer == lossy_layer else ("wide", "narrow")
        )
        for kind in kinds:
            sae = make_dictionary(design, kind, site.layer, width, site.words)
            measured = _DictionaryMeasurements(
                l0=mean_l0(sae, site.words),
                explained_variance=explained_variance(sae, site.words),
                l0_bos=mean_l0(sae, site.all[:1]),
                explained_variance_with_bos=explained_variance(sae, site.all),
            )
            if kind != "narrow":
                yield _llama_scope(folder, design, kind, site, sae, measured, expansion)
            if kind != "lossy":
                yield _gemma_scope(folder, design, kind, site, sae, measured)


def _llama_scope(
    folder: Path,
    design: PlantedDesign,
    kind: Kind,
    site: _Site,
    sae: Dictionary,
    measured: _DictionaryMeasurements,
    expansion: int,
) -> SaeTruth:
    release = (LOSSY if kind == "lossy" else LLAMA_SCOPE).format(expansion)
    name = release.replace("LX", f"L{site.layer}")
    path, norm = (
        folder / "llama_scope" / release / name,
        float(np.linalg.norm(site.words, axis=1).mean()),
    )
    sae = shuffled(sae, design.seed, name)
    write_llama_scope(
        path,
        sae,
        seed=design.seed,
        layer=site.layer,
        norm=norm,
        l0=measured.l0,
        expansion=expansion,
    )
    return SaeTruth(
        name, kind, "llama_scope", site.layer, path, features=sae.features, **asdict(measured)
    )


def _gemma_scope(
    folder: Path,
    design: PlantedDesign,
    kind: Kind,
    site: _Site,
    sae: Dictionary,
    measured: _DictionaryMeasurements,
) -> SaeTruth:
    width = len(sae.bias)
    label = f"{width // 1024}k" if width % 1024 == 0 else str(width)
    name = f"layer_{site.layer}/width_{label}/average_l0_{round(measured.l0)}"
    path, sae = folder / "gemma_scope" / GEMMA_SCOPE / name, shuffled(sae, design.seed, name)
    write_gemma_scope(path, sae)
    return SaeTruth(
        name, kind, "gemma_scope", site.layer, path, features=sae.features, **asdict(measured)
    )


def _sites(model: Path, design: PlantedDesign) -> list[_Site]:
    """Residuals computed from the written files, so that measurements hold for what is loaded."""
    reference = ReferenceModel.load(model)
    drawn = words.draw_prompts(N_MEASURED, (design.seed, -1))
    traces = [reference.run(prompt.ids).resid_post for prompt in drawn]
    return [
        _Site(
            layer,
            np.concatenate([trace[layer][1:] for trace in traces]),
            np.concatenate([t[layer] for t in traces]),
        )
        for layer in range(design.n_layers)
    ]


def _truth(design: PlantedDesign, saes: tuple[SaeTruth, ...]) -> PlantedTruth:
    last = design.n_layers - 1
    return PlantedTruth(
        seed=design.seed,
        stop_id=words.word_id(words.STOP),
        bet_id=words.word_id(words.BET),
        cause_words=(words.CAUSE,),
        shield_words=(words.SHIELD,),
        twins={words.CAUSE: words.CALM, words.SHIELD: words.PLAIN},
        effect=design.effect,
        shield_effect=design.shield_effect,
        drift_effect=design.drift_effect,
        path=(
            ("resid_pre.0", "cause"),
            ("resid_post.0", "u"),
            ("resid_post.1", "v"),
            ("resid_post.2", "w"),
            *((f"resid_post.{layer}", "w") for layer in range(3, last + 1)),
        ),
        directions={name: design.direction(name) for name in design.names},
        saes=saes,
        duplicates=tuple(_duplicates(saes, design.n_layers, design.names)),
        pair=("left", "right") if design.pair_effect else (),
        pair_effect=design.pair_effect,
    )


def _duplicates(
    saes: tuple[SaeTruth, ...], n_layers: int, names: tuple[str, ...]
) -> Iterator[Duplicate]:
    """Planted directions in the two Gemma Scope SAEs of a site, and in the wide ones of both
    layouts.
    """
    for layer in range(n_layers):
        of_layer = {(sae.kind, sae.layout): sae for sae in saes if sae.layer == layer}
        first = of_layer["wide", "gemma_scope"]
        for second in (of_layer["narrow", "gemma_scope"], of_layer["wide", "llama_scope"]):
            for feature in first.features:
                twin = second.named(feature.direction)
                if twin and feature.direction in names:
                    ends = (first.name, feature.index), (second.name, twin.index)
                    yield Duplicate(feature.direction, layer, *ends)
