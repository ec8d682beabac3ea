"""The page on model families: its Python runs as it stands, on a small random model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.plugins.toolkit_hf.families import FAMILIES, build


@pytest.mark.slow
def test_a_family_in_python_runs_as_it_is_written(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it captures is what a plain hook sees, and the family takes at most 30 lines."""
    page = (root / "docs" / "reference" / "model-families.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(block.splitlines()) <= 30
    build(FAMILIES["persimmon"], tmp_path / "persimmon-8b")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    names: dict[str, Any] = {}
    exec(compile(block, "model-families.md", "exec"), names)
    ids = names["model"].encode("A text.").ids
    seen: list[torch.Tensor] = []
    layer = names["module"].get_submodule(names["persimmon"].blocks)[1]
    hook = layer.register_forward_hook(lambda _module, _given, out: seen.append(out))
    with torch.inference_mode():
        names["module"](torch.tensor([ids]))
    hook.remove()
    (out,) = seen
    stream = out[0] if isinstance(out, tuple) else out
    assert torch.allclose(names["streams"]["resid_post.1"], stream, atol=1e-5)
    assert names["streams"]["attn_z.1"].shape[-1] == names["model"].width
