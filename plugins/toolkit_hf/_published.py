"""Sizes of published models whose files are not here yet: published.json, with its sources."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@cache
def _models() -> dict[str, dict[str, Any]]:
    text = files("toolkit_hf").joinpath("published.json").read_text(encoding="utf-8")
    models: dict[str, dict[str, Any]] = json.loads(text)["models"]
    return models


def published_facts(name: str, revision: str, dtype: str) -> dict[str, Any]:
    """The facts of a published model at its recorded revision; empty for any other.

    With `dtype: auto` the bytes are left out, since only the files say how they are stored.
    """
    shape = _models().get(name)
    if shape is None or shape["revision"] != revision:
        return {}
    blocks = shape["layers"] * _parameters_of_block(shape)
    embeddings = shape["vocabulary"] * shape["width"] * (1 if shape["tied"] else 2)
    parameters = blocks + embeddings + shape["width"]
    facts = {
        "architecture": shape["architecture"],
        "parameters": parameters,
        "layers": shape["layers"],
        "width": shape["width"],
        "context": shape["context"],
        "vocabulary": shape["vocabulary"],
        "block_parameters": blocks,
        "keys": shape["key_heads"] * shape["head_width"],
        "intermediate": shape["intermediate"],
        "heads": shape["heads"],
    }
    item = BYTES.get(dtype)
    return facts if item is None else {**facts, "item": item, "bytes": item * parameters}


def _parameters_of_block(shape: dict[str, Any]) -> int:
    queries = shape["heads"] * shape["head_width"]
    keys = shape["key_heads"] * shape["head_width"]
    attention = shape["width"] * (2 * queries + 2 * keys)
    mlp = 3 * shape["width"] * shape["intermediate"]
    return int(attention + mlp + shape["norms_in_block"] * shape["width"])
