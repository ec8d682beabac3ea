"""Decoder rows without torch: the loaded SAE's directions, any range, and what is said of files
that cannot be read.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from toolkit.errors import BadInput
from toolkit.testing.loaded import check_loaded
from toolkit.testing.promises import Broken
from toolkit_lab import saes_path
from toolkit_saes import toolkit_parts
from toolkit_saes.layouts import decoders as _decoders
from toolkit_saes.layouts.gemma_scope import GemmaScope
from toolkit_saes.layouts.llama_scope import LlamaScope

PARTS = {part.name: part for part in toolkit_parts()}
LLAMA = "Llama3_1-8B-Base-L3R-8x"
GEMMA = "layer_3/width_16k/average_l0_59"


def llama(folder: Path, weight: torch.Tensor) -> LlamaScope:
    sae_folder = folder / LLAMA
    (sae_folder / "checkpoints").mkdir(parents=True)
    (sae_folder / "hyperparams.json").write_text(json.dumps({"d_model": weight.shape[0]}))
    save_file(
        {"decoder.bias": torch.zeros(3), "decoder.weight": weight},
        sae_folder / "checkpoints" / "final.safetensors",
    )
    return LlamaScope(path=str(folder))


def gemma(folder: Path, save: Any = np.savez, **arrays: Any) -> GemmaScope:
    (folder / GEMMA).mkdir(parents=True)
    save(folder / GEMMA / "params.npz", **arrays)
    return GemmaScope(path=str(folder))


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_llama_scope_gives_columns_as_rows(tmp_path: Path, kind: torch.dtype) -> None:
    weight = torch.tensor([[1.0, 2, 3], [-0.5, 0, 0.25]], dtype=kind)
    result = _decoders.llama_scope(llama(tmp_path, weight), LLAMA)
    assert result.width == 3
    assert result.rows(0, 3).tolist() == [[1, -0.5], [2, 0], [3, 0.25]]
    assert result.rows(1, 2).dtype == np.float32
    assert result.rows(1, 2).tolist() == [[2, 0]]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_gemma_scope_gives_any_range(tmp_path: Path, save: Any) -> None:
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    result = _decoders.gemma_scope(gemma(tmp_path, save, threshold=np.zeros(4), W_dec=rows), GEMMA)
    assert result.width == 4
    for first, last in ((0, 4), (1, 3), (3, 4), (2, 9)):
        assert result.rows(first, last).tolist() == rows[first:last].tolist()


def test_the_contract_holds_decoders_against_what_is_loaded() -> None:
    check_loaded(PARTS["llama_scope"], params={"path": str(saes_path()), "layers": "1"})


def test_the_contract_finds_a_decoder_of_other_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = _decoders._columns
    monkeypatch.setattr(
        _decoders,
        "_columns",
        lambda *args: lambda first, last: columns(*args)(first, last)[::-1].copy(),
    )
    with pytest.raises(Broken, match="point in other directions"):
        check_loaded(PARTS["llama_scope"], params={"path": str(saes_path()), "layers": "1"})


def test_what_cannot_be_read_says_so(tmp_path: Path) -> None:
    params = llama(tmp_path / "llama", torch.zeros(2, 3, dtype=torch.int32))
    with pytest.raises(BadInput, match=r"decoder\.weight is I32; readable are BF16, F64, F32, F16"):
        _decoders.llama_scope(params, LLAMA)
    for name in ("../x-L3R-8x", "else"):
        with pytest.raises(BadInput, match="is not the name of an SAE in the Llama Scope layout"):
            _decoders.llama_scope(params, name)
    with pytest.raises(BadInput, match="There is no file"):
        _decoders.llama_scope(params, LLAMA.replace("L3", "L4"))
    (tmp_path / "llama" / LLAMA / "hyperparams.json").unlink()
    with pytest.raises(BadInput, match=r"There is no file .*hyperparams\.json"):
        _decoders.llama_scope(params, LLAMA)
    with pytest.raises(BadInput, match="no matrix 'decoder"):
        _decoders.llama_scope(llama(tmp_path / "flat", torch.zeros(3)), LLAMA)
    with pytest.raises(BadInput, match="is not the name of an SAE in the Gemma Scope layout"):
        _decoders.gemma_scope(GemmaScope(path=str(tmp_path)), "layer_3/../average_l0_1")


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"W_enc": np.zeros((2, 2))}, "has no readable array 'W_dec'"),
        ({"W_dec": np.zeros(3)}, r"W_dec is \(3,\); expected \(features, inputs\)"),
        ({"W_dec": np.asfortranarray(np.ones((2, 3)))}, "it is stored by columns"),
    ],
)
def test_gemma_archives_that_do_not_fit(tmp_path: Path, arrays: dict[str, Any], match: str) -> None:
    with pytest.raises(BadInput, match=match):
        _decoders.gemma_scope(gemma(tmp_path, **arrays), GEMMA)


def test_a_release_that_is_not_in_the_cache_is_not_fetched() -> None:
    with pytest.raises(
        BadInput,
        match=r"google/gemma-scope-2b-pt-res at revision fd571b4\w+ is not in "
        r"the "
        r"Hugging "
        r"Face cache",
    ):
        _decoders.gemma_scope(GemmaScope(release="google/gemma-scope-2b-pt-res"), GEMMA)


def test_no_torch_is_imported() -> None:
    program = (
        "import sys; from toolkit_saes import toolkit_parts; part = next(p for p in "
        "toolkit_parts() if p.name == 'llama_scope');found = "
        f"part.decoder(part.params(path={str(saes_path())!r}), 'Lab-L1R-4x'); found.rows(0, "
        "2);sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0
