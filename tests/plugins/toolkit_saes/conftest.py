"""Models with SAEs that belong to them, and samples to run them on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from transformers import AutoTokenizer

from toolkit.tables import arrow_schema
from toolkit.testing.fakes import SilentReporter, make_work
from toolkit.testing.planted import Planted, prompts
from toolkit.work import Work
from toolkit_hf._identity import HuggingFace
from toolkit_hf._load import load
from toolkit_lab import model_path, saes_path
from toolkit_lab.training.corpus import make_examples
from toolkit_saes.encode.canonical import CanonicalSae
from toolkit_saes.layouts import gemma_scope as _gemma_scope
from toolkit_saes.layouts import llama_scope as _llama_scope

Span = tuple[str, int, int]


def samples(texts: Sequence[Sequence[int]], spans: Sequence[Sequence[Span]] = ()) -> pa.Table:
    """A row of `samples` for each sequence of tokens, with its spans."""
    rows = [
        {
            "sample": f"s{index:03d}",
            "unit": f"s{index:03d}",
            "cluster": "",
            "text": " ".join(map(str, ids)),
            "token_ids": list(ids),
            "pieces": [str(token) for token in ids],
            "spans": [
                dict(zip(("name", "start", "end"), span, strict=True)) for span in text_spans
            ],
            "prompt_hash": "",
        }
        for index, (ids, text_spans) in enumerate(
            zip(texts, spans or [()] * len(texts), strict=True)
        )
    ]
    return pa.Table.from_pylist(rows, schema=arrow_schema("samples"))


@dataclass(frozen=True)
class World:
    """A model, tokens of samples, and where its SAEs lie."""

    model: Any
    texts: list[list[int]]
    llama: Path
    gemma: Path
    width: str

    def saes(self, layout: str = "llama_scope", **params: Any) -> list[CanonicalSae]:
        """SAEs of a layout, newly loaded."""
        if layout == "llama_scope":
            return _llama_scope.load(
                _llama_scope.LlamaScope(path=str(self.llama), **params), SilentReporter()
            )
        settings = {"path": str(self.gemma), "width": self.width, "l0": "all", **params}
        return _gemma_scope.load(_gemma_scope.GemmaScope(**settings), SilentReporter())

    def work(
        self,
        saes: Sequence[Any],
        params: Any = None,
        texts: Sequence[Sequence[int]] | None = None,
        spans: Sequence[Sequence[Span]] = (),
    ) -> Work:
        """One step over the samples."""
        used_texts = self.texts if texts is None else texts
        return make_work(
            params, {"samples": samples(used_texts, spans)}, model=self.model, saes=list(saes)
        )


def _loaded(folder: Path) -> Any:
    return load(HuggingFace(path=str(folder), device="cpu"), SilentReporter())


@pytest.fixture(scope="session")
def small(planted: Planted) -> World:
    """The planted model: labelled prompts, SAEs whose features are known."""
    texts = [prompt.ids for prompt in prompts(planted, 40, seed=9)]
    return World(_loaded(planted.model), texts, planted.llama_scope, planted.gemma_scope, "384")


@pytest.fixture(scope="session")
def lab() -> World:
    """The packaged lab: trained SAEs, on texts that they have not seen."""
    tokeniser = AutoTokenizer.from_pretrained(model_path(), local_files_only=True)
    texts = [list(example.ids) for example in make_examples(tokeniser, 20, seed=5)]
    return World(_loaded(model_path()), texts, saes_path(), saes_path("gemma_scope"), "1k")


@pytest.fixture(params=["small", "lab"])
def each(request: pytest.FixtureRequest) -> Any:
    """One after the other."""
    return request.getfixturevalue(request.param)
