"""`uses: auto`: detects the layout of the SAEs in a folder and calls the adapter that reads it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field

from toolkit.errors import BadInput, choices
from toolkit.files.local import PathText, locate, read_json
from toolkit.identity import Identity
from toolkit.parts import Params
from toolkit.work import Reporter
from toolkit_saes.encode.canonical import CanonicalSae
from toolkit_saes.encode.tensors import refuse_pickles
from toolkit_saes.layouts import gemma_scope as _gemma_scope
from toolkit_saes.layouts import llama_scope as _llama_scope
from toolkit_saes.layouts import saelens as _saelens
from toolkit_saes.layouts.layers import Layers

DEPTH = 4


class Auto(Params):
    """A folder and layers; for a layout's other params use its own adapter."""

    path: PathText = Field(description="Folder with SAEs of one layout, in it or below it.")
    layers: Layers = Field("all", description="all, 8, 1-31 or [8, 15, 31]; layers count from 0.")


class Layout(NamedTuple):
    """A layout and how to recognise it. `adapter` is None for one that is known but not
    supported.
    """

    name: str
    adapter: str | None
    marks: Callable[[Path], bool]


def _config(folder: Path, name: str = "config.json") -> Mapping[str, Any]:
    """A config's keys; none where it is missing or unreadable, which its adapter reports."""
    try:
        return read_json(folder / name)
    except BadInput:
        return {}


def _has(folder: Path, *names: str) -> bool:
    return all((folder / name).exists() for name in names)


LAYOUTS = (
    Layout("Llama Scope, original", "llama_scope", lambda folder: _has(folder, "hyperparams.json")),
    Layout(
        "OpenMOSS, 2025 or 2026",
        "llama_scope",
        lambda folder: bool({"sae_type", "act_fn"} & set(_config(folder))),
    ),
    Layout("Gemma Scope 1", "gemma_scope", lambda folder: _has(folder, "params.npz")),
    Layout(
        "SAELens", "saelens", lambda folder: _has(folder, "cfg.json", "sae_weights.safetensors")
    ),
    Layout(
        "Gemma Scope 2",
        None,
        lambda folder: _has(folder, "params.safetensors") or "hf_hook_point_in" in _config(folder),
    ),
    Layout("sparsify", None, lambda folder: _has(folder, "cfg.json", "sae.safetensors")),
    Layout(
        "dictionary_learning",
        None,
        lambda folder: _has(folder, "ae.pt") or "trainer" in _config(folder),
    ),
    Layout(
        "circuit-tracer",
        None,
        lambda folder: (
            any(folder.glob("layer_*.safetensors")) or any(folder.glob("W_enc_*.safetensors"))
        ),
    ),
)


def identify(params: Auto) -> Identity:
    """The adapter's identity of the SAEs, with the detected layout."""
    layout, adapter_params = _chosen(params)
    adapter: Any = _ADAPTERS[str(layout.adapter)][0]
    identity: Identity = adapter.identify(adapter_params)
    layers = identity.facts["layers"]
    description = f"{layout.adapter} ({layout.name} layout), layers {', '.join(map(str, layers))}"
    return Identity(
        identity.name,
        identity.revision,
        identity.digest,
        {**identity.facts, "adapter": layout.adapter, "found": description},
    )


def load(params: Auto, report: Reporter) -> list[CanonicalSae]:
    """The SAEs, loaded by the adapter."""
    layout, adapter_params = _chosen(params)
    adapter: Any = _ADAPTERS[str(layout.adapter)][0]
    saes: list[CanonicalSae] = adapter.load(adapter_params, report)
    return saes


_ADAPTERS: Mapping[str, tuple[Any, Any]] = {
    "llama_scope": (_llama_scope, _llama_scope.LlamaScope),
    "gemma_scope": (_gemma_scope, _gemma_scope.GemmaScope),
    "saelens": (_saelens, _saelens.SaeLens),
}


def _chosen(params: Auto) -> tuple[Layout, Any]:
    """The layout and its adapter's params."""
    root = locate(params.path)
    layout, folders = _detect(root)
    if layout.adapter is None:
        refuse_pickles(folders[0])
        read = choices({str(other.adapter) for other in LAYOUTS if other.adapter})
        raise BadInput(
            f"saes.with.path: {folders[0]} is in the layout of {layout.name}, which no adapter "
            f"here reads. They are {read}. Another layout takes one file: "
            "docs/tutorial/an-sae-adapter.md."
        )
    kind = _ADAPTERS[layout.adapter][1]
    if layout.adapter == "gemma_scope":
        return layout, kind(
            path=str(_only_folder(folders, 3)), **_gemma(root, folders, params.layers)
        )
    if layout.adapter == "llama_scope":
        return layout, kind(
            path=str(root if root in folders else _only_folder(folders, 1)), layers=params.layers
        )
    return layout, kind(path=params.path, layers=params.layers)


def _only_folder(folders: list[Path], up: int) -> Path:
    """The only folder that holds a set of SAEs; several are an error."""
    sets = sorted({folder.parents[up - 1] for folder in folders})
    if len(sets) > 1:
        raise BadInput(
            f"saes.with.path: there are several sets of SAEs: {choices(map(str, sets))}. Name one "
            "of them."
        )
    return sets[0]


def _gemma(root: Path, folders: list[Path], layers: Layers) -> dict[str, Any]:
    """Params for all SAEs of a set, or for the one whose path was given."""
    site = {"site": "embedding"} if folders[0].parts[-3] == "embedding" else {}
    if root not in folders:
        return {"layers": layers, **site}
    match = re.fullmatch(
        r".*/(?:layer_(\d+)|embedding)/width_(\w+)/average_l0_(\d+)", root.as_posix()
    )
    if match is None:
        raise BadInput(
            f"saes.with.path: {root} is not named like layer_L/width_W/average_l0_N: where its SAE "
            "belongs is not known."
        )
    return {"layers": int(match[1] or 0), "width": match[2], "l0": (int(match[3]),), **site}


def _detect(root: Path) -> tuple[Layout, list[Path]]:
    """The layout of the SAEs in or below a folder, and their folders."""
    results: dict[str, tuple[Layout, list[Path]]] = {}
    for folder in _folders(root):
        marked = [layout for layout in LAYOUTS if layout.marks(folder)]
        if len(marked) > 1:
            raise BadInput(
                f"saes.with.path: {folder} is in the layouts of "
                f"{choices(layout.name for layout in marked)} at once. Keep the files of one, or "
                "name the adapter: "
                f"{choices({layout.adapter for layout in marked if layout.adapter})}."
            )
        for layout in marked:
            results.setdefault(layout.name, (layout, []))[1].append(folder)
    if len(results) > 1:
        shown = "; ".join(
            f"{name} in {folders[0]}" for name, (_, folders) in sorted(results.items())
        )
        raise BadInput(
            f"saes.with.path: {root} holds SAEs of several layouts: {shown}. Name the folder of "
            "one, or its adapter."
        )
    if not results:
        for folder in _folders(root):
            refuse_pickles(folder)
        raise BadInput(
            f"saes.with.path: {root} holds no SAEs in a known layout: "
            f"{choices(layout.name for layout in LAYOUTS)}."
        )
    return next(iter(results.values()))


def _folders(root: Path) -> Iterator[Path]:
    """The root and the folders below it, by depth."""
    for depth in range(DEPTH + 1):
        yield from (
            path
            for path in sorted(root.glob("/".join("*" * depth)) if depth else [root])
            if path.is_dir()
        )
