"""The layouts against their published formulas, what identifies a set of SAEs, and every kind of
unusable file.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from toolkit.errors import BadInput, DataError
from toolkit.files.hub import HubFile
from toolkit.identity import Identity
from toolkit.saes import space_id, space_row
from toolkit.testing.contracts import check_part
from toolkit.testing.fakes import SilentReporter
from toolkit.testing.planted import Planted, SaeTruth
from toolkit_lab import saes_path
from toolkit_saes import toolkit_parts
from toolkit_saes.encode.canonical import CanonicalSae
from toolkit_saes.layouts import base as _base
from toolkit_saes.layouts import gemma_scope as _gemma_scope
from toolkit_saes.layouts import llama_scope as _llama_scope
from toolkit_saes.layouts.gemma_scope import GemmaScope
from toolkit_saes.layouts.llama_scope import LlamaScope

LLAMA, GEMMA = "package:toolkit_lab/files/saes/Lab-LXR-4x", "package:toolkit_lab/files/gemma_scope"
PARTS = {part.name: part for part in toolkit_parts()}
FILES = (
    "hyperparams.json",
    "checkpoints/final.safetensors",
    "config.json",
    "sae_weights.safetensors",
)
COMMIT = "0123456789abcdef0123456789abcdef01234567"

# --- small SAEs, written by hand ------------------------------------------------------------------

EXAMPLE = {
    "encoder.weight": torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1]]),
    "encoder.bias": torch.tensor([0.0, 0.5, -1.0]),
    "decoder.weight": torch.tensor([[2.0, 0, 0], [0, 0.5, 0], [0, 0, 3], [0, 0, 4]]),
    "decoder.bias": torch.tensor([0.4, 0, 0, 0]),
}
INPUTS = torch.tensor([[1.0, 2, 1, 2], [0.4, -1, 1, 3]])


def write_llama(
    root: Path, norms: tuple[float, float] = (4, 4), tensors: Any = EXAMPLE, **settings: Any
) -> Path:
    """The worked example of the layout's description, in its files; None leaves a setting out."""
    folder = root / "Toy-L0R-1x"
    (folder / "checkpoints").mkdir(parents=True)
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()},
        folder / "checkpoints" / "final.safetensors",
    )
    known = {
        "hook_point_in": "blocks.0.hook_resid_post",
        "d_model": 4,
        "d_sae": 3,
        "jump_relu_threshold": 0.5,
        "dataset_average_activation_norm": {"in": norms[0], "out": norms[1]},
        **settings,
    }
    (folder / "hyperparams.json").write_text(
        json.dumps({name: value for name, value in known.items() if value is not None})
    )
    return folder


