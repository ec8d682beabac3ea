"""SAELens's own code on files that it wrote itself, and on published layouts that it converts:
encode, decode and active sets.

`nox -s peer` installs it and runs this.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from toolkit.testing import sae_files as write
from toolkit.testing.fakes import SilentReporter
from toolkit_saes.layouts import gemma_scope as _gemma_scope
from toolkit_saes.layouts import llama_scope as _llama_scope
from toolkit_saes.layouts import sae_lens_id as _sae_lens_id
from toolkit_saes.layouts import saelens as _saelens
from toolkit_saes.layouts.gemma_scope import GemmaScope
from toolkit_saes.layouts.llama_scope import LlamaScope
from toolkit_saes.layouts.sae_lens_id import SaeLensId
from toolkit_saes.layouts.saelens import SaeLens
from toolkit_saes.layouts.saelens_config import ARCHITECTURES

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore")]
INPUTS, WIDTH, OUTPUTS = 24, 100, 20
ROWS = write.numbers(200, INPUTS, seed=99) * 2
COMMIT = "c" * 40


def same(ours: Any, peer: Any) -> None:
    """Within 1e-5, with the same features active."""
    with torch.no_grad():
        theirs, rebuilt = peer.encode(ROWS), peer(ROWS)
    result = ours.encode(ROWS)
    assert (result - theirs).abs().max() <= 1e-5
    assert torch.equal(result != 0, theirs != 0)
    assert 0 < int((result != 0).sum()) < result.numel()
    assert (ours.reconstruct(ROWS) - rebuilt).abs().max() <= 1e-5


def made(architecture: str, **settings: Any) -> Any:
    """An SAE of SAELens with random weights."""
    from sae_lens.registry import get_sae_class
    from sae_lens.saes.sae import SAEMetadata

    kind, config = get_sae_class(architecture)
    transcoder = "transcoder" in architecture
    about = {"hook_name": "blocks.3.ln2.hook_normalized" if transcoder else write.HOOK}
    about |= {"hook_name_out": "blocks.3.hook_mlp_out"} if transcoder else {}
    fields = {"d_in": INPUTS, "d_sae": WIDTH, "metadata": SAEMetadata(**about), **settings}
    fields |= {"d_out": OUTPUTS, "apply_b_dec_to_input": False} if transcoder else {}
    fields |= {"k": 9} if "topk" in architecture else {}
    peer = kind(config(**fields))
    with torch.no_grad():
        for index, (name, tensor) in enumerate(sorted(peer.named_parameters())):
            tensor.copy_(
                write.numbers(*tensor.shape, seed=index)
                / (4 if name == "r_mag" else math.sqrt(tensor.shape[0]) / 2)
            )
            if name == "threshold":
                tensor.abs_()
    return peer.eval()


def reread(peer: Any, folder: Path) -> Any:
    peer.save_model(folder)
    return _saelens.load(SaeLens(path=str(folder)), SilentReporter())[0]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture(architecture: str, tmp_path: Path) -> None:
    peer = made(architecture)
    same(reread(peer, tmp_path), peer)


@pytest.mark.parametrize("norm", ["constant_norm_rescale", "layer_norm"])
@pytest.mark.parametrize("architecture", ["standard", "gated", "jumprelu", "topk", "transcoder"])
def test_norms_of_each_row(architecture: str, norm: str, tmp_path: Path) -> None:
    peer = made(architecture, normalize_activations=norm)
    same(reread(peer, tmp_path), peer)


@pytest.mark.parametrize("architecture", ["standard", "gated", "jumprelu", "topk", "abstopk"])
def test_b_dec_left_alone(architecture: str, tmp_path: Path) -> None:
    peer = made(architecture, apply_b_dec_to_input=False)
    same(reread(peer, tmp_path), peer)


@pytest.mark.parametrize("architecture", ["topk", "abstopk"])
def test_topk_by_decoder_norm(architecture: str, tmp_path: Path) -> None:
    peer = made(architecture, rescale_acts_by_decoder_norm=True)
    same(reread(peer, tmp_path), peer)


def test_a_data_sets_factor(tmp_path: Path) -> None:
    peer = made("jumprelu", normalize_activations="expected_average_only_in")
    peer.save_model(tmp_path)
    (plain,) = _saelens.load(SaeLens(path=str(tmp_path), norm_scaling_factor=1), SilentReporter())
    same(plain, peer)
    peer.fold_activation_norm_scaling_factor(1.7)
    (ours,) = _saelens.load(SaeLens(path=str(tmp_path), norm_scaling_factor=1.7), SilentReporter())
    same(ours, peer)


def test_batchtopk_is_saved_as_jumprelu(tmp_path: Path) -> None:
    from sae_lens import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
    from sae_lens.saes.sae import SAE, SAEMetadata

    config = BatchTopKTrainingSAEConfig(
        d_in=INPUTS, d_sae=WIDTH, k=9, metadata=SAEMetadata(hook_name=write.HOOK)
    )
    training = BatchTopKTrainingSAE(config)
    with torch.no_grad():
        training.W_enc.copy_(write.numbers(INPUTS, WIDTH, seed=1) / 3)
    training.topk_threshold.fill_(0.3)
    training.save_inference_model(tmp_path)
    same(
        _saelens.load(SaeLens(path=str(tmp_path)), SilentReporter())[0],
        SAE.load_from_disk(tmp_path),
    )


def test_files_of_before_version_6(tmp_path: Path) -> None:
    from sae_lens import SAE

    flat = {
        "metadata": None,
        "hook_name": write.HOOK,
        "apply_b_dec_to_input": None,
        "k": None,
        "normalize_activations": False,
    }
    flat |= {
        "hook_layer": 3,
        "model_name": "gpt2",
        "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": 3},
    }
    write.saelens(tmp_path, **flat)
    ours, peer = (
        _saelens.load(SaeLens(path=str(tmp_path)), SilentReporter())[0],
        SAE.load_from_disk(tmp_path),
    )
    rows = ROWS[:, : write.INPUTS]
    with torch.no_grad():
        assert (ours.encode(rows) - peer.encode(rows)).abs().max() <= 1e-5
        assert (ours.reconstruct(rows) - peer(rows)).abs().max() <= 1e-5


# --- published layouts that SAELens converts ------------------------------------------------------


def cached(root: Path, repository: str) -> Path:
    """An empty snapshot in a hub cache."""
    home = root / f"models--{repository.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(COMMIT)
    return home / "snapshots" / COMMIT


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache for both: SAELens asks huggingface_hub, which reads this constant when it is
    called.
    """
    from huggingface_hub import constants, file_download

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(file_download, "HF_HUB_CACHE", str(tmp_path), raising=False)
    return tmp_path


