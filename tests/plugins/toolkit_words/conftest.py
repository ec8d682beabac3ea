"""Tiny checkpoints with random decoders, and small tables of replies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from tests.plugins.toolkit_hf.families import FAMILIES, WIDTH, build
from toolkit.saes import Sae
from toolkit.testing.fakes import SilentReporter
from toolkit_hf._identity import HuggingFace
from toolkit_hf._load import load


class Random(Sae):
    """An SAE of random decoder rows of different lengths."""

    def __init__(self, layer: int = 1, width: int = 40, site: str = "resid_post") -> None:
        self.name, self.hookpoint = f"random-{site}-{layer}", f"{site}.{layer}"
        self.release, self.digest, self.recipe = "tests", f"random {layer} {site}", "relu"
        self.width, self.inputs = width, WIDTH
        draw = torch.Generator().manual_seed(layer)
        self.rows = torch.randn(width, WIDTH, generator=draw) * (1 + torch.arange(width)[:, None])

    def encode(self, rows: torch.Tensor) -> torch.Tensor:
        return (rows.float() @ self.rows.T).clamp(min=0)

    def decode(self, activations: torch.Tensor) -> torch.Tensor:
        return activations @ self.rows

    def decoder_rows(self, features: Sequence[int] | torch.Tensor) -> torch.Tensor:
        return self.rows[torch.as_tensor(features)]


@pytest.fixture(scope="session")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """A tiny model of an architecture, by its name."""
    models: dict[str, Any] = {}

    def get(name: str) -> Any:
        if name not in models:
            folder = build(FAMILIES[name], tmp_path_factory.mktemp("words") / name)
            models[name] = load(HuggingFace(path=str(folder), device="cpu"), SilentReporter())
        return models[name]

    return get
