"""Models loaded twice: by the plugin, and by transformers alone to compare it with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from toolkit.testing.fakes import SilentReporter
from toolkit.testing.planted import Planted
from toolkit_hf._identity import HuggingFace
from toolkit_hf._load import load
from toolkit_lab import model_path

LENGTHS = (1, 7, 30, 12, 2, 30, 19)


@dataclass(frozen=True)
class Loaded:
    """One model loaded by the plugin (`model`) and by transformers (`plain`, `tokeniser`)."""

    model: Any
    plain: Any
    tokeniser: Any
    folder: Path

    def batch(self, lengths: tuple[int, ...] = LENGTHS) -> list[list[int]]:
        """Sequences of these lengths behind BOS, the same each time."""
        rng, vocabulary = np.random.default_rng(3), self.plain.config.vocab_size
        return [
            [self.model.bos_id, *rng.integers(5, vocabulary, length - 1).tolist()]
            for length in lengths
        ]

    def hooked(self, module: Any, ids: list[int], *, before: bool) -> torch.Tensor:
        """Record the input or output of a module of the plain model for one sequence."""
        seen: list[Any] = []
        add = module.register_forward_pre_hook if before else module.register_forward_hook
        handle = add(lambda _module, args, *out: seen.append(args[0] if before else out[0]))
        with torch.inference_mode():
            self.plain(torch.tensor([ids]))
        handle.remove()
        result: torch.Tensor = seen[0][0] if isinstance(seen[0], tuple) else seen[0]
        return result[0]


def _loaded(folder: Path) -> Loaded:
    plain = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
    tokeniser = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return Loaded(
        load(HuggingFace(path=str(folder), device="cpu"), SilentReporter()),
        plain,
        tokeniser,
        folder,
    )


@pytest.fixture(scope="session")
def small(planted: Planted) -> Loaded:
    """The planted model: two heads share keys, and BOS is huge."""
    return _loaded(planted.model)


@pytest.fixture(scope="session")
def lab() -> Loaded:
    """The packaged lab model: trained, with tied embeddings and a chat template."""
    return _loaded(model_path())


@pytest.fixture(params=["small", "lab"])
def each(request: pytest.FixtureRequest) -> Any:
    """One after the other."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def close() -> Callable[..., None]:
    """Asserts that rows agree, each within a share of its own largest number: BOS is far larger
    than a word.
    """

    def check(result: torch.Tensor, expected: torch.Tensor, share: float = 2e-5) -> None:
        assert result.shape == expected.shape
        allowed = share * expected.abs().amax(-1, keepdim=True).clamp(min=1)
        worst = float(((result - expected).abs() / allowed).max())
        assert worst <= 1, f"off by {worst:.2g} times what is allowed"

    return check
