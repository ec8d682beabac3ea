"""Releases that are known by name: their sites, layers, sparsities and pages on Neuronpedia. All of
it is data: releases.json.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

CANONICAL = 100
"""The canonical SAE of a layer and width is the one whose average L0 is nearest to this, unless a
release says otherwise.

Of transcoders the list has only those that are in use, one per layer; these are the canonical ones.
"""
_OWNERS = {"OpenMOSS-Team": "fnlp"}
"""Owners that host the same repositories."""


@cache
def releases() -> dict[str, dict[str, Any]]:
    """Facts of each known repository, by its name on the hub."""
    content: dict[str, dict[str, Any]] = json.loads(
        files("toolkit_saes").joinpath("releases.json").read_text(encoding="utf-8")
    )["releases"]
    return content


def known(release: str | None) -> dict[str, Any]:
    """The facts of a release; empty if it is not recorded."""
    owner, _, name = str(release).partition("/")
    return releases().get(f"{_OWNERS.get(owner, owner)}/{name}", {})


def sparsities(release: str | None, width: str, *, complete: bool = True) -> dict[int, list[int]]:
    """The average L0s of each layer of a Gemma Scope release; empty if `complete` is required and
    the list is incomplete.
    """
    facts = known(release)
    listed: dict[str, list[int]] = (
        facts.get("l0", {}).get(width, {}) if facts.get("complete") or not complete else {}
    )
    return {int(layer): list(l0s) for layer, l0s in listed.items()}


def embeddings(release: str | None, width: str) -> list[int]:
    """The average L0s of a release's embedding SAEs."""
    return list(known(release).get("embedding", {}).get(width, []))


def canonical(release: str | None, width: str, layer: int, l0s: list[int]) -> int:
    """The canonical average L0 of a layer among those available."""
    named = known(release).get("canonical", {}).get(width, {}).get(str(layer))
    if named in l0s:
        return int(named)
    listed = set(sparsities(release, width, complete=False).get(layer, [])) & set(l0s)
    return min(sorted(listed or l0s), key=lambda l0: abs(l0 - CANONICAL))


def gemma_page(release: str | None, width: str, layer: int, l0: int) -> str | None:
    """The Neuronpedia id of a Gemma Scope SAE: the page of a width is the canonical SAE's, others
    have pages of their own or none.
    """
    pages = known(release).get("neuronpedia")
    if pages is None:
        return None
    page = str(pages["page"]).format(layer=layer, width=width)
    listed = known(release).get("l0", {}).get(width, {}).get(str(layer), [])
    if width in pages["widths"] and listed and l0 == canonical(release, width, layer, listed):
        return page
    return (
        f"{page}__l0-{l0}"
        if l0 in pages.get("others", {}).get(width, {}).get(str(layer), [])
        else None
    )


def llama_page(release: str | None, folder: str, layer: int) -> str | None:
    """The Neuronpedia id of a Llama Scope SAE."""
    facts = known(release)
    page = facts.get("folders", {}).get(folder) or facts.get("neuronpedia", {}).get("page")
    return str(page).format(layer=layer) if page else None
