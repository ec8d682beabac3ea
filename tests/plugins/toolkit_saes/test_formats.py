"""Each layout against its published formula, written out here a second time: encode, decode, active
sets.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import BadInput, DataError
from toolkit.testing import sae_files as write
from toolkit.testing.contracts import check_part
from toolkit.testing.fakes import SilentReporter
from toolkit.testing.loaded_saes import check_sae
from toolkit_saes import toolkit_parts
from toolkit_saes.encode.canonical import CanonicalSae, Facts
from toolkit_saes.encode.matrix import Matrix
from toolkit_saes.encode.weights import Weights
from toolkit_saes.layouts import gemma_scope as _gemma_scope
from toolkit_saes.layouts import llama_scope as _llama_scope
from toolkit_saes.layouts import saelens as _saelens
from toolkit_saes.layouts import saelens_config
from toolkit_saes.layouts.gemma_scope import GemmaScope
from toolkit_saes.layouts.llama_scope import LlamaScope
from toolkit_saes.layouts.saelens import SaeLens
from toolkit_saes.layouts.saelens_config import ARCHITECTURES

PARTS = {part.name: part for part in toolkit_parts()}
ROWS = write.numbers(40, write.INPUTS, seed=99) * 2
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


def llama(path: Path, **params: Any) -> list[CanonicalSae]:
    return _llama_scope.load(LlamaScope(path=str(path), **params), SilentReporter())


def gemma(path: Path, **params: Any) -> list[CanonicalSae]:
    return _gemma_scope.load(GemmaScope(path=str(path), **params), SilentReporter())


def saelens(path: Path, **params: Any) -> list[CanonicalSae]:
    return _saelens.load(SaeLens(path=str(path), **params), SilentReporter())


def same(sae: CanonicalSae, features: torch.Tensor, rebuilt: torch.Tensor) -> None:
    """Equal activations, equal active sets, equal reconstruction; and the active sets are neither
    empty nor everything.
    """
    result = sae.encode(ROWS)
    torch.testing.assert_close(result, features, **TOLERANCE)
    assert torch.equal(result != 0, features != 0)
    assert 0 < int((result != 0).sum()) < result.numel()
    torch.testing.assert_close(sae.reconstruct(ROWS), rebuilt, **TOLERANCE)


# --- OpenMOSS -------------------------------------------------------------------------------------


@pytest.mark.parametrize("new", [False, True], ids=["2025", "2026"])
@pytest.mark.parametrize("by_norm", [False, True])
@pytest.mark.parametrize("act", ["relu", "jumprelu", "topk", "batchtopk"])
def test_openmoss(tmp_path: Path, act: str, by_norm: bool, new: bool) -> None:
    used = write.openmoss(
        tmp_path / "L3R",
        new=new,
        norms=(3.0, 3.0),
        act_fn=act,
        top_k=4,
        sparsity_include_decoder_norm=by_norm,
    )
    (sae,) = llama(tmp_path)
    scale = math.sqrt(write.INPUTS) / 3.0
    h = (ROWS * scale) @ used["W_E"] + used["b_E"]
    gates = h * used["W_D"].norm(dim=1) if by_norm else h
    if act == "relu":
        kept = gates > 0
    elif act == "topk":
        kept = (gates >= gates.sort(descending=True).values[:, 3:4]) & (gates > 0)
    else:
        kept = gates > used["log"].exp()
    features = h * kept
    same(sae, features, (features @ used["W_D"] + used["b_D"]) / scale)
    assert sae.hookpoint == sae.output_hookpoint == "resid_post.3"
    assert sae.declared_l0 == (4 if "topk" in act else None)
    check_sae(sae, ROWS)


def test_openmoss_inference_has_no_scale_and_token_wise_one_a_row(tmp_path: Path) -> None:
    used = write.openmoss(
        tmp_path / "a" / "L3R", norm_activation="inference", sparsity_include_decoder_norm=False
    )
    (sae,) = llama(tmp_path / "a")
    h = ROWS @ used["W_E"] + used["b_E"]
    features = h * (h > used["log"].exp())
    same(sae, features, features @ used["W_D"] + used["b_D"])
    used = write.openmoss(
        tmp_path / "b" / "L3R", norm_activation="token-wise", sparsity_include_decoder_norm=False
    )
    (sae,) = llama(tmp_path / "b")
    scale = math.sqrt(write.INPUTS) / ROWS.norm(dim=1, keepdim=True)
    h = (ROWS * scale) @ used["W_E"] + used["b_E"]
    features = h * (h > used["log"].exp())
    same(sae, features, (features @ used["W_D"] + used["b_D"]) / scale)
    with pytest.raises(DataError, match="restores the norm of each row"):
        sae.decode(features)


def test_openmoss_without_biases(tmp_path: Path) -> None:
    used = write.openmoss(
        tmp_path / "L3R", tensors={"b_D": None}, use_decoder_bias=False, act_fn="relu"
    )
    (sae,) = llama(tmp_path)
    scale = math.sqrt(write.INPUTS) / 3.0
    h = (ROWS * scale) @ used["W_E"] + used["b_E"]
    same(sae, h.relu(), h.relu() @ used["W_D"] / scale)


def test_mixtures_lie_side_by_side(tmp_path: Path) -> None:
    for mixture in ("800M-Slimpajama-0-OpenR1-Math-220k", "0-Slimpajama-800M-OpenR1-Math-220k"):
        for layer in (3, 4):
            write.openmoss(
                tmp_path / mixture / f"L{layer}R",
                hook_point_in=f"blocks.{layer}.hook_resid_post",
                hook_point_out=None,
            )
    result = llama(tmp_path, folder="0-Slimpajama-800M-OpenR1-Math-220k", layers=4)
    assert [(sae.name, sae.hookpoint) for sae in result] == [("L4R", "resid_post.4")]
    with pytest.raises(BadInput, match="choose with `folder:`"):
        llama(tmp_path)


# --- Llama Scope, original ------------------------------------------------------------------------


def llama_formula(
    stored: dict[str, torch.Tensor], norm_in: float, norm_out: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """h, then a = h |D| / s_out, gated in units of a."""
    scale_in, scale_out = (math.sqrt(write.INPUTS) / norm for norm in (norm_in, norm_out))
    lengths = stored["decoder.weight"].norm(dim=0)
    a = (
        ((ROWS * scale_in) @ stored["encoder.weight"].T + stored["encoder.bias"])
        * lengths
        / scale_out
    )
    features = a * (a > 0.4)
    return features, features @ (stored["decoder.weight"] / lengths).T + stored[
        "decoder.bias"
    ] / scale_out


@pytest.mark.parametrize(
    ("kind", "place", "reads"),
    [
        ("R", "hook_resid_post", "resid_post"),
        ("M", "hook_mlp_out", "mlp_out"),
        ("A", "hook_attn_out", "attn_out"),
    ],
)
@pytest.mark.parametrize("expansion", [8, 32])
def test_llama_scope_reads_every_site(
    tmp_path: Path, kind: str, place: str, reads: str, expansion: int
) -> None:
    stored = write.llama(tmp_path / f"Llama3_1-8B-Base-L3{kind}-{expansion}x", f"blocks.3.{place}")
    (sae,) = llama(tmp_path, layers=3)
    same(sae, *llama_formula(stored, 3.0, 3.0))
    assert (sae.hookpoint, sae.output_hookpoint, sae.declared_l0) == (
        f"{reads}.3",
        f"{reads}.3",
        50,
    )


def test_a_llama_scope_transcoder_writes_elsewhere(tmp_path: Path) -> None:
    norms = {"in": math.sqrt(write.INPUTS), "out": 0.7}
    folder = tmp_path / "Llama3_1-8B-Base-L3TC-8x"
    stored = write.llama(
        folder,
        "blocks.3.ln2.hook_normalized",
        "blocks.3.hook_mlp_out",
        dataset_average_activation_norm=norms,
    )
    (sae,) = llama(tmp_path)
    same(sae, *llama_formula(stored, norms["in"], norms["out"]))
    assert (sae.hookpoint, sae.output_hookpoint) == ("mlp_in_normed.3", "mlp_out.3")
    check_sae(sae, ROWS)


def test_several_kinds_of_one_layer_are_told_apart(tmp_path: Path) -> None:
    for kind, place in (("R", "hook_resid_post"), ("M", "hook_mlp_out")):
        write.llama(tmp_path / f"Llama3_1-8B-Base-L3{kind}-8x", f"blocks.3.{place}")
    assert [sae.hookpoint for sae in llama(tmp_path, kind="M")] == ["mlp_out.3"]
    with pytest.raises(
        BadInput, match=r"several SAEs of layer 3: .*L3M-8x, .*L3R-8x. Choose with `kind:`"
    ):
        llama(tmp_path)


# --- Gemma Scope ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "site", "reads", "writes"),
    [
        ("gemma-scope-2b-pt-res", None, "resid_post.3", "resid_post.3"),
        ("gemma-scope-2b-pt-mlp", None, "mlp_out.3", "mlp_out.3"),
        ("gemma-scope-2b-pt-att", None, "attn_z.3", "attn_z.3"),
        ("gemma-scope-2b-pt-transcoders", None, "mlp_in_normed.3", "mlp_out.3"),
        ("mine", "att", "attn_z.3", "attn_z.3"),
        ("mine", None, "resid_post.3", "resid_post.3"),
    ],
)
def test_the_site_of_gemma_scope_is_in_the_name(
    tmp_path: Path, name: str, site: str | None, reads: str, writes: str
) -> None:
    arrays = write.gemma(tmp_path / name / "layer_3" / "width_16k" / "average_l0_71" / "params.npz")
    (sae,) = gemma(tmp_path / name, site=site)
    assert (sae.hookpoint, sae.output_hookpoint) == (reads, writes)
    used = {key: torch.from_numpy(array) for key, array in arrays.items()}
    z = ROWS @ used["W_enc"] + used["b_enc"]
    features = z * (z > used["threshold"]) * (z > 0)
    same(sae, features, features @ used["W_dec"] + used["b_dec"])
    check_sae(sae, ROWS)


def test_a_gemma_transcoder_may_write_another_number_of_values(tmp_path: Path) -> None:
    write.gemma(tmp_path / "layer_3" / "width_16k" / "average_l0_5" / "params.npz", outputs=4)
    (sae,) = gemma(tmp_path, site="transcoders")
    assert (sae.inputs, sae.outputs, sae.reconstruct(ROWS).shape[1]) == (6, 4, 4)
    check_sae(sae, ROWS)
    with pytest.raises(BadInput, match=r"it is a transcoder\. Set `site: transcoders`"):
        gemma(tmp_path, site="res")


def test_embeddings_are_read_behind_their_scale(tmp_path: Path) -> None:
    """The table's row is the stream over sqrt(d); the reconstruction is brought back into the
    stream, b_dec with it.
    """
    arrays = write.gemma(tmp_path / "embedding" / "width_4k" / "average_l0_111" / "params.npz")
    (sae,) = gemma(tmp_path, site="embedding")
    used = {key: torch.from_numpy(array) for key, array in arrays.items()}
    z = ROWS / math.sqrt(write.INPUTS) @ used["W_enc"] + used["b_enc"]
    features = z * (z > used["threshold"])
    same(sae, features, (features @ used["W_dec"] + used["b_dec"]) * math.sqrt(write.INPUTS))
    assert sae.hookpoint == "resid_pre.0"


def test_the_only_width_there_is(tmp_path: Path) -> None:
    write.gemma(tmp_path / "layer_0" / "width_1m" / "average_l0_71" / "params.npz")
    assert [sae.name for sae in gemma(tmp_path)] == ["layer_0/width_1m/average_l0_71"]


# --- SAELens --------------------------------------------------------------------------------------


def saelens_formula(
    architecture: str, used: dict[str, torch.Tensor], x: torch.Tensor, beta: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    shifted = x - used["b_dec"] if beta else x
    u = shifted @ used["W_enc"]
    if architecture == "gated":
        features = (u + used["b_gate"] > 0) * (u * used["r_mag"].exp() + used["b_mag"]).relu()
    else:
        z = u + used["b_enc"]
        if "jumprelu" in architecture:
            features = z.relu() * (z > used["threshold"])
        elif architecture == "topk":
            features = z.relu() * (z >= z.sort(descending=True).values[:, 2:3])
        elif architecture == "abstopk":
            features = z * (z.abs() >= z.abs().sort(descending=True).values[:, 2:3])
        else:
            features = z.relu()
    rebuilt = features @ used["W_dec"] + used["b_dec"]
    return features, rebuilt + x @ used["W_skip"].T if "skip" in architecture else rebuilt


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_saelens(tmp_path: Path, architecture: str) -> None:
    used = write.saelens(tmp_path / "sae", architecture)
    (sae,) = saelens(tmp_path)
    same(sae, *saelens_formula(architecture, used, ROWS, "transcoder" not in architecture))
    place = (
        ("mlp_in_normed.3", "mlp_out.3")
        if "transcoder" in architecture
        else ("resid_post.3", "resid_post.3")
    )
    assert (sae.hookpoint, sae.output_hookpoint) == place
    check_sae(sae, ROWS)


def test_saelens_without_b_dec_subtracted(tmp_path: Path) -> None:
    used = write.saelens(tmp_path, "jumprelu", apply_b_dec_to_input=False)
    same(saelens(tmp_path)[0], *saelens_formula("jumprelu", used, ROWS, False))


@pytest.mark.parametrize("architecture", ["standard", "gated", "jumprelu", "topk"])
def test_saelens_norms_of_each_row(tmp_path: Path, architecture: str) -> None:
    used = write.saelens(
        tmp_path / "row", architecture, normalize_activations="constant_norm_rescale"
    )
    factor = math.sqrt(write.INPUTS) / ROWS.norm(dim=1, keepdim=True)
    features, rebuilt = saelens_formula(architecture, used, ROWS * factor, True)
    same(saelens(tmp_path / "row")[0], features, rebuilt / factor)
    used = write.saelens(tmp_path / "layer", architecture, normalize_activations="layer_norm")
    mean, spread = ROWS.mean(1, keepdim=True), ROWS.std(1, keepdim=True)
    features, rebuilt = saelens_formula(architecture, used, (ROWS - mean) / (spread + 1e-5), True)
    same(saelens(tmp_path / "layer")[0], features, rebuilt * spread + mean)


def test_saelens_topk_by_decoder_norm(tmp_path: Path) -> None:
    used = write.saelens(tmp_path, "topk", rescale_acts_by_decoder_norm=True)
    lengths = used["W_dec"].norm(dim=1)
    z = ((ROWS - used["b_dec"]) @ used["W_enc"] + used["b_enc"]) * lengths
    features = z.relu() * (z >= z.sort(descending=True).values[:, 2:3])
    same(saelens(tmp_path)[0], features, features / lengths @ used["W_dec"] + used["b_dec"])


def test_saelens_with_the_data_sets_factor(tmp_path: Path) -> None:
    used = write.saelens(tmp_path, "jumprelu", normalize_activations="expected_average_only_in")
    with pytest.raises(
        BadInput, match=r"the factor is not in the files\. Give `norm_scaling_factor:`"
    ):
        saelens(tmp_path)
    folded = {
        **used,
        "W_enc": used["W_enc"] * 2.5,
        "W_dec": used["W_dec"] / 2.5,
        "b_dec": used["b_dec"] / 2.5,
    }
    (sae,) = saelens(tmp_path, norm_scaling_factor=2.5)
    same(sae, *saelens_formula("jumprelu", folded, ROWS, True))
    (plain,) = saelens(tmp_path, norm_scaling_factor=1)
    same(plain, *saelens_formula("jumprelu", used, ROWS, True))
    assert sae.recipe != plain.recipe


def test_saelens_before_version_6(tmp_path: Path) -> None:
    flat = {"metadata": None, "hook_point": "blocks.2.hook_resid_pre", "apply_b_dec_to_input": None}
    used = write.saelens(tmp_path / "a", **flat, normalize_activations=False)
    (sae,) = saelens(tmp_path / "a")
    same(sae, *saelens_formula("standard", used, ROWS, True))
    assert sae.hookpoint == "resid_pre.2"
    used = write.saelens(
        tmp_path / "b", **flat, activation_fn_str="topk", activation_fn_kwargs={"k": 3}
    )
    same(saelens(tmp_path / "b")[0], *saelens_formula("topk", used, ROWS, True))


def test_saelens_layers_and_folders(tmp_path: Path) -> None:
    for layer in (1, 2):
        about = {
            "hook_name": f"blocks.{layer}.attn.hook_z",
            "sae_lens_version": "6.0.0",
            "neuronpedia_id": f"m/{layer}-x",
        }
        write.saelens(tmp_path / "set" / f"blocks.{layer}", metadata=about)
    assert [(sae.hookpoint, sae.neuronpedia) for sae in saelens(tmp_path)] == [
        ("attn_z.1", "m/1-x"),
        ("attn_z.2", "m/2-x"),
    ]
    assert [sae.hookpoint for sae in saelens(tmp_path, folder="set", layers=2)] == ["attn_z.2"]
    check_part(PARTS["saelens"], params={"path": str(tmp_path)})


# --- what holds for all ---------------------------------------------------------------------------


@settings(max_examples=25)
@given(
    dtype=st.sampled_from([torch.bfloat16, torch.float16, torch.float32, torch.float64]),
    layout=st.sampled_from(["old", "new", "lens", "llama"]),
)
def test_stored_dtypes_are_read_as_they_are(
    tmp_path_factory: pytest.TempPathFactory, dtype: torch.dtype, layout: str
) -> None:
    """Weights of any float type give what the same numbers in float32 give."""
    folder = tmp_path_factory.mktemp("dtype")
    for name, kind in (("a", dtype), ("b", torch.float32)):
        sae_folder = folder / name / "L3R"
        made = {"lens": write.saelens, "llama": write.llama}.get(layout, write.openmoss)
        params = {"new": layout == "new"} if layout in ("old", "new") else {}
        used = made(sae_folder, **params)
        stored = {"llama": sae_folder / "checkpoints" / "final.safetensors"}.get(
            layout, sae_folder / "sae_weights.safetensors"
        )
        from safetensors.torch import load_file

        write.write_tensors(
            stored, {key: tensor.to(dtype).to(kind) for key, tensor in load_file(stored).items()}
        )
        assert used
    load = saelens if layout == "lens" else llama
    first, second = (load(folder / name)[0].encode(ROWS) for name in ("a", "b"))
    assert torch.equal(first, second)
    assert first.dtype == torch.float32


@settings(max_examples=25)
@given(
    inputs=st.integers(2, 9),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
    swap=st.booleans(),
)
def test_the_orientation_of_archives(
    tmp_path_factory: pytest.TempPathFactory, inputs: int, dtype: Any, swap: bool
) -> None:
    """Right for every size and dtype; swapped axes are an error, whatever the sizes."""
    folder = tmp_path_factory.mktemp("turn")
    file = folder / "layer_0" / "width_16k" / "average_l0_7" / "params.npz"
    arrays = write.gemma(file, inputs)
    tensors = {name: array.astype(dtype) for name, array in arrays.items()}
    if swap:
        tensors |= {"W_enc": tensors["W_enc"].T, "W_dec": tensors["W_dec"].T}
    np.savez(file, **tensors)
    if swap:
        with pytest.raises(BadInput, match="axes are swapped"):
            gemma(folder)
        return
    (sae,) = gemma(folder)
    x = np.random.default_rng(1).standard_normal((5, inputs))
    z = x @ tensors["W_enc"].astype(np.float64) + tensors["b_enc"]
    expected = np.where((z > tensors["threshold"]) & (z > 0), z, 0)
    torch.testing.assert_close(
        sae.encode(torch.from_numpy(x).float()).double(),
        torch.from_numpy(expected),
        rtol=1e-4,
        atol=1e-4,
    )


@settings(max_examples=20)
@given(inputs=st.integers(2, 8), width=st.integers(2, 8), new=st.booleans(), swap=st.booleans())
def test_the_orientation_of_tensors(
    tmp_path_factory: pytest.TempPathFactory, inputs: int, width: int, new: bool, swap: bool
) -> None:
    folder = tmp_path_factory.mktemp("turn") / "L3R"
    write.openmoss(folder, new=new, d_model=inputs, expansion_factor=(width + 0.5) / inputs)
    encoder, decoder = ("W_E", "W_D") if new else ("encoder.weight", "decoder.weight")
    stored = "activation_function.log_jumprelu_threshold" if new else "log_jumprelu_threshold"
    upright = new != swap
    shape = (inputs, width) if upright else (width, inputs)
    tensors = {
        encoder: write.numbers(*shape, seed=1),
        decoder: write.numbers(*shape[::-1], seed=2),
        stored: torch.zeros(width),
    }
    tensors |= {
        name: torch.zeros(width if name in ("b_E", "encoder.bias") else inputs)
        for name in (("b_E", "b_D") if new else ("encoder.bias", "decoder.bias"))
    }
    norm = {f"dataset_average_activation_norm.{write.HOOK}": torch.tensor(3.0)}
    write.write_tensors(folder / "sae_weights.safetensors", {**tensors, **norm})
    if inputs == width or swap:
        with pytest.raises(
            BadInput, match="cannot be checked" if inputs == width else "axes are swapped"
        ):
            llama(folder.parent)
        return
    (sae,) = llama(folder.parent)
    assert (sae.inputs, sae.width) == (inputs, width)
    check_sae(sae)


@pytest.mark.parametrize("gate", ["topk", "abstopk", "relu"])
@pytest.mark.parametrize("chunk", [None, 1, 3])
def test_what_is_active_at_once_is_what_encode_gives(gate: Any, chunk: int | None) -> None:
    """Also where pre-activations are equal or below zero, and with ranks of its own."""
    draw = torch.Generator().manual_seed(3)
    encoder = torch.randn(24, 8, generator=draw).round()
    weights = Weights(
        Matrix(encoder),
        torch.zeros(24),
        Matrix(encoder),
        torch.zeros(8),
        gate=gate,
        k=5,
        rank_by=torch.rand(24, generator=draw),
    )
    sae = CanonicalSae(Facts("x", "r", "resid_post.0", 24, 8, "d", "r", None), lambda: weights)
    rows = torch.cat([torch.randn(6, 8, generator=draw).round(), torch.zeros(1, 8)])
    result, dense = sae.sparse(rows, chunk), sae.encode(rows)
    index = dense.nonzero()
    torch.testing.assert_close(
        result.counts, torch.bincount(index[:, 0], minlength=7), rtol=0, atol=0
    )
    torch.testing.assert_close(result.features, index[:, 1], rtol=0, atol=0)
    torch.testing.assert_close(result.values, dense[index[:, 0], index[:, 1]], rtol=0, atol=0)
    assert len(sae.sparse(rows[:0], chunk).counts) == 0


def test_the_keys_of_cfg_json_are_documented() -> None:
    """Every architecture and norm that is read, and every key that the code asks for."""
    root = Path(__file__).parents[3]
    page = (root / "docs" / "reference" / "sae-formats.md").read_text(encoding="utf-8")
    section = page.partition("## Keys of SAELens's cfg.json")[2].partition("\n## ")[0]
    source = Path(str(saelens_config.__file__)).read_text(encoding="utf-8")
    keys = set(re.findall(r'(?:known|metadata|arguments)(?:\.get\(|\[)"([a-z_]+)"', source))
    assert {"architecture", "normalize_activations", "hook_head_index"} <= keys
    for word in (keys - {"metadata"}) | set(ARCHITECTURES) | set(saelens_config.NORMS):
        assert word in section, word
