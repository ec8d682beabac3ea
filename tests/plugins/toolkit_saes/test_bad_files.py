"""Every kind of file that cannot be used: one clear line each, and nothing of it is run."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from toolkit.errors import BadInput, DataError, ToolkitError
from toolkit.testing import sae_files as write
from toolkit.testing.fakes import SilentReporter
from toolkit_saes.encode import tensors as _tensors
from toolkit_saes.layouts import gemma_scope as _gemma_scope
from toolkit_saes.layouts import llama_scope as _llama_scope
from toolkit_saes.layouts import saelens as _saelens
from toolkit_saes.layouts.gemma_scope import GemmaScope
from toolkit_saes.layouts.gemma_scope_files import NAMES
from toolkit_saes.layouts.llama_scope import LlamaScope
from toolkit_saes.layouts.saelens import SaeLens

ROW = torch.ones(1, write.INPUTS)


def llama(folder: Path, **settings: Any) -> None:
    write.llama(folder / "x-L3R-8x", **settings)


def old(folder: Path, **settings: Any) -> None:
    write.openmoss(folder / "L3R", new=False, **settings)


def new(folder: Path, **settings: Any) -> None:
    write.openmoss(folder / "L3R", **settings)


def gemma(folder: Path, **settings: Any) -> None:
    arrays = settings.pop("tensors", {})
    changes = {name: None if array is None else array.numpy() for name, array in arrays.items()}
    write.gemma(
        folder / "layer_3" / "width_16k" / "average_l0_7" / "params.npz", **changes, **settings
    )


def lens(folder: Path, **settings: Any) -> None:
    write.saelens(folder / "sae", **settings)


WRITERS: dict[str, Callable[..., None]] = {
    "llama": llama,
    "openmoss-2025": old,
    "openmoss-2026": new,
    "gemma": gemma,
    "saelens": lens,
}
ENCODER = {
    "llama": "encoder.weight",
    "openmoss-2025": "encoder.weight",
    "openmoss-2026": "W_E",
    "gemma": "W_enc",
    "saelens": "W_enc",
}
BIAS = {
    "llama": "encoder.bias",
    "openmoss-2025": "encoder.bias",
    "openmoss-2026": "b_E",
    "gemma": "b_enc",
    "saelens": "b_enc",
}
each = pytest.mark.parametrize("layout", WRITERS)


def used(layout: str, folder: Path) -> None:
    """Loaded, and its weights read."""
    if layout == "gemma":
        saes = _gemma_scope.load(GemmaScope(path=str(folder)), SilentReporter())
    elif layout == "saelens":
        saes = _saelens.load(SaeLens(path=str(folder)), SilentReporter())
    else:
        saes = _llama_scope.load(LlamaScope(path=str(folder)), SilentReporter())
    saes[0].encode(ROW)


def refused(layout: str, folder: Path, kind: type[ToolkitError] = BadInput) -> str:
    with pytest.raises(kind) as caught:
        used(layout, folder)
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder) in message
    return message


def weights(folder: Path) -> Path:
    return next(
        path for path in sorted(folder.rglob("*")) if path.suffix in (".safetensors", ".npz")
    )


@each
def test_a_whole_file_is_read(layout: str, tmp_path: Path) -> None:
    WRITERS[layout](tmp_path)
    used(layout, tmp_path)


@each
@pytest.mark.parametrize("left", [0, 5, 0.5, 0.99])
def test_truncated(layout: str, tmp_path: Path, left: float) -> None:
    WRITERS[layout](tmp_path)
    file = weights(tmp_path)
    size = file.stat().st_size
    with file.open("r+b") as stream:
        stream.truncate(int(left if left > 1 else left * size))
    message = refused(layout, tmp_path)
    assert "Copy or download it again." in message
    assert "cut off" in message or "no readable header" in message


@each
@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.bool])
def test_a_dtype_that_is_no_weight(layout: str, tmp_path: Path, dtype: torch.dtype) -> None:
    shape = (
        (write.WIDTH, write.INPUTS)
        if ENCODER[layout] == "encoder.weight"
        else (write.INPUTS, write.WIDTH)
    )
    WRITERS[layout](tmp_path, tensors={ENCODER[layout]: torch.zeros(shape, dtype=dtype)})
    message = refused(layout, tmp_path)
    assert f"{ENCODER[layout]} is of dtype " in message
    assert "weights are " in message


@each
def test_missing_tensors(layout: str, tmp_path: Path) -> None:
    WRITERS[layout](tmp_path, tensors={BIAS[layout]: None})
    assert f"'{BIAS[layout]}'" in refused(layout, tmp_path)


@each
def test_swapped_axes(layout: str, tmp_path: Path) -> None:
    shape = (
        (write.INPUTS, write.WIDTH)
        if ENCODER[layout] == "encoder.weight"
        else (write.WIDTH, write.INPUTS)
    )
    WRITERS[layout](tmp_path, tensors={ENCODER[layout]: torch.zeros(shape)})
    message = refused(layout, tmp_path)
    assert ENCODER[layout] in message
    assert "swapped" in message or "asks for" in message


@each
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_none(layout: str, tmp_path: Path, bad: float) -> None:
    WRITERS[layout](
        tmp_path, tensors={BIAS[layout]: torch.tensor([bad] * 2 + [0.0] * (write.WIDTH - 2))}
    )
    message = refused(layout, tmp_path, DataError)
    assert f"2 of 11 numbers of {BIAS[layout]} are NaN or infinite." in message


@pytest.mark.parametrize("layout", ["llama", "openmoss-2025", "openmoss-2026", "saelens"])
def test_as_many_features_as_inputs(layout: str, tmp_path: Path) -> None:
    size = write.WIDTH
    square = {ENCODER[layout]: torch.zeros(size, size)}
    WRITERS[layout](
        tmp_path,
        tensors=square,
        **{"saelens": {"d_in": size}}.get(
            layout, {"d_model": size, **({} if layout == "llama" else {"expansion_factor": 1})}
        ),
    )
    message = refused(layout, tmp_path)
    assert (
        "it has 11 features and 11 inputs, 11 outputs: which axis is which cannot be checked."
        in message
    )


def test_an_archive_with_as_many_features_as_inputs(tmp_path: Path) -> None:
    gemma(tmp_path, inputs=write.WIDTH)
    assert "which axis is which cannot be checked" in refused("gemma", tmp_path)


class Trap:
    """What runs when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, ("raise SystemExit('a pickle was opened')",)


