"""Gemma Scope 1's layout: `layer_L/width_W/average_l0_N/params.npz`. There is no config file: the
path names the SAE, the repository its site.

The training norm is already folded in, so the tensors are used as stored. Embedding SAEs read the
table before Gemma multiplies it by sqrt(d); they are run on the stream after that, which is what a
model shows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from toolkit.errors import BadInput, choices
from toolkit.files.hub import Snapshot, offline, repository_files
from toolkit.files.local import PathText, locate
from toolkit_saes.encode.canonical import Facts
from toolkit_saes.encode.weights import Weights
from toolkit_saes.layouts.base import FileLayout
from toolkit_saes.layouts.configurations import ListedSae, read_configurations
from toolkit_saes.layouts.gemma_scope_files import (
    SITES,
    facts_of_file,
    l0_of_file,
    layer_of_file,
    name_of_file,
    read_weights,
    shape_of_file,
)
from toolkit_saes.layouts.layers import all_there, chosen
from toolkit_saes.layouts.location import SaeLocation
from toolkit_saes.layouts.published import gemma_scope_facts
from toolkit_saes.layouts.releases import canonical, embeddings, known, sparsities
from toolkit_saes.layouts.sizes import Size

USUAL_WIDTH = "16k"
Site = Literal["res", "mlp", "att", "transcoders", "embedding"]


class GemmaScope(SaeLocation):
    """Which SAEs. Either `release` (a repository of the hub) or `path` (the folder that holds
    `layer_0`, `layer_1`, ...).
    """

    release: str | None = Field(
        None, description="Repository on the hub, for example google/gemma-scope-2b-pt-res."
    )
    site: Site | None = Field(
        None,
        description="Where the SAEs read; by default what the repository's name ends with (-res, "
        "-mlp, -att, -transcoders), or res.",
    )
    width: str | None = Field(
        None,
        description="The width's folder name without `width_`: 16k, 65k, ...; by default 16k, "
        "or the only one available.",
    )
    l0: Literal["canonical", "all"] | tuple[int, ...] = Field(
        "canonical", description="canonical (nearest 100), all, or the average L0s to use."
    )
    configurations: PathText | None = Field(
        None,
        description="A study's list of SAEs (gemma_scope_16k_configurations.json) instead of "
        "layers, width and l0.",
    )


class GemmaScopeLayout(FileLayout[GemmaScope]):
    """One archive per SAE, whose path says layer, width and L0."""

    def marker(self, params: GemmaScope) -> str:
        """Any archive of the site."""
        return _pattern(params, "*", "*", "*")

    def patterns(self, params: GemmaScope, snapshot: Snapshot) -> list[str]:
        """The exact files where they are recorded or the hub lists them, else patterns by layer,
        width and L0.
        """
        return _patterns(params, snapshot)

    def is_complete(self, params: GemmaScope, root: Path) -> bool:
        """False for a release that is not recorded: only the hub knows its canonical L0s."""
        return _all_there(params, root)

    def locate_saes(self, params: GemmaScope, root: Path) -> list[Path]:
        """The archives, by layer and L0."""
        if params.configurations is not None:
            return _named(params, root)
        return _searched(params, root)

    def files(self, sae: Path) -> dict[str, Path]:
        """The archive itself."""
        return {"params.npz": sae}

    def published_facts(self, params: GemmaScope) -> dict[str, Any]:
        """From the recorded names of the archives."""
        release = str(params.release)
        reads = SITES[_site(params, release)].reads
        return gemma_scope_facts(release, _listed(params) or (), reads)

    def requested(self, params: GemmaScope) -> str:
        """A study's list, else site, layers, width and L0s."""
        if params.configurations:
            return str(sorted(_entries(params)))
        parts = (params.site, params.layers, _width(params, []), params.l0)
        return ":".join(str(part) for part in parts if part is not None)

    def facts(self, params: GemmaScope, sae: Path, release: str) -> Facts:
        """From the path, the release and the archive's headers."""
        return facts_of_file(sae, release, _site(params, release))

    def read(self, params: GemmaScope, sae: Path) -> Weights:
        """The weights as stored."""
        return read_weights(sae)

    def _size(self, params: GemmaScope, sae: Path) -> Size:
        """The size from headers, without hashing hundreds of archives."""
        inputs, width, _ = shape_of_file(sae)
        l0 = float(l0_of_file(sae)) or None
        reads = SITES[_site(params, params.release or sae.parts[-5])].reads
        stored, name = sae.stat().st_size, name_of_file(sae)
        return Size(f"{reads}.{layer_of_file(sae)}", inputs, width, l0, stored, name)


LAYOUT = GemmaScopeLayout()
identify, load, downloads = LAYOUT.identify, LAYOUT.load, LAYOUT.downloads


def _all_there(params: GemmaScope, root: Path) -> bool:
    """Whether the cache certainly has them. Of a release that is not recorded, only the hub knows
    the canonical L0s.
    """
    listed = _listed(params)
    if listed is not None:
        return all((root / pattern).exists() for pattern in listed)
    if isinstance(params.l0, str) or params.site == "embedding":
        return False
    files = [root.glob(_pattern(params, "*", _width(params, []), str(l0))) for l0 in params.l0]
    return all(all_there(params.layers, map(layer_of_file, file)) for file in files)


def _patterns(params: GemmaScope, snapshot: Snapshot) -> list[str]:
    """The files to fetch: the exact files where they are recorded or the hub lists them, else
    patterns of the requested layers, width and L0s.
    """
    listed = _listed(params)
    if listed is not None:
        return listed
    if params.l0 == "canonical" and not offline():
        return _canonical_of(
            params, [Path(file.path) for file in repository_files(snapshot, _wide(params))]
        ) or _wide(params)
    return _wide(params)


