"""The planted model's weights, set by hand in a randomly turned basis, and its Hugging Face files.

The residual stream is split into named directions and a filler subspace, all orthogonal, then
rotated by the seed so that no direction is a coordinate. The circuit that decides between " stop"
and " bet":

    cause word --attention, layer 0--> u --MLP 1--> v --MLP 2--> w --unembedding--> stop over bet
    (+effect)
    shield word --attention, layer 0--> guard ---------------------unembedding--> stop over bet
    (-shield_effect)
    every word carries drift ---------------------------------------unembedding--> stop over bet
    (-drift_effect)

Written with the cause and read by nothing: `echo` (layer 0), `shadow` (layer 1). Carried by every
word and read by nothing: `hum`. In the filler subspace attention and MLPs mix freely and only other
words' logits read it.

RMSNorm would couple every direction to every other. Its epsilon is therefore huge and its gain as
large, which makes it linear to 1e-6; the gain differs per coordinate and the readers undo it, so
leaving a norm out is still an error.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from toolkit.statistics.arrays import Floats
from toolkit.statistics.randomness import generator
from toolkit.testing.planted import _words as words

NAMES = (
    "const",
    "bos",
    "cause",
    "shield",
    "u",
    "v",
    "w",
    "guard",
    "echo",
    "shadow",
    "hum",
    "drift",
    "void",
)
PAIR_NAMES = ("left", "right", "joint")
"""Further directions of a model with a planted pair: two that are written with the cause, and the
one that an MLP computes from either of them.
"""
N_HEADS, N_KV_HEADS, N_NEURONS = 4, 2, 32
CONST, AMPLITUDE, DRIFT = (
    6.0,
    4.0,
    2.0,
)  # how much of `const`, of a planted direction, of `drift` the last word carries
SHARPNESS = 24.0  # attention score of a cause over an ordinary word; BOS, the sink, gets half
STEEPNESS = 8.0  # slope of the MLP gates, which open at half the planted amplitude
PAIR_STEEPNESS = 24.0  # slope of the gates of a pair: either of it opens them all the way
NORM_EPS = 2.0**34
ROPE_THETA = 500000.0


@dataclass(frozen=True, eq=False)
class PlantedDesign:
    """The chosen sizes and effects, and the basis they are drawn in."""

    seed: int
    d_model: int
    n_layers: int
    effect: float
    shield_effect: float
    drift_effect: float
    bos_ratio: float
    pair_effect: float
    basis: (
        Floats  # (d, d), orthonormal columns: the named directions first, then the filler subspace
    )

    @property
    def names(self) -> tuple[str, ...]:
        """The named directions."""
        return (*NAMES, *PAIR_NAMES) if self.pair_effect else NAMES

    def direction(self, name: str) -> Floats:
        """The unit vector of a named direction."""
        return self.basis[:, self.names.index(name)]

    @property
    def filler(self) -> Floats:
        """The filler subspace, (d, n_filler), orthonormal columns."""
        return self.basis[:, len(self.names) :]

    @property
    def bos_norm(self) -> float:
        """The length of the BOS embedding: `bos_ratio` times that of a usual word."""
        return self.bos_ratio * float(np.sqrt(CONST**2 + 2.0**2 + DRIFT**2 + 13.0))


def make_design(
    seed: int,
    d_model: int,
    n_layers: int,
    effect: float,
    shield_effect: float,
    drift_effect: float,
    bos_ratio: float,
    pair_effect: float = 0.0,
) -> PlantedDesign:
    """Check the sizes and draw the basis."""
    if d_model < 32 or d_model % (2 * N_HEADS):
        raise ValueError(
            f"d_model must be a multiple of {2 * N_HEADS} and at least 32, got {d_model}"
        )
    if n_layers < 3:
        raise ValueError(f"the planted path needs three layers, got n_layers={n_layers}")
    basis, _ = np.linalg.qr(generator(seed, "basis").standard_normal((d_model, d_model)))
    return PlantedDesign(
        seed, d_model, n_layers, effect, shield_effect, drift_effect, bos_ratio, pair_effect, basis
    )


def make_weights(design: PlantedDesign) -> dict[str, Floats]:
    """All tensors under their Hugging Face names."""
    tensors = {"model.embed_tokens.weight": _embedding(design)}
    for layer in range(design.n_layers):
        prefix = f"model.layers.{layer}"
        for norm, block in (("input_layernorm", _attention), ("post_attention_layernorm", _mlp)):
            gain = _gain(design, f"{prefix}.{norm}")
            tensors[f"{prefix}.{norm}.weight"] = gain * np.sqrt(NORM_EPS)
            for name, tensor in block(design, layer).items():
                reads = not name.endswith(("o_proj.weight", "down_proj.weight"))
                tensors[f"{prefix}.{name}"] = tensor / gain if reads else tensor
    gain = _gain(design, "model.norm")
    tensors["model.norm.weight"] = gain * np.sqrt(NORM_EPS)
    tensors["lm_head.weight"] = _unembedding(design) / gain
    return tensors


def write_model(folder: Path, design: PlantedDesign, tensors: dict[str, Floats]) -> None:
    """Write config.json, model.safetensors and the tokenizer files."""
    words.write_tokenizer(folder)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": design.d_model,
        "intermediate_size": N_NEURONS,
        "num_hidden_layers": design.n_layers,
        "num_attention_heads": N_HEADS,
        "num_key_value_heads": N_KV_HEADS,
        "head_dim": design.d_model // N_HEADS,
        "max_position_embeddings": 2048,
        "rms_norm_eps": NORM_EPS,
        "rope_theta": ROPE_THETA,
        "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_THETA},
        "vocab_size": len(words.VOCAB),
        "bos_token_id": words.VOCAB[words.BOS],
        "eos_token_id": words.VOCAB[words.EOS],
        "pad_token_id": words.VOCAB[words.PAD],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    stored = {
        name: np.ascontiguousarray(tensor, dtype=np.float32)
        for name, tensor in sorted(tensors.items())
    }
    save_file(stored, str(folder / "model.safetensors"), metadata={"format": "pt"})


def _gain(design: PlantedDesign, name: str) -> Floats:
    return generator(design.seed, "gain", name).uniform(0.6, 1.6, design.d_model)


def _embedding(design: PlantedDesign) -> Floats:
    table = np.zeros((len(words.VOCAB), design.d_model))
    for token, index in words.VOCAB.items():
        rng = generator(design.seed, "embedding", token)
        code = np.zeros(design.filler.shape[1])
        chosen = rng.permutation(len(code))[:3]
        code[chosen] = rng.uniform(1.0, 3.0, 3) * rng.choice([-1.0, 1.0], 3)
        hum, drift = rng.uniform(1.5, 2.5), rng.uniform(1.0, 3.0)
        table[index] = CONST * design.direction("const") + hum * design.direction("hum")
        table[index] += drift * design.direction("drift") + design.filler @ code
    plain = (
        CONST * design.direction("const")
        + 2.0 * design.direction("hum")
        + DRIFT * design.direction("drift")
    )
    for word in (words.CALM, words.PLAIN, words.CAUSE, words.SHIELD):
        table[words.word_id(word)] = plain
    table[words.word_id(words.CAUSE)] += AMPLITUDE * design.direction("cause")
    table[words.word_id(words.SHIELD)] += AMPLITUDE * design.direction("shield")
    last = words.word_id(words.LAST)
    table[last] += (DRIFT - table[last] @ design.direction("drift")) * design.direction("drift")
    table[words.VOCAB[words.BOS]] = design.bos_norm * design.direction("bos")
    return table


def _units(rng: np.random.Generator, count: int, design: PlantedDesign) -> Floats:
    """Random unit rows in the filler subspace, (count, d)."""
    rows = rng.standard_normal((count, design.filler.shape[1]))
    units: Floats = rows / np.linalg.norm(rows, axis=1, keepdims=True) @ design.filler.T
    return units


def _attention(design: PlantedDesign, layer: int) -> dict[str, Floats]:
    """Random mixing within the filler subspace; at layer 0, heads 0 and 2 fetch the cause and the
    shield instead.
    """
    size, rng = design.d_model // N_HEADS, generator(design.seed, "attention", layer)
    q, k, v = (
        strength * _units(rng, count * size, design).reshape(count, size, -1)
        for count, strength in ((N_HEADS, 1.5), (N_KV_HEADS, 1.5), (N_KV_HEADS, 1.0))
    )
    o = 0.4 * _units(rng, N_HEADS * size, design).reshape(N_HEADS, size, -1).transpose(
        0, 2, 1
    )  # (heads, d, size)
    if layer == 0:
        pair = ("left", "right") if design.pair_effect else ()
        _fetch(design, 0, "cause", ("u", "echo", *pair), q, k, v, o)
        _fetch(design, 1, "shield", ("guard",), q, k, v, o)
    flat = {"q": q, "k": k, "v": v}
    tensors = {
        f"self_attn.{part}_proj.weight": tensor.reshape(-1, design.d_model)
        for part, tensor in flat.items()
    }
    return tensors | {"self_attn.o_proj.weight": o.transpose(1, 0, 2).reshape(design.d_model, -1)}


def _fetch(
    design: PlantedDesign,
    kv_head: int,
    source: str,
    targets: tuple[str, ...],
    q: Floats,
    k: Floats,
    v: Floats,
    o: Floats,
) -> None:
    """Make the first query head of a group attend to `source`, or to BOS without it, and write what
    it reads to `targets`.

    The match is in the slowest rotary pair, so distance does not matter; value dimension 0 is
    reserved for it.
    """
    group, size = N_HEADS // N_KV_HEADS, q.shape[1]
    head, slow = kv_head * group, size // 2 - 1
    q[head], o[head] = 0.0, 0.0
    others = slice(head + 1, head + group)
    q[others, slow], q[others, size - 1], o[others, :, 0] = 0.0, 0.0, 0.0
    q[head, slow] = SHARPNESS * np.sqrt(size) / CONST * design.direction("const")
    k[kv_head, slow] = (
        design.direction(source) / AMPLITUDE + 0.5 * design.direction("bos") / design.bos_norm
    )
    v[kv_head, 0] = design.direction(source) / AMPLITUDE
    o[head, :, 0] = AMPLITUDE * sum(design.direction(target) for target in targets)


def _mlp(design: PlantedDesign, layer: int) -> dict[str, Floats]:
    """Random neurons within the filler subspace, and one planted neuron at layers 1 and 2."""
    rng = generator(design.seed, "mlp", layer)
    gate, down = _units(rng, N_NEURONS, design), 0.4 * _units(rng, N_NEURONS, design).T
    up = np.tile(design.direction("const") / CONST, (N_NEURONS, 1))
    planted = {1: ("u", ("v", "shadow")), 2: ("v", ("w",))}
    if layer in planted:
        source, targets = planted[layer]
        read = design.direction(source) / AMPLITUDE
        opened = 0.5 * STEEPNESS / (1.0 + np.exp(-0.5 * STEEPNESS))
        gate[0] = STEEPNESS * (read - 0.5 * design.direction("const") / CONST)
        up[0] = read
        down[:, 0] = AMPLITUDE / opened * sum(design.direction(target) for target in targets)
    if layer == 1 and design.pair_effect:
        _plant_pair(design, gate, up, down)
    return {"mlp.gate_proj.weight": gate, "mlp.up_proj.weight": up, "mlp.down_proj.weight": down}


def _plant_pair(design: PlantedDesign, gate: Floats, up: Floats, down: Floats) -> None:
    """Set two neurons whose difference is the same with one direction of the pair as with both, and
    zero without either: only ablating both changes the output.
    """
    read = (design.direction("left") + design.direction("right")) / AMPLITUDE
    const = design.direction("const") / CONST
    for neuron, (opens, sign) in enumerate(((0.25, 1.0), (0.75, -1.0)), start=1):
        gate[neuron], up[neuron] = PAIR_STEEPNESS * (read - opens * const), const
        down[:, neuron] = sign * AMPLITUDE / (0.5 * PAIR_STEEPNESS) * design.direction("joint")


def _unembedding(design: PlantedDesign) -> Floats:
    """Stop and bet read w, guard and drift in opposite senses; the other words read the filler
    subspace.
    """
    rng = generator(design.seed, "unembedding")
    const = design.direction("const") / CONST
    table = rng.standard_normal((len(words.VOCAB), 1)) * const
    table += 0.2 * rng.standard_normal((len(words.VOCAB), design.filler.shape[1])) @ design.filler.T
    difference = design.effect * design.direction("w") / AMPLITUDE
    difference = difference - design.shield_effect * design.direction("guard") / AMPLITUDE
    if design.pair_effect:
        difference = difference + design.pair_effect * design.direction("joint") / AMPLITUDE
    difference = difference - design.drift_effect * design.direction("drift") / DRIFT
    table[words.word_id(words.STOP)] = 6.0 * const + 0.5 * difference
    table[words.word_id(words.BET)] = 6.0 * const - 0.5 * difference
    return table
