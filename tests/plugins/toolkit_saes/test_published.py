"""Sizes of published SAEs that are known without their files."""

from __future__ import annotations

from toolkit_saes.layouts.gemma_scope import GemmaScope
from toolkit_saes.layouts.gemma_scope import identify as identify_gemma
from toolkit_saes.layouts.llama_scope import LlamaScope
from toolkit_saes.layouts.llama_scope import identify as identify_llama


def test_llama_scope_at_31_layers() -> None:
    facts = identify_llama(LlamaScope(release="fnlp/Llama3_1-8B-Base-LXR-8x", layers="1-31")).facts
    assert (facts["count"], facts["inputs"], facts["width"]) == (31, 4096, 32768)
    assert facts["features"] == 31 * 32768 == 1_015_808
    assert facts["layers"] == list(range(1, 32))
    assert 0.53e9 < facts["bytes"] / 31 < 0.55e9


def test_all_135_of_gemma_scope() -> None:
    facts = identify_gemma(
        GemmaScope(release="google/gemma-scope-2b-pt-res", width="16k", l0="all", layers="all")
    ).facts
    assert (facts["count"], facts["inputs"], facts["width"]) == (135, 2304, 16384)
    assert facts["hookpoints"] == 26
    assert 0.30e9 < facts["bytes"] / 135 < 0.31e9