def _wide(params: GemmaScope) -> list[str]:
    layers = (
        ["*"] if params.layers == "all" else chosen(params.layers, range(1000), str(params.release))
    )
    sparsities = ["*"] if isinstance(params.l0, str) else params.l0
    return [
        _pattern(params, str(layer), _width(params, []), str(l0))
        for layer in layers
        for l0 in sparsities
    ]


def _canonical_of(params: GemmaScope, files: Sequence[Path]) -> list[str]:
    """The canonical file of each layer of a release."""
    width = _width(params, [])
    by_layer: dict[int, list[int]] = {}
    for file in files:
        by_layer.setdefault(layer_of_file(file), []).append(l0_of_file(file))
    chosen = {
        layer: canonical(params.release, width, layer, l0s)
        for layer, l0s in sorted(by_layer.items())
    }
    return [_pattern(params, str(layer), width, str(l0)) for layer, l0 in chosen.items()]


def _pattern(params: GemmaScope, layer: str, width: str, l0: str) -> str:
    part = "embedding" if params.site == "embedding" else f"layer_{layer}"
    return f"{part}/width_{width}/average_l0_{l0}/params.npz"


def _listed(params: GemmaScope) -> list[str] | None:
    """The requested files by a study's list or the registry; None if neither has them."""
    if params.configurations is not None:
        return [
            _pattern(params, str(entry.layer), entry.width, str(entry.l0))
            for entry in _entries(params)
        ]
    width = _width(params, [])
    if params.site == "embedding":
        by_layer = {0: embeddings(params.release, width)}
        l0s = _chosen_l0(params, 0, width, by_layer[0]) if by_layer[0] else []
        return [_pattern(params, "0", width, str(l0)) for l0 in l0s] or None
    by_layer = sparsities(params.release, width, complete=params.l0 != "canonical")
    if not by_layer:
        return None
    results = []
    for layer in chosen(params.layers, by_layer, str(params.release)):
        l0s = _chosen_l0(params, layer, width, by_layer[layer])
        results += [_pattern(params, str(layer), width, str(l0)) for l0 in l0s]
    return results


def _entries(params: GemmaScope) -> list[ListedSae]:
    assert params.configurations is not None
    return read_configurations(locate(params.configurations))


def _named(params: GemmaScope, root: Path) -> list[Path]:
    """The files of a study's list; a missing one is an error."""
    files = [
        root / _pattern(params, str(entry.layer), entry.width, str(entry.l0))
        for entry in _entries(params)
    ]
    missing = [file for file in files if not file.exists()]
    if missing:
        raise BadInput(
            f"saes.with.configurations: {len(missing)} of {len(files)} SAEs of the list are not in "
            f"{root}; the first is {missing[0].relative_to(root)}."
        )
    return files


def _searched(params: GemmaScope, root: Path) -> list[Path]:
    release, below = params.release or root.name, _pattern(params, "*", "*", "*")
    paths = {
        path for path in root.glob(below) if re.fullmatch(r"embedding|layer_\d+", path.parts[-4])
    }
    if not paths:
        shown = (
            below.replace("layer_*", "layer_L")
            .replace("width_*", "width_W")
            .replace("average_l0_*", "average_l0_N")
        )
        raise BadInput(f"{root} holds no Gemma Scope SAEs: there is no {shown} below it.")
    widths = {path.parts[-3].removeprefix("width_") for path in paths}
    width = _width(params, widths)
    wide = [path for path in paths if path.parts[-3] == f"width_{width}"]
    if not wide:
        raise BadInput(
            f"saes.with.width: {release} has no width '{width}'; it has {choices(widths)}."
        )
    layers = (
        [0]
        if params.site == "embedding"
        else chosen(params.layers, [layer_of_file(path) for path in wide], release)
    )
    return [
        file
        for layer in layers
        for file in _sparsities(params, sorted(wide, key=l0_of_file), layer, width)
    ]


def _width(params: GemmaScope, available: set[str] | list[str]) -> str:
    """The requested width; else the usual one, or the only one available."""
    return params.width or (
        next(iter(available))
        if len(available) == 1
        else "4k"
        if params.site == "embedding"
        else USUAL_WIDTH
    )


def _sparsities(params: GemmaScope, files: list[Path], layer: int, width: str) -> list[Path]:
    by_l0 = {l0_of_file(path): path for path in files if layer_of_file(path) == layer}
    return [by_l0[l0] for l0 in _chosen_l0(params, layer, width, sorted(by_l0))]


def _chosen_l0(params: GemmaScope, layer: int, width: str, available: list[int]) -> list[int]:
    """The requested L0s out of those that a layer has."""
    if params.l0 == "all":
        return available
    if params.l0 == "canonical":
        return [canonical(params.release, width, layer, available)]
    results = [l0 for l0 in available if l0 in params.l0]
    if not results:
        requested, has = (", ".join(map(str, numbers)) for numbers in (params.l0, available))
        raise BadInput(
            f"saes.with.l0: layer {layer} has SAEs of L0 {has}, none of {requested}. Name "
            f"one of each "
            "layer, or write `all`."
        )
    return results


def _site(params: GemmaScope, release: str) -> str:
    """The site from the spec, else from the end of the repository's name, else the residual
    stream.
    """
    if params.site is not None:
        return params.site
    noted = known(params.release).get("site")
    return str(noted or next((site for site in SITES if release.endswith(f"-{site}")), "res"))
