"""Every hookpoint against interp-engine, which finds a model's modules by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.plugins.toolkit_hf.families import FAMILIES, LAYERS, build
from toolkit.testing.fakes import SilentReporter
from toolkit_hf._identity import HuggingFace
from toolkit_hf._load import load

THEIRS = {
    "resid_pre": "resid_pre",
    "resid_mid": "resid_mid",
    "resid_post": "resid_post",
    "attn_z": "z",
    "attn_out": "attn_out",
    "attn_probs": "attn_probs",
    "mlp_in": "mlp_in",
    "mlp_raw": "mlp_out",
    "mlp_out": "mlp_out",
}
ENTERS_THE_STREAM = {"attn_out": "attn_out_post", "mlp_out": "mlp_out_post"}
CHANGED_ON_THE_WAY = ("gemma2", "gemma3", "granite", "olmo2")
"""Where a norm, or a factor, stands between what a module gives and what enters the stream."""


@pytest.mark.peer
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", FAMILIES)
def test_hookpoints_are_those_of_interp_engine(name: str, tmp_path: Path) -> None:
    peer: Any = pytest.importorskip("interp_engine")
    family = FAMILIES[name]
    folder = build(family, tmp_path / name)
    ours = load(
        HuggingFace(path=str(folder), device="cpu", **family.loader_params), SilentReporter()
    )
    theirs = peer.load_model(str(folder), backend="eager", device="cpu", dtype="float32")
    ids = torch.randint(256, (1, 20), generator=torch.Generator().manual_seed(0))
    points = {**THEIRS, **(ENTERS_THE_STREAM if name in CHANGED_ON_THE_WAY else {})}
    if name == "pythia":  # attention and MLP side by side: both refuse what is between them
        del points["resid_mid"]
    for site, point in points.items():
        for layer in range(LAYERS):
            expected = peer.capture(theirs, ids, [f"{point}.{layer}"])[f"{point}.{layer}"]
            result = ours.run(ids.tolist(), [f"{site}.{layer}"])[f"{site}.{layer}"]
            torch.testing.assert_close(
                result,
                expected.reshape(result.shape),
                rtol=1e-4,
                atol=1e-4 * float(expected.abs().max()),
            )
