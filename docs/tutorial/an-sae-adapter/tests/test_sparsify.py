"""The part keeps its contract, and so do the SAEs that it loads; they compute what sparsify's
formula says.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from toolkit_sparsify import toolkit_parts

from toolkit.errors import BadInput, DataError
from toolkit.testing.contracts import check_part
from toolkit.testing.fakes import SilentReporter
from toolkit.testing.loaded import check_loaded

INPUTS, WIDTH, K = 6, 20, 3
(PART,) = toolkit_parts()


def write(folder: Path, *, tensors=None, **settings) -> Path:
    """An SAE with random weights, as sparsify writes it."""
    import torch
    from safetensors.torch import save_file

    draw = torch.Generator().manual_seed(0)
    shapes = {
        "encoder.weight": (WIDTH, INPUTS),
        "encoder.bias": (WIDTH,),
        "W_dec": (WIDTH, INPUTS),
        "b_dec": (INPUTS,),
    }
    folder.mkdir(parents=True)
    known = {"d_in": INPUTS, "num_latents": WIDTH, "k": K, "normalize_decoder": True, **settings}
    (folder / "cfg.json").write_text(json.dumps(known))
    made = {name: torch.randn(*shape, generator=draw) for name, shape in shapes.items()} | (
        tensors or {}
    )
    save_file(made, folder / "sae.safetensors")
    return folder.parent


def loaded(root: Path, **params):
    return PART.load(PART.params(path=str(root), **params), SilentReporter())


def test_contract(tmp_path):
    for name in ("layers.1", "layers.10", "layers.2.mlp"):
        root = write(tmp_path / "sae-tiny" / name)
    given = {"path": str(root), "layers": [1, 2]}
    check_part(PART, params=given)
    check_loaded(PART, params=given)
    assert [sae.hookpoint for sae in loaded(root)] == ["resid_post.1", "mlp_raw.2", "resid_post.10"]


def test_it_computes_what_the_formula_says(tmp_path):
    """Number by number, from the file."""
    import torch
    from safetensors.torch import load_file

    (sae,) = loaded(write(tmp_path / "layers.3"))
    held = {
        name: tensor.tolist()
        for name, tensor in load_file(tmp_path / "layers.3" / "sae.safetensors").items()
    }
    rows = torch.randn(4, INPUTS, generator=torch.Generator().manual_seed(1))
    found = sae.encode(rows)
    for x, f, rebuilt in zip(
        rows.tolist(), found.tolist(), sae.decode(found).tolist(), strict=True
    ):
        centred = [value - bias for value, bias in zip(x, held["b_dec"], strict=True)]
        weights = zip(held["encoder.weight"], held["encoder.bias"], strict=True)
        z = [
            max(0.0, sum(w * v for w, v in zip(row, centred, strict=True)) + e)
            for row, e in weights
        ]
        last = sorted(z, reverse=True)[K - 1]
        assert f == pytest.approx([value if value >= last else 0.0 for value in z], abs=1e-5)
        wanted = [
            b + sum(v * row[at] for v, row in zip(f, held["W_dec"], strict=True))
            for at, b in enumerate(held["b_dec"])
        ]
        assert rebuilt == pytest.approx(wanted, abs=1e-5)


def test_stored_dtypes_and_the_default_width(tmp_path):
    import torch

    tensors = {
        "encoder.weight": torch.ones(INPUTS * 2, INPUTS).bfloat16(),
        "encoder.bias": torch.arange(INPUTS * 2).bfloat16(),
        "W_dec": torch.ones(INPUTS * 2, INPUTS).bfloat16(),
        "b_dec": torch.zeros(INPUTS).bfloat16(),
    }
    (sae,) = loaded(
        write(tmp_path / "layers.3", tensors=tensors, num_latents=0, expansion_factor=2)
    )
    assert sae.encode(torch.ones(1, INPUTS)).tolist() == [[0] * 9 + [15, 16, 17]]


def test_what_it_refuses(tmp_path):
    import torch

    root = write(tmp_path / "a" / "layers.3")
    for params in ({"layers": (3, 4)}, {"layers": (4,)}):
        with pytest.raises(
            BadInput,
            match=r"has SAEs of sparsify for layers 3\. Name some of these, or another folder\.",
        ):
            loaded(root, **params)
    with pytest.raises(BadInput, match=r"has SAEs of sparsify for layers none\."):
        loaded(tmp_path)
    for settings, said in (
        ({"transcode": True}, r"transcode is True; `sparsify` reads SAEs with False only\."),
        (
            {"activation": "groupmax"},
            r"activation is 'groupmax'; `sparsify` reads SAEs with 'topk' only\.",
        ),
        ({"d_in": 7}, r"its config promises \{'encoder\.weight': \[20, 7\]"),
    ):
        with pytest.raises(BadInput, match=said):
            loaded(write(tmp_path / said[:9] / "layers.3", **settings))
    with pytest.raises(BadInput, match=r"'elsewhere' is not a hookpoint"):
        loaded(write(tmp_path / "b" / "elsewhere"))
    (sae,) = loaded(
        write(tmp_path / "c" / "layers.3", tensors={"b_dec": torch.full((INPUTS,), float("nan"))})
    )
    with pytest.raises(
        DataError, match=r"b_dec has numbers that are NaN or infinite\. Copy or download it again\."
    ):
        sae.encode(torch.ones(1, INPUTS))
    (root / "layers.3" / "sae.safetensors").write_bytes(b"\x80\x02.")
    with pytest.raises(BadInput, match=r"sae\.safetensors is not a safetensors file"):
        loaded(root)