@each
def test_a_pickle_under_the_right_name(layout: str, tmp_path: Path) -> None:
    WRITERS[layout](tmp_path)
    weights(tmp_path).write_bytes(pickle.dumps(Trap()))
    message = refused(layout, tmp_path)
    assert "no readable header" in message or "not a NumPy archive" in message


def test_an_archive_of_objects(tmp_path: Path) -> None:
    gemma(tmp_path)
    np.savez(weights(tmp_path), W_enc=np.array([Trap()], dtype=object))
    assert (
        "W_enc holds Python objects (a pickle), which could run code. It is not opened."
        in refused("gemma", tmp_path)
    )


@pytest.mark.parametrize("layout", ["llama", "openmoss-2025", "saelens"])
def test_weights_that_are_there_as_a_pickle_only(layout: str, tmp_path: Path) -> None:
    WRITERS[layout](tmp_path)
    file = weights(tmp_path)
    file.rename(file.with_suffix(".pt"))
    assert f"{file.stem}.pt is a pickle, which could run code. It is not opened." in refused(
        layout, tmp_path
    )


def test_a_distributed_checkpoint(tmp_path: Path) -> None:
    new(tmp_path)
    weights(tmp_path).unlink()
    (tmp_path / "L3R" / "sae_weights.dcp").mkdir()
    assert "sae_weights.dcp is a distributed checkpoint, which holds pickles." in refused(
        "openmoss-2026", tmp_path
    )


