"""The Neuronpedia ids of a space: a model id and a source id, such as `gemma-2-2b` and
`20-gemmascope-res-16k`. Published SAEs have the ids of Neuronpedia's own pages; other SAEs get ids
of the same form. A Gemma Scope name without `__l0-N` means the canonical SAE of its layer, and only
an SAE that is known to be canonical gets such a name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_MODELS = {
    "gemma-2-2b": "gemma-2-2b",
    "gemma-2-9b": "gemma-2-9b",
    "gemma-2-9b-it": "gemma-2-9b-it",
    "llama-3.1-8b": "llama3.1-8b",
    "meta-llama-3.1-8b": "llama3.1-8b",
}
_GEMMA = re.compile(r"layer_(\d+)/width_([0-9]+[km])/average_l0_(\d+)")
_GEMMA_SITES = {"resid_post": "res", "mlp_out": "mlp", "attn_z": "att"}
_LLAMA = re.compile(r"Llama3_1-8B-Base-L(\d+)(R|M|A)-(8|32)x")
_LLAMA_SITES = {"R": "res", "M": "mlp", "A": "att"}
_LLAMA_WIDTHS = {"8": "32k", "32": "131k"}
_2B = (
    105,
    102,
    141,
    59,
    124,
    68,
    70,
    69,
    71,
    73,
    77,
    80,
    82,
    84,
    84,
    78,
    78,
    77,
    74,
    73,
    71,
    70,
    72,
    75,
    73,
    116,
)
_CANONICAL = {
    ("gemma-2-2b", "res", "16k"): dict(enumerate(_2B)),
    ("gemma-2-9b", "res", "16k"): {9: 100, 20: 68, 31: 114},
    ("gemma-2-9b-it", "res", "16k"): {9: 88, 20: 91, 31: 76},
    ("gemma-2-9b-it", "res", "131k"): {9: 121, 20: 81, 31: 109},
}
"""Average L0 of the canonical SAEs by layer, as published: the nearest to 100."""


_OTHERS = {
    ("gemma-2-2b", "res", "16k"): {
        5: (18, 34, 143, 309),
        12: (22, 41, 176, 445),
        19: (23, 40, 137, 279),
    }
}
"""Average L0s, besides the canonical one, that have their own pages."""


def page(space: Mapping[str, Any]) -> tuple[str, str] | None:
    """The model id and source id of a page that is known to exist; a link to another SAE's page
    would show an unrelated feature.
    """
    model, source = names(space)
    short = str(space["model"]).rstrip("/").rpartition("/")[2].lower()
    site = str(space["hookpoint"]).rpartition(".")[0]
    if short not in _MODELS:
        return None
    match = _GEMMA.fullmatch(str(space.get("sae")))
    if match is None or site not in _GEMMA_SITES:
        return (model, source) if _llama(model, space) else None
    key, layer, l0 = (model, _GEMMA_SITES[site], match[2]), int(match[1]), int(match[3])
    there = _CANONICAL.get(key, {}).get(layer) == l0 or l0 in _OTHERS.get(key, {}).get(layer, ())
    return (model, source) if there else None


def names(space: Mapping[str, Any]) -> tuple[str, str]:
    """Model id and source id of a space, a row of the table `spaces`."""
    short = str(space["model"]).rstrip("/").rpartition("/")[2].lower()
    model = _MODELS.get(short, _slug(short))
    site, _, layer = str(space["hookpoint"]).rpartition(".")
    return model, _gemma(model, site, space) or _llama(model, space) or _made_up_id(
        site, layer, space
    )


def _gemma(model: str, site: str, space: Mapping[str, Any]) -> str | None:
    match = _GEMMA.fullmatch(str(space.get("sae")))
    if match is None or site not in _GEMMA_SITES or not model.startswith("gemma-2-"):
        return None
    kind, layer, l0 = _GEMMA_SITES[site], int(match[1]), int(match[3])
    canonical = _CANONICAL.get((model, kind, match[2]), {}).get(layer)
    return f"{layer}-gemmascope-{kind}-{match[2]}" + ("" if canonical == l0 else f"__l0-{l0}")


def _llama(model: str, space: Mapping[str, Any]) -> str | None:
    match = _LLAMA.fullmatch(str(space.get("sae")))
    if match is None or model != "llama3.1-8b":
        return None
    return f"{match[1]}-llamascope-{_LLAMA_SITES[match[2]]}-{_LLAMA_WIDTHS[match[3]]}"


def _made_up_id(site: str, layer: str, space: Mapping[str, Any]) -> str:
    """`25-resid_post-NAME`; a space without a layer counts as the embedding, as on Neuronpedia."""
    parts = [layer, site] if layer.isdigit() else ["e", str(space["hookpoint"])]
    return _slug("-".join([*parts, str(space.get("sae") or "raw")]))


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.") or "x"