@pytest.mark.parametrize("site", ["res", "mlp", "att"])
def test_gemma_scope(hub: Path, site: str) -> None:
    """By SAELens's own reader of the archive, told of the small sizes; the canonical SAE of a
    layer, too, is the one that it means.
    """
    from sae_lens.loading import pretrained_sae_loaders as loaders
    from sae_lens.loading.pretrained_saes_directory import get_repo_id_and_folder_name
    from sae_lens.saes.sae import SAE

    release = f"gemma-scope-2b-pt-{site}"
    repository, name = get_repo_id_and_folder_name(
        f"{release}-canonical", "layer_20/width_16k/canonical"
    )
    write.gemma(cached(hub, repository) / name / "params.npz", INPUTS)
    sizes = {"d_in": INPUTS, "d_sae": write.WIDTH}
    known, raw, _ = loaders.gemma_2_sae_huggingface_loader(repository, name, cfg_overrides=sizes)
    peer = SAE.from_dict(loaders.handle_config_defaulting(known))
    peer.load_state_dict(raw)
    peer.turn_off_forward_pass_hook_z_reshaping()
    (ours,) = _gemma_scope.load(
        GemmaScope(release=repository, revision="main", layers=20), SilentReporter()
    )
    assert ours.name == name
    same(ours, peer)


def test_llama_scope_differs_as_its_page_says(hub: Path) -> None:
    """SAELens leaves the decoder norm out of the threshold: equal where rows have unit length, and
    only there.
    """
    from sae_lens import SAE

    folder = cached(hub, "fnlp/Llama3_1-8B-Base-LXR-8x") / "Llama3_1-8B-Base-L15R-8x"
    norm = math.sqrt(write.INPUTS) / (64 / 10.8125)
    made = write.llama(
        folder,
        "blocks.15.hook_resid_post",
        dataset_average_activation_norm={"in": norm, "out": norm},
    )
    unit = {"decoder.weight": made["decoder.weight"] / made["decoder.weight"].norm(dim=0)}
    for tensors, equal in ((unit, True), ({}, False)):
        write.llama(
            folder,
            "blocks.15.hook_resid_post",
            tensors=tensors,
            dataset_average_activation_norm={"in": norm, "out": norm},
        )
        write.write_json(folder / "lm_config.json", {"model_name": "meta-llama/Llama-3.1-8B"})
        peer = SAE.from_pretrained("llama_scope_lxr_8x", "l15r_8x")
        (ours,) = _llama_scope.load(
            LlamaScope(release="fnlp/Llama3_1-8B-Base-LXR-8x", revision="main", layers=15),
            SilentReporter(),
        )
        rows = ROWS[:, : write.INPUTS]
        with torch.no_grad():
            sets_equal = torch.equal(ours.encode(rows) != 0, peer.encode(rows) != 0)
        assert sets_equal == equal


def test_an_id_of_saelens(hub: Path) -> None:
    """Opened by SAELens, run by this toolkit: the same numbers, and an identity that names the
    commit.
    """
    from sae_lens import SAE

    release, name = "gpt2-small-res-jb", "blocks.8.hook_resid_pre"
    folder = cached(hub, "jbloom/GPT2-Small-SAEs-Reformatted")
    made("standard").save_model(folder / name)
    params = SaeLensId(release=release, ids=(name,))
    (ours,) = _sae_lens_id.load(params, SilentReporter())
    same(ours, SAE.from_pretrained(release, name))
    result = _sae_lens_id.identify(params)
    assert result.revision == COMMIT
    assert result.digest.startswith(f"jbloom/GPT2-Small-SAEs-Reformatted@{COMMIT}:{name}:sae-lens ")
