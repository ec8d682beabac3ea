"""The planted SAEs: dictionaries made by hand over the planted directions, and measured on planted
prompts.

Every dictionary holds, in an order of its own: one feature per planted direction that exists at its
layer, two features per filler axis (one per sign), a tail of rarely firing background features,
features that fire on BOS alone, and dead ones. Encoders read the constant direction and subtract
it again in the bias, so a lost or wrongly scaled bias, a subtracted decoder bias and a BOS token
(which lacks the constant) all change activations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from toolkit.statistics.arrays import Floats
from toolkit.statistics.randomness import generator
from toolkit.testing.planted._model import CONST, PAIR_NAMES, PlantedDesign
from toolkit.testing.planted._truth import FeatureTruth, Kind, Role

N_BOS, N_DEAD = 6, 30
TAIL_RATE = 0.01  # share of tokens a tail feature fires on
FIRST_LAYER = {"v": 1, "shadow": 1, "w": 2, "joint": 1}  # other directions exist from layer 0 on
THRESHOLDS = {"wide": 0.15, "narrow": 1.0, "lossy": 0.15}


@dataclass(frozen=True, eq=False)
class Dictionary:
    """A JumpReLU SAE on the raw residual with unit decoder rows, in float64, and its truth by
    feature.
    """

    encoder: Floats  # (d, n)
    bias: Floats  # (n,)
    decoder: Floats  # (n, d), unit rows
    decoder_bias: Floats  # (d,)
    threshold: Floats  # (n,)
    features: tuple[FeatureTruth, ...]

    def encode(self, x: Floats) -> Floats:
        """Feature activations of residual rows."""
        z = x @ self.encoder + self.bias
        return np.where(z > self.threshold, z, 0.0)

    def decode(self, acts: Floats) -> Floats:
        """Residual rows rebuilt from feature activations."""
        return acts @ self.decoder + self.decoder_bias


@dataclass(frozen=True, eq=False)
class _PlantedFeature:
    read: Floats
    bias: float
    write: Floats
    threshold: float
    direction: str
    role: Role
    dense: bool = False
    effect: float = 0.0


def make_dictionary(
    design: PlantedDesign, kind: Kind, layer: int, n_features: int, words: Floats
) -> Dictionary:
    """A dictionary of the given kind, in order of design; `words` are residual rows of this layer
    without BOS.
    """
    rows = [
        *_planted_rows(design, kind, layer),
        *_axis_rows(design, kind, layer),
        *_bos_rows(design, kind),
    ]
    rows += _dead_rows(design)
    if len(rows) > n_features:
        raise ValueError(
            f"{n_features} features are too few, {len(rows)} are planted: raise the expansion"
        )
    rows += _tail_rows(design, kind, layer, n_features - len(rows), words)
    if kind == "lossy":
        rows = _drop_axes(design, rows, words)
    return _stack(design, rows)


def shuffled(dictionary: Dictionary, seed: int, order: str) -> Dictionary:
    """Reorder the features, so that no index means the same in two SAEs."""
    index = generator(seed, "order", order).permutation(len(dictionary.bias))
    return Dictionary(
        encoder=dictionary.encoder[:, index],
        bias=dictionary.bias[index],
        decoder=dictionary.decoder[index],
        decoder_bias=dictionary.decoder_bias,
        threshold=dictionary.threshold[index],
        features=tuple(
            replace(dictionary.features[old], index=new) for new, old in enumerate(index)
        ),
    )


def explained_variance(dictionary: Dictionary, x: Floats) -> float:
    """1 - sum |x - xhat|^2 / sum |x - mean|^2."""
    error = x - dictionary.decode(dictionary.encode(x))
    return float(1.0 - (error**2).sum() / ((x - x.mean(0)) ** 2).sum())


def mean_l0(dictionary: Dictionary, x: Floats) -> float:
    """Mean number of features that fire."""
    return float((dictionary.encode(x) > 0).sum(-1).mean())


def _stack(design: PlantedDesign, rows: list[_PlantedFeature]) -> Dictionary:
    return Dictionary(
        encoder=np.stack([row.read for row in rows], axis=1),
        bias=np.array([row.bias for row in rows]),
        decoder=np.stack([row.write for row in rows]),
        decoder_bias=CONST * design.direction("const"),
        threshold=np.array([row.threshold for row in rows]),
        features=tuple(
            FeatureTruth(i, row.direction, row.role, row.dense, row.effect)
            for i, row in enumerate(rows)
        ),
    )


def _offset(
    design: PlantedDesign, read: Floats, bias: float, rng: np.random.Generator
) -> tuple[Floats, float]:
    """Read the constant direction as well and take it off in the bias: no change on a word, a
    change on BOS.
    """
    amount = float(rng.uniform(1.0, 2.0))
    return read + amount / CONST * design.direction("const"), bias - amount


def _effects(design: PlantedDesign, layer: int) -> dict[str, float]:
    """What the usual value of each direction adds to the decision, seen from the residual after
    this layer.
    """
    carrier = ("u", "v", "w")[min(layer, 2)]
    joint = {"joint": design.pair_effect} if design.pair_effect else {}
    return {
        carrier: design.effect,
        **joint,
        "guard": -design.shield_effect,
        "drift": -design.drift_effect,
    }


def _planted_rows(design: PlantedDesign, kind: Kind, layer: int) -> list[_PlantedFeature]:
    names = ["cause", "shield", "u", "v", "w", "guard", "echo", "shadow", "hum", "drift"]
    names += PAIR_NAMES if design.pair_effect else ()
    effects, rows = _effects(design, layer), []
    for name in names:
        if FIRST_LAYER.get(name, 0) > layer or (kind == "lossy" and name == "drift"):
            continue
        rng, unit = generator(design.seed, "offset", kind, name), design.direction(name)
        read, bias = _offset(design, unit, 0.0, rng)
        effect = effects.get(name, 0.0)
        role: Role = "causal" if effect else "inert"
        if name in ("left", "right") and layer == 0:
            role = "paired"
        rows.append(
            _PlantedFeature(
                read,
                bias,
                unit,
                _threshold(kind, name),
                name,
                role,
                name in ("hum", "drift"),
                effect,
            )
        )
    return rows


def _threshold(kind: Kind, name: str) -> float:
    """Dense features have the low threshold in every kind: their values come close to the
    high one.
    """
    return THRESHOLDS["wide"] if name in ("hum", "drift") else THRESHOLDS[kind]


def _axis_rows(design: PlantedDesign, kind: Kind, layer: int) -> list[_PlantedFeature]:
    rows = []
    for axis in range(design.filler.shape[1]):
        for sign, mark in ((1.0, "+"), (-1.0, "-")):
            rng, name = (
                generator(design.seed, "axis", kind, layer, axis, mark),
                f"filler{mark}{axis}",
            )
            unit = sign * design.filler[:, axis]
            read, bias = _offset(design, unit, 0.0, rng)
            read = read + _bos_leak(design, rng)
            rows.append(_PlantedFeature(read, bias, unit, THRESHOLDS[kind], name, "background"))
    return rows


def _bos_leak(design: PlantedDesign, rng: np.random.Generator) -> Floats:
    """A slight overlap with the BOS direction, which on the huge BOS token becomes a large
    activation of either sign.
    """
    return rng.normal(0.0, 12.0) / design.bos_norm * design.direction("bos")


def _bos_rows(design: PlantedDesign, kind: Kind) -> list[_PlantedFeature]:
    rows = []
    for number in range(N_BOS):
        rng = generator(design.seed, "bos", kind, number)
        read = rng.uniform(5.0, 20.0) / design.bos_norm * design.direction("bos")
        rows.append(
            _PlantedFeature(
                read, -0.5, _random_filler(design, rng), THRESHOLDS[kind], f"bos{number}", "bos"
            )
        )
    return rows


def _dead_rows(design: PlantedDesign) -> list[_PlantedFeature]:
    """Features that never fire and write to directions that nothing reads: forcing one on has no
    effect.
    """
    rows = []
    for number in range(N_DEAD):
        rng = generator(design.seed, "dead", number)
        unread = np.stack([design.direction(name) for name in ("void", "hum", "echo", "shadow")])
        write = rng.standard_normal(len(unread)) @ unread
        read, bias = 0.1 * _random_filler(design, rng), -50.0
        rows.append(
            _PlantedFeature(
                read,
                bias,
                write / np.linalg.norm(write),
                THRESHOLDS["wide"],
                f"dead{number}",
                "dead",
            )
        )
    return rows


def _tail_rows(
    design: PlantedDesign, kind: Kind, layer: int, count: int, words: Floats
) -> list[_PlantedFeature]:
    """Background features that fire on one token in a hundred, with values just above the
    threshold.
    """
    rows, threshold = [], THRESHOLDS["wide"]
    rngs = [generator(design.seed, "tail", kind, layer, number) for number in range(count)]
    units = np.stack([0.1 * _random_filler(design, rng) for rng in rngs])
    cuts = np.quantile(words @ units.T, 1.0 - TAIL_RATE, axis=0)
    for number, (rng, unit, cut) in enumerate(zip(rngs, units, cuts, strict=True)):
        read, bias = _offset(design, unit, threshold - float(cut), rng)
        write = _random_filler(design, rng)
        rows.append(
            _PlantedFeature(
                read + _bos_leak(design, rng), bias, write, threshold, f"tail{number}", "background"
            )
        )
    return rows


def _random_filler(design: PlantedDesign, rng: np.random.Generator) -> Floats:
    vector = design.filler @ rng.standard_normal(design.filler.shape[1])
    unit: Floats = vector / np.linalg.norm(vector)
    return unit


def _drop_axes(
    design: PlantedDesign, rows: list[_PlantedFeature], words: Floats
) -> list[_PlantedFeature]:
    """Silence filler axes one after the other until explained variance has fallen to one half."""
    sample = words[:1000]
    for axis in generator(design.seed, "lossy").permutation(design.filler.shape[1]):
        if explained_variance(_stack(design, rows), sample) <= 0.5:
            return rows
        names = (f"filler+{axis}", f"filler-{axis}")
        rows = [_silenced(row) if row.direction in names else row for row in rows]
    return rows


def _silenced(row: _PlantedFeature) -> _PlantedFeature:
    """The same feature, reading nothing and never firing."""
    return replace(row, read=np.zeros_like(row.read), bias=-50.0, role="dead")