def write_gemma(root: Path, l0: int = 2, layer: int = 0, width: str = "3", **changes: Any) -> Path:
    """A small SAE in its file; None leaves an array out."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "W_enc": rng.standard_normal((4, 3)).astype(np.float32),
        "b_enc": rng.standard_normal(3).astype(np.float32),
        "W_dec": rng.standard_normal((3, 4)).astype(np.float32),
        "b_dec": rng.standard_normal(4).astype(np.float32),
        "threshold": np.array([0.5, 0.1, 1.0], np.float32),
        **changes,
    }
    file = root / f"layer_{layer}" / f"width_{width}" / f"average_l0_{l0}" / "params.npz"
    file.parent.mkdir(parents=True)
    np.savez(file, **{name: array for name, array in arrays.items() if array is not None})
    return file


def llama(root: Path, **params: Any) -> list[CanonicalSae]:
    return _llama_scope.load(LlamaScope(path=str(root), **params), SilentReporter())


def gemma(root: Path, **params: Any) -> list[CanonicalSae]:
    return _gemma_scope.load(
        GemmaScope(path=str(root), **{"width": "3", **params}), SilentReporter()
    )


def refused(call: Callable[..., Any], *args: Any, **params: Any) -> str:
    with pytest.raises(BadInput) as caught:
        call(*args, **params)
    return str(caught.value)


# --- the mathematics ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("norms", "features", "rebuilt"),
    [
        ((4, 4), [[2, 1.5, 5], [0.8, 0, 10]], [[2.8, 1.5, 3, 4], [1.6, 0, 6, 8]]),
        ((2, 8), [[8, 5, 40], [3.2, 0, 60]], [[9.6, 5, 24, 32], [4.8, 0, 36, 48]]),
    ],
)
def test_the_worked_example_of_llama_scope(
    tmp_path: Path, norms: Any, features: Any, rebuilt: Any
) -> None:
    write_llama(tmp_path, norms)
    (sae,) = llama(tmp_path)
    result = sae.encode(INPUTS)
    torch.testing.assert_close(result, torch.tensor(features).float())
    torch.testing.assert_close(sae.decode(result), torch.tensor(rebuilt).float())
    assert (sae.hookpoint, sae.width, sae.inputs, sae.declared_l0) == ("resid_post.0", 3, 4, None)


def test_the_threshold_of_llama_scope_is_strict_and_in_folded_units(tmp_path: Path) -> None:
    write_llama(tmp_path, jump_relu_threshold=1.5)
    (sae,) = llama(tmp_path)
    assert sae.encode(INPUTS).tolist() == [[2, 0, 5], [0, 0, 10]]


def test_bfloat16_is_read_as_it_is_stored(tmp_path: Path) -> None:
    write_llama(tmp_path, tensors={name: tensor.bfloat16() for name, tensor in EXAMPLE.items()})
    (sae,) = llama(tmp_path)
    result = sae.encode(INPUTS)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, torch.tensor([[2, 1.5, 5], [0.8, 0, 10]]))
    assert sae.encode(INPUTS.bfloat16()).dtype == torch.float32


def test_a_feature_that_writes_nothing_stays_off(tmp_path: Path) -> None:
    decoder = EXAMPLE["decoder.weight"].clone()
    decoder[:, 1] = 0
    write_llama(tmp_path, tensors={**EXAMPLE, "decoder.weight": decoder})
    (sae,) = llama(tmp_path)
    result = sae.encode(INPUTS)
    torch.testing.assert_close(result, torch.tensor([[2, 0, 5], [0.8, 0, 10]]))
    torch.testing.assert_close(sae.decode(result)[0], torch.tensor([2.8, 0, 3, 4]))


def test_gemma_scope_is_used_as_stored(tmp_path: Path) -> None:
    file = write_gemma(tmp_path)
    (sae,) = gemma(tmp_path)
    x = np.random.default_rng(1).standard_normal((50, 4))
    with np.load(file) as stored:
        before = x @ stored["W_enc"] + stored["b_enc"]
        expected = np.where(before > stored["threshold"], before, 0)
        rebuilt = expected @ stored["W_dec"] + stored["b_dec"]
    result = sae.encode(torch.from_numpy(x).float())
    assert 0 < int((result > 0).sum()) < result.numel()
    torch.testing.assert_close(result.double(), torch.from_numpy(expected), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        sae.decode(result).double(), torch.from_numpy(rebuilt), rtol=1e-5, atol=1e-5
    )
    assert (sae.name, sae.hookpoint, sae.width, sae.declared_l0) == (
        "layer_0/width_3/average_l0_2",
        "resid_post.0",
        3,
        2,
    )


def test_the_threshold_of_gemma_scope_is_strict_and_never_below_zero(tmp_path: Path) -> None:
    threshold = np.array([0.5, 0.5, -2], np.float32)
    write_gemma(
        tmp_path,
        W_enc=np.eye(4, 3, dtype=np.float32),
        b_enc=np.zeros(3, np.float32),
        threshold=threshold,
    )
    (sae,) = gemma(tmp_path)
    above = float(np.nextafter(np.float32(0.5), np.float32(1)))
    assert sae.encode(torch.tensor([[0.5, above, -1, 9], [-3, 0.25, 0.125, 9]])).tolist() == [
        [0, above, 0],
        [0, 0, 0.125],
    ]


def planted_formula(truth: SaeTruth, x: torch.Tensor) -> torch.Tensor:
    """In training units first, as the description has it: pre-activation, decoder norm, output
    scale, gate.
    """
    if truth.layout == "gemma_scope":
        with np.load(truth.path / "params.npz") as file:
            stored = {name: torch.from_numpy(file[name]).double() for name in file.files}
        before = x @ stored["W_enc"] + stored["b_enc"]
        return torch.where(before > stored["threshold"], before, 0)
    known = json.loads((truth.path / "hyperparams.json").read_text())
    stored = {
        name: tensor.double()
        for name, tensor in load_file(truth.path / "checkpoints" / "final.safetensors").items()
    }
    norm = known["dataset_average_activation_norm"]
    scale_in, scale_out = (known["d_model"] ** 0.5 / norm[side] for side in ("in", "out"))
    before = (x * scale_in) @ stored["encoder.weight"].T + stored["encoder.bias"]
    before = before * stored["decoder.weight"].norm(dim=0) / scale_out
    return torch.where(before > known["jump_relu_threshold"], before, 0)


def test_planted_saes_agree_with_the_formulas(small: Any, planted: Planted) -> None:
    """Wide and narrow, in both layouts, at every layer."""
    loaded = {sae.name: sae for sae in (*small.saes(), *small.saes("gemma_scope"))}
    truths = [truth for truth in planted.truth.saes if truth.kind != "lossy"]
    assert set(loaded) == {truth.name for truth in truths}
    assert {(truth.kind, truth.layout) for truth in truths} >= {
        ("wide", "llama_scope"),
        ("narrow", "gemma_scope"),
    }
    streams = small.model.run(small.texts[:6], [f"resid_post.{layer}" for layer in range(4)])
    for truth in truths:
        sae, x = (
            loaded[truth.name],
            streams[f"resid_post.{truth.layer}"][0, 1 : len(small.texts[0])],
        )
        expected, result = planted_formula(truth, x.double()), sae.encode(x).double()
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)
        assert sae.hookpoint == f"resid_post.{truth.layer}"
        assert sae.layer == truth.layer
        assert sae.declared_l0 == round(truth.l0)


def test_a_planted_direction_is_the_decoders(small: Any, planted: Planted) -> None:
    loaded = {sae.name: sae for sae in (*small.saes(), *small.saes("gemma_scope"))}
    for duplicate in planted.truth.duplicates:
        direction = torch.from_numpy(planted.truth.directions[duplicate.direction]).float()
        for name, feature in (duplicate.first, duplicate.second):
            torch.testing.assert_close(
                loaded[name].decoder_rows([feature])[0], direction, rtol=0, atol=1e-5
            )


def test_sparse_is_dense_without_zeros(small: Any) -> None:
    (sae,) = small.saes(layers=2)
    rows = small.model.run(small.texts[:1], ["resid_post.2"])["resid_post.2"][0]
    dense, sparse = sae.encode(rows), sae.sparse(rows, chunk=5)
    rebuilt = torch.zeros_like(dense)
    rebuilt[torch.repeat_interleave(torch.arange(len(rows)), sparse.counts), sparse.features] = (
        sparse.values
    )
    torch.testing.assert_close(rebuilt, dense)
    assert bool((sparse.values > 0).all())
    assert int(sparse.counts.sum()) == int((dense > 0).sum())
    assert len(sae.sparse(rows[:0]).counts) == 0


def test_weights_are_let_go_and_read_again(small: Any) -> None:
    (sae,) = small.saes(layers=1)
    rows = torch.randn(3, sae.inputs, generator=torch.Generator().manual_seed(0))
    first = sae.encode(rows)
    sae.release_memory()
    assert sae._loaded is None
    assert torch.equal(sae.encode(rows), first)
    sae.release_memory()
    assert sae.decoder_rows([3, 1]).shape == (2, sae.inputs)


def test_an_sae_of_another_width_than_the_model(small: Any, lab: Any) -> None:
    (sae,) = lab.saes(layers=1)
    rows = small.model.run(small.texts[:1], ["resid_post.1"])["resid_post.1"][0]
    with pytest.raises(DataError) as caught:
        sae.encode(rows)
    assert str(caught.value) == (
        "SAE Lab-L1R-4x has the input width 128, but the model's resid_post.1 is 48 wide: the SAE "
        "belongs to another model. Name SAEs of this model."
    )


# --- identity -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "params"),
    [("llama_scope", {"path": LLAMA}), ("gemma_scope", {"path": GEMMA, "width": "1k"})],
)
def test_contract(name: str, params: dict[str, Any]) -> None:
    check_part(PARTS[name], params=params)


def test_identify_imports_no_torch() -> None:
    code = (
        "import sys; from toolkit_saes import toolkit_parts; parts = {part.name: part for part "
        "in toolkit_parts()}\n"
        "print([name for name in ('torch', 'numpy', 'pyarrow', 'safetensors') if name in "
        "sys.modules])\n"
        f"for name, params in (('llama_scope', dict(path={LLAMA!r})), ('gemma_scope', "
        f"dict(path={GEMMA!r}, width='1k'))):\n"
        "    parts[name].identify(parts[name].params(**params))\n"
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    results = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert results.stdout.split("\n") == ["[]", "[]", ""]


def test_identity_is_what_is_chosen_and_what_it_holds(tmp_path: Path) -> None:
    copied = shutil.copytree(saes_path(), tmp_path / "Lab-LXR-4x")
    here, there = (
        _llama_scope.identify(LlamaScope(path=path, layers="1-2")) for path in (LLAMA, str(copied))
    )
    assert here == there
    assert here == Identity("Lab-LXR-4x", "local", here.digest, here.facts)
    assert (here.facts["inputs"], here.facts["width"], here.facts["layers"]) == (128, 512, [1, 2])
    assert _llama_scope.identify(LlamaScope(path=LLAMA)).digest != here.digest
    file = copied / "Lab-L2R-4x" / "hyperparams.json"
    file.write_text(file.read_text() + "\n")
    assert _llama_scope.identify(LlamaScope(path=str(copied), layers="1-2")).digest != here.digest
    assert _llama_scope.identify(LlamaScope(path=str(copied), layers=1)) == _llama_scope.identify(
        LlamaScope(path=LLAMA, layers=1)
    )


def test_the_identity_of_gemma_scope(tmp_path: Path) -> None:
    copied = shutil.copytree(saes_path("gemma_scope"), tmp_path / "gemma_scope")
    here, there = (
        _gemma_scope.identify(GemmaScope(path=path, width="1k")) for path in (GEMMA, str(copied))
    )
    assert here == there
    assert (here.facts["inputs"], here.facts["width"], here.facts["layers"]) == (128, 1024, [2])
    (file,) = (path for path in copied.rglob("params.npz") if path.parent.name == "average_l0_30")
    assert (here.facts["count"], here.facts["hookpoints"], here.facts["bytes"]) == (
        1,
        1,
        file.stat().st_size,
    )
    both = _gemma_scope.identify(GemmaScope(path=GEMMA, width="1k", l0="all")).facts
    assert (both["count"], both["hookpoints"], both["features"], both["l0"]) == (
        2,
        1,
        2048,
        12 + 30,
    )
    assert _gemma_scope.identify(GemmaScope(path=GEMMA, width="1k", l0="all")).digest != here.digest


def test_a_space_depends_on_weights_place_and_model_not_on_the_folder(
    tmp_path: Path, lab: Any, small: Any
) -> None:
    copied = shutil.copytree(saes_path(), tmp_path / "other")
    ours, theirs = lab.saes(), llama(copied)
    model = lab.model.identity
    spaces = [space_id(model, sae) for sae in ours]
    assert spaces == [space_id(model, sae) for sae in theirs]
    assert len({*spaces, *(space_id(small.model.identity, sae) for sae in ours)}) == 8
    row = space_row(model, ours[1])
    assert row["address"] == "toolkit_lab/model/resid_post.1/Lab-L1R-4x"
    assert (row["space"], row["width"], row["revision"]) == (spaces[1], 512, "local")


# --- what is chosen -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [LlamaScope, GemmaScope])
def test_saes_are_named_by_either_a_release_or_a_path(kind: Any) -> None:
    with pytest.raises(
        ValidationError,
        match=r"give either release \(a repository on the hub\) or path \(a folder\), not both",
    ):
        kind(release="org/saes", path="saes")
    with pytest.raises(ValidationError, match=r"name the SAEs: give release \(.* or path"):
        kind()


def test_layers_are_chosen_in_order(lab: Any) -> None:
    assert [sae.layer for sae in lab.saes()] == [0, 1, 2, 3]
    assert [sae.name for sae in lab.saes(layers=[3, 1])] == ["Lab-L1R-4x", "Lab-L3R-4x"]


@pytest.mark.parametrize(
    ("l0", "result"),
    [
        ("canonical", [90]),
        ("all", [10, 90, 120]),
        ((10,), [10]),
        ((120, 10), [10, 120]),
        ((90, 7), [90]),
    ],
)
def test_sparsities_are_chosen(tmp_path: Path, l0: Any, result: list[int]) -> None:
    for sparsity in (120, 10, 90):
        write_gemma(tmp_path, sparsity)
    assert [sae.declared_l0 for sae in gemma(tmp_path, l0=l0)] == result


def test_a_width_that_is_not_there(tmp_path: Path) -> None:
    for width in ("65k", "16k"):
        write_gemma(tmp_path / "scope", width=width)
    message = refused(gemma, tmp_path / "scope", width="1m")
    assert message == "saes.with.width: scope has no width '1m'; it has 16k, 65k."


def test_a_sparsity_that_is_not_there(tmp_path: Path) -> None:
    for l0 in (30, 12):
        write_gemma(tmp_path, l0, layer=5)
    assert refused(gemma, tmp_path, l0=(50,)) == (
        "saes.with.l0: layer 5 has SAEs of L0 12, 30, none of 50. Name one of each layer, or write "
        "`all`."
    )


def test_a_layer_that_is_not_there() -> None:
    message = refused(_llama_scope.identify, LlamaScope(path=LLAMA, layers="2-5"))
    assert (
        message
        == "saes.with.layers: Lab-LXR-4x has no SAE for layer 4; it has 0-3. Layers count from 0."
    )
    message = refused(_gemma_scope.identify, GemmaScope(path=GEMMA, width="1k", layers=0))
    assert (
        message
        == "saes.with.layers: gemma_scope has no SAE for layer 0; it has 2. Layers count from 0."
    )


# --- files that are no SAEs -----------------------------------------------------------------------


def test_a_folder_without_saes(tmp_path: Path) -> None:
    message = (
        f"{tmp_path} holds no Llama Scope SAEs: no folder is named like Llama3_1-8B-Base-L15R-8x."
    )
    assert refused(llama, tmp_path) == message
    message = (
        f"{tmp_path} holds no Gemma Scope SAEs: there is no "
        "layer_L/width_W/average_l0_N/params.npz below it."
    )
    assert refused(gemma, tmp_path) == message


def test_a_checkpoint_that_is_missing_or_cut_off(tmp_path: Path) -> None:
    folder = write_llama(tmp_path)
    file = folder / "checkpoints" / "final.safetensors"
    size = file.stat().st_size
    with file.open("r+b") as stream:
        stream.truncate(size - 8)
    message = (
        f"{file} is cut off: its header promises {size:,} bytes, it has {size - 8:,}. Copy or "
        "download it again."
    )
    assert refused(llama, tmp_path) == message
    file.unlink()
    assert (
        refused(llama, tmp_path)
        == f"{folder} has no checkpoints/final.safetensors. Copy or download the folder again."
    )


@pytest.mark.parametrize("cut", [1, 100, None])
def test_an_archive_that_is_cut_off(tmp_path: Path, cut: int | None) -> None:
    file = write_gemma(tmp_path)
    with file.open("r+b") as stream:
        stream.truncate(0 if cut is None else file.stat().st_size - cut)
    message = refused(gemma, tmp_path)
    assert message.startswith(f"{file} cannot be read (")
    assert message.endswith("it is cut off, or not a NumPy archive. Copy or download it again.")


def test_a_tensor_of_another_shape_than_promised(tmp_path: Path) -> None:
    turned = {**EXAMPLE, "encoder.weight": EXAMPLE["encoder.weight"].T}
    file = write_llama(tmp_path / "a", tensors=turned) / "checkpoints" / "final.safetensors"
    assert (
        refused(llama, tmp_path / "a")
        == f"{file}: encoder.weight is [4, 3]; hyperparams.json promises [3, 4]. "
        f"Its "
        f"axes "
        f"are swapped."
    )
    file = (
        write_llama(tmp_path / "b", tensors={**EXAMPLE, "decoder.bias": torch.zeros(3)})
        / "checkpoints"
        / "final.safetensors"
    )
    assert (
        refused(llama, tmp_path / "b")
        == f"{file}: decoder.bias is [3]; hyperparams.json promises [4]."
    )


def test_an_array_of_another_shape_than_the_others(tmp_path: Path) -> None:
    file = write_gemma(tmp_path / "a", W_dec=np.zeros((4, 3), np.float32))
    assert (
        refused(gemma, tmp_path / "a")
        == f"{file}: W_dec is (4, 3); W_enc, (4, 3), asks for (3, 4). Its axes are swapped."
    )
    file = write_gemma(tmp_path / "b", threshold=np.float32(0.5))
    assert (
        refused(gemma, tmp_path / "b") == f"{file}: threshold is (); W_enc, (4, 3), asks for (3,)."
    )
    file = write_gemma(tmp_path / "c", W_enc=np.zeros(12, np.float32))
    assert refused(gemma, tmp_path / "c") == f"{file}: W_enc is (12,); expected (inputs, features)."


@pytest.mark.parametrize("name", EXAMPLE)
def test_a_tensor_that_is_missing(tmp_path: Path, name: str) -> None:
    file = write_llama(
        tmp_path, tensors={**EXAMPLE, name + "x": EXAMPLE[name], name: EXAMPLE[name][:0]}
    )
    tensors = {other: tensor for other, tensor in EXAMPLE.items() if other != name}
    save_file(tensors, file / "checkpoints" / "final.safetensors")
    message = (
        f"{file}/checkpoints/final.safetensors has no tensor '{name}': it is not in Llama Scope's "
        "original layout."
    )
    assert refused(llama, tmp_path) == message


@pytest.mark.parametrize("name", ["W_enc", "b_enc", "W_dec", "b_dec", "threshold"])
def test_an_array_that_is_missing(tmp_path: Path, name: str) -> None:
    file = write_gemma(tmp_path, **{name: None})
    assert (
        refused(gemma, tmp_path)
        == f"{file} has no array '{name}': it is not in Gemma Scope's layout."
    )


@pytest.mark.parametrize(
    "name",
    ["d_model", "d_sae", "hook_point_in", "jump_relu_threshold", "dataset_average_activation_norm"],
)
def test_a_setting_that_is_missing(tmp_path: Path, name: str) -> None:
    folder = write_llama(tmp_path, **{name: None})
    message = (
        f"{folder}/hyperparams.json has no '{name}': it is not in Llama Scope's original layout."
    )
    assert refused(llama, tmp_path) == message


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("act_fn", "topk", "'jumprelu'"),
        ("norm_activation", "token-wise", "'dataset-wise'"),
        ("sparsity_include_decoder_norm", False, "True"),
        ("apply_decoder_bias_to_pre_encoder", True, "False"),
        ("use_glu_encoder", True, "False"),
    ],
)
def test_a_setting_that_the_fold_does_not_know(
    tmp_path: Path, name: str, value: Any, expected: str
) -> None:
    folder = write_llama(tmp_path, **{name: value})
    message = (
        f"{folder}/hyperparams.json: {name} is {value!r}; `llama_scope` reads SAEs with {expected} "
        "only."
    )
    assert refused(llama, tmp_path) == message


# --- the hub --------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with layers 1 and 2 of org/Lab-LXR-4x, and with org/scope, both at COMMIT."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for name, source in (("Lab-LXR-4x", saes_path()), ("scope", saes_path("gemma_scope"))):
        repository = tmp_path / f"models--org--{name}"
        shutil.copytree(
            source,
            repository / "snapshots" / COMMIT,
            ignore=shutil.ignore_patterns("*-L0R-*", "*-L3R-*"),
        )
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(COMMIT)
    return tmp_path


@pytest.fixture
def fetched(cache: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """A hub that has every layer: what was asked of it."""
    asked: list[list[str]] = []

    def fetch(expected: Any, patterns: list[str]) -> Path:
        asked.append(patterns)
        shutil.copytree(
            saes_path(),
            cache / "models--org--Lab-LXR-4x" / "snapshots" / COMMIT,
            dirs_exist_ok=True,
        )
        return Path(expected.folder)

    paths = saes_path("gemma_scope").rglob("params.npz")
    files = [HubFile(file.relative_to(saes_path("gemma_scope")).as_posix(), 1) for file in paths]
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(_gemma_scope, "repository_files", lambda expected, patterns: files)
    monkeypatch.setattr(_base, "fetch", fetch)
    return asked


def test_cached_saes_load_offline(cache: Path) -> None:
    reporter = SilentReporter()
    saes = _llama_scope.load(LlamaScope(release="org/Lab-LXR-4x"), reporter)
    assert [(sae.layer, sae.release) for sae in saes] == [
        (1, "org/Lab-LXR-4x"),
        (2, "org/Lab-LXR-4x"),
    ]
    assert reporter.phases == ["load"]
    (sae,) = _gemma_scope.load(GemmaScope(release="org/scope", width="1k"), reporter)
    assert (sae.name, sae.release) == ("layer_2/width_1k/average_l0_30", "org/scope")


def test_cached_saes_that_were_asked_for_are_not_fetched_again(fetched: list[list[str]]) -> None:
    assert (
        len(_llama_scope.load(LlamaScope(release="org/Lab-LXR-4x", layers="1-2"), SilentReporter()))
        == 2
    )
    params = GemmaScope(release="org/scope", width="1k", layers=2, l0=(12, 30))
    assert len(_gemma_scope.load(params, SilentReporter())) == 2
    assert fetched == []


@pytest.mark.parametrize(
    ("layers", "patterns"),
    [
        ("2-3", [f"*L{layer}[RMAT]*/{file}" for layer in (2, 3) for file in FILES]),
        ("all", [f"*/{file}" for file in FILES]),
    ],
)
def test_layers_that_the_cache_lacks_are_fetched(
    fetched: list[list[str]], layers: str, patterns: list[str]
) -> None:
    """`all` means all that the release has, not all that somebody needed before."""
    params, reporter = LlamaScope(release="org/Lab-LXR-4x", layers=layers), SilentReporter()
    before = _llama_scope.identify(params)
    saes = _llama_scope.load(params, reporter)
    assert fetched == [patterns]
    assert [sae.layer for sae in saes] == ([2, 3] if layers == "2-3" else [0, 1, 2, 3])
    assert reporter.phases == ["download", "load"]
    assert _llama_scope.identify(params).digest == before.digest


@pytest.mark.parametrize(
    ("params", "patterns"),
    [
        ({}, ["layer_2/width_1k/average_l0_30/params.npz"]),
        ({"layers": 2}, ["layer_2/width_1k/average_l0_30/params.npz"]),
        ({"layers": 2, "l0": "all"}, ["layer_2/width_1k/average_l0_*/params.npz"]),
        ({"l0": (12,)}, ["layer_*/width_1k/average_l0_12/params.npz"]),
    ],
)
def test_only_what_is_asked_for_is_fetched(
    fetched: list[list[str]], params: dict[str, Any], patterns: list[str]
) -> None:
    _gemma_scope.load(GemmaScope(release="org/scope", width="1k", **params), SilentReporter())
    assert fetched == [patterns]


def test_the_digest_of_a_release_is_its_commit_and_what_is_chosen(cache: Path) -> None:
    cached, lacking = (
        _llama_scope.identify(LlamaScope(release="org/Lab-LXR-4x", layers=layers))
        for layers in (1, 3)
    )
    assert (cached.facts["inputs"], cached.facts["width"], cached.facts["layers"]) == (
        128,
        512,
        [1],
    )
    assert (cached.facts["count"], cached.facts["row_flops"]) == (1, 2.0 * 128 * 512)
    assert lacking.facts == {}
    assert (cached.name, cached.revision) == ("org/Lab-LXR-4x", COMMIT)
    assert cached.digest != lacking.digest
    assert _gemma_scope.identify(GemmaScope(release="org/scope", width="1k")).revision == COMMIT


def test_a_layer_that_the_cache_lacks_offline(cache: Path) -> None:
    message = refused(
        _llama_scope.load, LlamaScope(release="org/Lab-LXR-4x", layers=3), SilentReporter()
    )
    assert (
        message == "saes.with.layers: org/Lab-LXR-4x has no SAE for layer 3; it has 1-2. Layers "
        "count from 0."
    )


def test_a_release_that_is_not_cached_offline(cache: Path) -> None:
    message = f"is not in the Hugging Face cache ({cache}), and HF_HUB_OFFLINE disables downloads."
    assert message in refused(_llama_scope.identify, LlamaScope(release="org/none"))
    assert message in refused(_gemma_scope.identify, GemmaScope(release="org/none"))
