"""What computing the model in bfloat16 changes: bounded, and as docs/explanation/extraction.md
says.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from toolkit.testing.fakes import SilentReporter
from toolkit_hf._identity import HuggingFace
from toolkit_hf._load import load
from toolkit_lab import model_path


@pytest.mark.slow
def test_bfloat16_moves_few_features_and_little(lab: Any) -> None:
    models = [
        load(HuggingFace(path=str(model_path()), dtype=dtype, device="cpu"), SilentReporter())
        for dtype in ("float32", "bfloat16")
    ]
    for sae in lab.saes():
        exact, rough = (
            torch.cat(
                [
                    model.run([ids], [sae.hookpoint])[sae.hookpoint][0, 1:].float()
                    for ids in lab.texts
                ]
            )
            for model in models
        )
        assert 0 < (exact - rough).norm() / exact.norm() < 0.01
        first, second = sae.encode(exact), sae.encode(rough)
        both, either = (first > 0) & (second > 0), (first > 0) | (second > 0)
        assert both.sum() / either.sum() > 0.98
        apart = ((first - second).abs() / first.clamp(min=1e-9))[both]
        assert apart.median() < 0.005
        assert apart.quantile(0.99) < 0.04
        assert first[~both].sum() / first.sum() < 0.005
