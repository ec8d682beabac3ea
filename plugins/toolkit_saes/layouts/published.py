"""Sizes of published SAEs whose files are not downloaded yet, so that a plan can be made before any
file is fetched. Downloaded files are always read themselves.

Llama Scope: 32 layers, widths and L0 as in releases.json; tensors in bfloat16, as the releases'
hyperparams.json declares. Gemma Scope: a width's name is a power of two (16k is 2^14); tensors in
float32. The numbers an SAE reads are the widths of its model's stream; for `att` those of all heads
together (Gemma 2 2B 8 x 256, 9B 16 x 256).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from toolkit_saes.layouts.layers import Layers, chosen
from toolkit_saes.layouts.releases import known
from toolkit_saes.layouts.sizes import Size, sizes

STREAMS = {
    "meta-llama/Llama-3.1-8B": 4096,
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B": 4096,
    "google/gemma-2-2b": 2304,
    "google/gemma-2-9b": 3584,
    "google/gemma-2-9b-it": 3584,
    "google/gemma-2-27b": 4608,
}
HEADS = {"google/gemma-2-2b": 2048, "google/gemma-2-9b": 4096}
WIDTHS = {
    "4k": 1 << 12,
    "16k": 1 << 14,
    "32k": 1 << 15,
    "65k": 1 << 16,
    "131k": 1 << 17,
    "262k": 1 << 18,
    "524k": 1 << 19,
    "1m": 1 << 20,
}
BFLOAT16, FLOAT32 = 2, 4
_FILE = re.compile(r"layer_(\d+)/width_(\w+)/average_l0_(\d+)/params\.npz")


def llama_scope_facts(release: str, layers: Layers) -> dict[str, Any]:
    """The facts of these layers of a Llama Scope release; empty if the release is not recorded."""
    facts = known(release)
    inputs = STREAMS.get(str(facts.get("model")))
    if inputs is None or "layers" not in facts or "width" not in facts:
        return {}
    width = int(facts["width"])
    stored = BFLOAT16 * (2 * inputs * width + width + inputs)
    l0 = float(facts["l0"]) if facts.get("l0") else None
    numbers = chosen(layers, range(int(facts["layers"])), release)
    return sizes([Size(f"layer.{number}", inputs, width, l0, stored) for number in numbers])


def gemma_scope_facts(release: str, names: Sequence[str], reads: str) -> dict[str, Any]:
    """The facts of these files of a Gemma Scope release, whose SAEs read at `reads`; empty if one
    of them is not recorded.
    """
    facts = known(release)
    inputs = (HEADS if facts.get("site") == "att" else STREAMS).get(str(facts.get("model")))
    matches = [_FILE.fullmatch(name) for name in names]
    if inputs is None or not matches:
        return {}
    results = []
    for match in matches:
        if match is None or match[2] not in WIDTHS:
            return {}
        width = WIDTHS[match[2]]
        stored = FLOAT32 * (2 * inputs * width + 2 * width + inputs)
        name = match[0].removesuffix("/params.npz")
        point = f"{reads}.{match[1]}"
        results.append(Size(point, inputs, width, float(match[3]), stored, name))
    return sizes(results)