def test_a_zip_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand times its size once it is inflated; only headers are read to see it."""
    monkeypatch.setattr(_tensors, "INFLATED", 1 << 20)
    file = tmp_path / "layer_3" / "width_16k" / "average_l0_7" / "params.npz"
    file.parent.mkdir(parents=True)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in NAMES:
            archive.writestr(f"{name}.npy", b"\0" * (1 << 20))
    assert "would grow from" in refused("gemma", tmp_path)


def test_an_array_that_is_longer_than_it_says(tmp_path: Path) -> None:
    gemma(tmp_path)
    file = weights(tmp_path)
    with zipfile.ZipFile(file) as archive:
        arrays = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in arrays.items():
            archive.writestr(name, data + (b"\0" * 64 if name == "b_enc.npy" else b""))
    assert "b_enc is cut off or too long: its header promises" in refused("gemma", tmp_path)


@each
def test_a_link_that_leads_out(layout: str, tmp_path: Path) -> None:
    folder, outside = tmp_path / "saes", tmp_path / "elsewhere"
    WRITERS[layout](folder)
    file = weights(folder)
    outside.mkdir()
    file.rename(outside / "secret")
    file.symlink_to(outside / "secret")
    assert (
        refused(layout, folder)
        == f"{file} is a link that leads out of {folder}, to {outside / 'secret'}. "
        f"Put "
        f"the file itself "
        f"there."
    )


@each
def test_a_link_into_its_own_hub_cache(layout: str, tmp_path: Path) -> None:
    """As the cache has them: snapshots link to blobs of the same repository, and of no other."""
    repository = tmp_path / "models--org--saes"
    folder = repository / "snapshots" / ("c" * 40)
    WRITERS[layout](folder)
    file = weights(folder)
    (repository / "blobs").mkdir()
    file.rename(repository / "blobs" / "0")
    file.symlink_to(repository / "blobs" / "0")
    used(layout, folder)
    other = tmp_path / "models--org--other" / "blobs"
    other.mkdir(parents=True)
    (repository / "blobs" / "0").rename(other / "0")
    file.unlink()
    file.symlink_to(other / "0")
    assert "is a link that leads out of" in refused(layout, folder)


# --- settings that nothing here runs --------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sae_type": "clt"}, "sae_type is 'clt'; `llama_scope` reads sae, transcoder."),
        (
            {"act_fn": "layertopk"},
            "act_fn is 'layertopk'; `llama_scope` reads batchtopk, jumprelu, relu, topk.",
        ),
        (
            {"norm_activation": "batch-wise"},
            "norm_activation is 'batch-wise'; `llama_scope` reads dataset-wise, inference, "
            "token-wise.",
        ),
        (
            {"use_glu_encoder": True},
            "use_glu_encoder is True; `llama_scope` reads only SAEs without it.",
        ),
        ({"d_model": None}, "has no 'd_model': it is not in OpenMOSS's layout."),
        ({"d_model": "six"}, "d_model is 'six'; expected a whole number of at least 1."),
        ({"expansion_factor": -1}, "expansion_factor is -1; expected a number above 0."),
        (
            {"norms": (0.0, 0.0)},
            "dataset_average_activation_norm.blocks.3.hook_resid_post is 0.0; expected a number "
            "above 0.",
        ),
        ({"hook_point_in": "blocks.3.somewhere"}, "'blocks.3.somewhere' is not a hookpoint."),
    ],
)
def test_openmoss_settings(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    new(tmp_path, **settings)
    with pytest.raises(BadInput) as caught:
        used("openmoss-2026", tmp_path)
    assert message in str(caught.value)


def test_openmoss_without_what_it_runs_by(tmp_path: Path) -> None:
    new(
        tmp_path / "a",
        tensors={"activation_function.log_jumprelu_threshold": None},
        act_fn="batchtopk",
    )
    assert "what fires would depend on the batch. Export it as jumprelu" in refused(
        "openmoss-2026", tmp_path / "a"
    )
    new(tmp_path / "b", tensors={"activation_function.log_jumprelu_threshold": None})
    assert "it has no log_jumprelu_threshold: it is damaged." in refused(
        "openmoss-2026", tmp_path / "b"
    )
    new(tmp_path / "c", tensors={f"dataset_average_activation_norm.{write.HOOK}": None})
    assert "the norm that inputs are scaled by is missing." in refused(
        "openmoss-2026", tmp_path / "c"
    )
    new(tmp_path / "d", tensors={"W_E": None})
    assert "has neither encoder.weight and decoder.weight (2025) and W_E and W_D (2026)" in refused(
        "openmoss-2026", tmp_path / "d"
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"architecture": "batchtopk"},
            "architecture is 'batchtopk'; `saelens` reads abstopk, gated,",
        ),
        ({"architecture": "temporal"}, "architecture is 'temporal'; `saelens` reads "),
        (
            {"normalize_activations": "constant_scalar_rescale"},
            "normalize_activations is 'constant_scalar_rescale'; `saelens` reads ",
        ),
        ({"d_sae": None}, "has no 'd_sae': it is not a config of SAELens."),
        ({"d_in": 7}, "W_enc is [6, 11]; cfg.json promises [7, 11]."),
        (
            {"metadata": {"sae_lens_version": "6.1.0"}},
            "has no 'hook_name' in its metadata: where the SAE belongs is not known.",
        ),
        (
            {"metadata": {"hook_name": "blocks.3.nowhere", "sae_lens_version": "6.1.0"}},
            "hook_name: 'blocks.3.nowhere' is not a hookpoint.",
        ),
        (
            {
                "metadata": {
                    "hook_name": write.HOOK,
                    "hook_head_index": 2,
                    "sae_lens_version": "6.1.0",
                }
            },
            "SAEs of a single head are not read.",
        ),
    ],
)
def test_saelens_settings(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    lens(tmp_path)
    file = tmp_path / "sae" / "cfg.json"
    known = {
        name: value
        for name, value in (json.loads(file.read_text()) | settings).items()
        if value is not None
    }
    file.write_text(json.dumps(known))
    assert message in refused("saelens", tmp_path)


def test_saelens_tensors_that_it_does_not_have(tmp_path: Path) -> None:
    lens(tmp_path, tensors={"W_skip": torch.zeros(write.INPUTS, write.INPUTS)})
    assert "has a tensor 'W_skip' that an SAE of this architecture does not have" in refused(
        "saelens", tmp_path
    )


def test_saelens_with_a_factor_for_each_feature(tmp_path: Path) -> None:
    lens(tmp_path / "a", tensors={"scaling_factor": torch.ones(write.WIDTH)})
    used("saelens", tmp_path / "a")
    lens(tmp_path / "b", tensors={"scaling_factor": torch.full((write.WIDTH,), 2.0)})
    assert "scaling_factor is not 1" in refused("saelens", tmp_path / "b")


@pytest.mark.parametrize("file", ["hyperparams.json", "config.json", "cfg.json"])
def test_a_config_that_is_no_json(tmp_path: Path, file: str) -> None:
    layout = {"hyperparams.json": "llama", "config.json": "openmoss-2026", "cfg.json": "saelens"}[
        file
    ]
    WRITERS[layout](tmp_path)
    next(tmp_path.rglob(file)).write_text("{")
    assert "cannot be read as JSON" in refused(layout, tmp_path)


@pytest.mark.parametrize("value", [None, 0, -1, "3", {"in": 3.0}, float("nan")])
def test_llama_scope_norms_that_are_none(tmp_path: Path, value: Any) -> None:
    llama(tmp_path)
    file = next(tmp_path.rglob("hyperparams.json"))
    file.write_text(
        json.dumps(
            json.loads(file.read_text())
            | {"dataset_average_activation_norm": {"in": value, "out": 3.0}}
        )
    )
    assert "expected a number above 0" in refused("llama", tmp_path)
