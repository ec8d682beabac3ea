"""How people name a feature: `25/2059` where the layer has one SAE, `model/hookpoint/sae:2059`
anywhere.

Neuronpedia's ids are read too: `gemma-2-2b/20-gemmascope-res-16k/1234`. All parsing of addresses is
in this module, and every address that the toolkit prints can be used as input. A space is one row
of the table `spaces`, as a dictionary. Light: neither torch nor Arrow.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from toolkit.errors import BadInput, nearest
from toolkit.features import neuronpedia as _neuronpedia
from toolkit.hookpoints import Hookpoint, hookpoint

FORMS = (
    "25/2059, L25-2059, L25#2059, 25:2059, Neuronpedia's model/source/2059, or in full "
    "model/hookpoint/sae:2059"
)
"""The allowed forms, for messages and help."""

Space = Mapping[str, Any]

_SHORT = re.compile(r"L?([0-9]{1,10})[/:#-]([0-9]{1,10})", re.IGNORECASE)
_INDEX = re.compile("[0-9]{1,10}")
_NEURONPEDIA = re.compile(r"([A-Za-z0-9._-]+)/(([0-9]{1,10}|e)-[A-Za-z0-9._-]+)/([0-9]{1,10})")
_SHOWN = 8


@dataclass(frozen=True)
class Address:
    """One feature as it was addressed. The short form has only a layer; the full form has
    everything except perhaps the SAE.

    `source` is a Neuronpedia source id; then `model` is Neuronpedia's too.
    """

    layer: int | None
    hookpoint: str | None
    model: str | None
    sae: str | None
    index: int
    source: str | None = None

    def __str__(self) -> str:
        if self.source is not None:
            return f"{self.model}/{self.source}/{self.index}"
        prefix = "/".join(
            part for part in (self.model, self.hookpoint, self.sae) if part is not None
        )
        return f"{prefix}:{self.index}" if prefix else f"{self.layer}/{self.index}"


def parse(text: str) -> Address:
    """Parse an address; an error names the allowed forms. A space without an SAE has the full form
    `model/hookpoint:3`.
    """
    if match := _SHORT.fullmatch(text.strip()):
        return Address(int(match[1]), None, None, None, int(match[2]))
    if match := _NEURONPEDIA.fullmatch(text.strip()):
        return Address(
            None if match[3] == "e" else int(match[3]),
            None,
            match[1],
            None,
            int(match[4]),
            match[2],
        )
    prefix, _, index = text.strip().rpartition(":")
    name = _split(prefix)
    if name is None or _INDEX.fullmatch(index) is None:
        raise BadInput(f"'{text}' is not a feature address. Write {FORMS}.")
    return Address(name.point.layer, str(name.point), name.model, name.sae, int(index))


class _SpaceName(NamedTuple):
    """The name of a space in an address."""

    model: str
    point: Hookpoint
    sae: str | None


def _split(prefix: str) -> _SpaceName | None:
    """Split model, hookpoint and SAE. Names of models and SAEs may contain slashes, so the first
    hookpoint divides them.
    """
    parts = prefix.split("/")
    for index in range(1, len(parts)):
        try:
            point = hookpoint(parts[index])
        except BadInput:
            continue
        model, sae = "/".join(parts[:index]), "/".join(parts[index + 1 :])
        return _SpaceName(model, point, sae or None) if model else None
    return None


def find(address: Address | str, spaces: Iterable[Space]) -> Space:
    """The space of the addressed feature: exactly one of `spaces`, and wide enough."""
    return locate(address, spaces)[0]


def locate(address: Address | str, spaces: Iterable[Space]) -> tuple[Space, int]:
    """The space of the addressed feature and its index. The text is compared with the stored
    addresses and ids of the spaces first.
    """
    rows = _distinct(spaces)
    matches, index = _as_stored(address, rows) if isinstance(address, str) else ([], 0)
    if not matches:
        read = parse(address) if isinstance(address, str) else address
        matches, index = _matching(read, rows), read.index
    if len(matches) > 1:
        raise BadInput(
            f"'{address}' may be any of {len(matches)} features: "
            f"{_listed(matches, rows, index)}. Write one of these."
        )
    if index >= matches[0]["width"]:
        name, width = matches[0]["address"], matches[0]["width"]
        raise BadInput(
            f"'{address}': there is no feature {index} in {name}; its width is {width} (0 to "
            f"{width - 1})."
        )
    return matches[0], index


def _as_stored(text: str, rows: Sequence[Space]) -> tuple[list[Space], int]:
    """Match an address as the store prints it, even if its hookpoint is of an unknown model."""
    name, _, index = text.strip().rpartition(":")
    if _INDEX.fullmatch(index) is None:
        return [], 0
    return [row for row in rows if name in (row["address"], row["space"])], int(index)


def _matching(address: Address, rows: Sequence[Space]) -> list[Space]:
    if address.model is None:
        return at_layer(rows, -1 if address.layer is None else address.layer)
    if address.source is not None:
        return from_neuronpedia(address.model, address.source, rows)
    prefix = str(address).rpartition(":")[0]
    results = [row for row in rows if row["address"] == prefix]
    if not results:
        known = [str(row["address"]) for row in rows]
        raise BadInput(
            f"There is no space with the address '{prefix}'.{nearest(prefix, known)} "
            f"Spaces: {_some(known)}."
        )
    return results


def neuronpedia(space: Space) -> tuple[str, str]:
    """The model id and source id of a space on Neuronpedia. For an SAE that Neuronpedia does not
    have, ids of the same form are made.
    """
    return _neuronpedia.names(space)


def neuronpedia_page(space: Space, index: int) -> str | None:
    """The URL of a feature's page on Neuronpedia; None unless a page of exactly this SAE is known
    to exist.
    """
    page = _neuronpedia.page(space)
    return f"https://www.neuronpedia.org/{page[0]}/{page[1]}/{index}" if page else None


def from_neuronpedia(model: str, source: str, spaces: Iterable[Space]) -> list[Space]:
    """The spaces that match Neuronpedia's model id and source id; an error lists the available
    ones.
    """
    rows = _distinct(spaces)
    known = ["/".join(neuronpedia(row)) for row in rows]
    results = [row for row, name in zip(rows, known, strict=True) if name == f"{model}/{source}"]
    if not results:
        near = nearest(f"{model}/{source}", known)
        raise BadInput(
            f"No space corresponds to Neuronpedia's '{model}/{source}'.{near} Spaces: "
            f"{_some(known)}."
        )
    return results


def at_layer(spaces: Iterable[Space], layer: int) -> list[Space]:
    """The spaces at a layer; an error lists the available layers."""
    rows = _distinct(spaces)
    results = [row for row in rows if layer_of(row) == layer]
    if not results:
        known = sorted({number for row in rows if (number := layer_of(row)) is not None})
        raise BadInput(
            f"There is no space at layer {layer}. Layers: {', '.join(map(str, known)) or '(none)'}."
        )
    return results


def layer_of(space: Space) -> int | None:
    """The layer of a space; None for one without a layer."""
    number = str(space["hookpoint"]).rpartition(".")[2]
    return int(number) if _INDEX.fullmatch(number) else None


def short(space: Space, index: int) -> str:
    """`25/2059`; for a space without a layer, the full address."""
    layer = layer_of(space)
    return f"{space['address']}:{index}" if layer is None else f"{layer}/{index}"


def prefixes(spaces: Iterable[Space]) -> dict[str, str]:
    """Map each space id to the shortest prefix of an index that is unique among these spaces."""
    rows = _distinct(spaces)
    layers, names = Counter(layer_of(row) for row in rows), Counter(row["address"] for row in rows)
    out = {}
    for row in rows:
        layer = layer_of(row)
        plain = f"{row['address']}:" if names[row["address"]] == 1 else f"{row['space']}:"
        out[row["space"]] = f"{layer}/" if layer is not None and layers[layer] == 1 else plain
    return out


def _distinct(spaces: Iterable[Space]) -> list[Space]:
    return list({row["space"]: row for row in spaces}.values())


def _listed(results: Sequence[Space], rows: Sequence[Space], index: int) -> str:
    """The full addresses; spaces that share one get their id and what distinguishes them."""
    shared = Counter(row["address"] for row in rows)
    return _some(
        [
            f"{row['address']}:{index}"
            if shared[row["address"]] == 1
            else f"{row['space']}:{index} ({row['address']}, model revision "
            f"{row['revision']}, "
            f"recipe "
            f"{row['recipe']})"
            for row in results
        ]
    )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more or "(none)"
