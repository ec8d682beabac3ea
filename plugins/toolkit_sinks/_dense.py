"""Dense archives as two published pipelines write them: one per configuration of SAEs, and one per
layer of each sample.

`configuration`: `layer_20_l0_71_activations.npz` with `activations` (fragments by features), a
fragment being the text up to and with its token. `layer`: `SAMPLE/layer_15.npz` with `features`
(tokens by features), `positions` (the tokens that were looked at; the rows of others are not a
number), `attention` (heads, queries, keys) where a stage kept it and, beside them,
`metadata_L1_31.json` with each sample's tokens.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.archives import archive, dense, texts, whole
from toolkit.errors import DataError
from toolkit.saes import average_l0s

from ._attention import AttentionOfSamples
from ._sentences import Sentences
from ._stamp import stamp

if TYPE_CHECKING:
    from toolkit.work import SinkWork

    from ._entries import Entries

NUMBERS = 33
"""Bytes of the numbers beside a fragment: label, sentence, position, words, and whether it is the
final one.
"""
_FOLDER = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._ -]{0,98}[A-Za-z0-9_-]|[A-Za-z0-9_-]")

Files = Iterator[tuple[str, bytes | Iterable[bytes]]]
RowsOf = Callable[[Mapping[str, Any]], "Entries"]


# --- one archive a configuration ------------------------------------------------------------------


def configurations(work: SinkWork, heads: Sequence[Mapping[str, Any]], rows_of: RowsOf) -> Files:
    """An archive per space, with the text and label of each row."""
    sentences = Sentences(work.inputs, work.params.index)
    average = average_l0s(work.inputs)
    stems = Counter(_stem(space, average) for space in heads)
    for space in heads:
        stem = _stem(space, average)
        name = stem if stems[stem] == 1 else f"{stem}_{space['space']}"
        entries = rows_of(space)
        sentences.check(entries)
        yield (
            f"{name}_activations.npz",
            archive(_arrays(space, entries, sentences, average.get(space["space"], math.nan))),
        )


def _arrays(
    space: Mapping[str, Any], entries: Entries, sentences: Sentences, average: float
) -> Iterator[Any]:
    import numpy as np

    def a_sample(value: Callable[[str], Any], kind: Any) -> Any:
        return np.array([value(name) for name in entries.names], dtype=kind)[entries.sample]

    yield dense("activations", len(entries), space["width"], entries.fill)
    yield from _read(entries, sentences)
    yield whole("concept_strength_labels", a_sample(sentences.label, np.float64))
    yield whole("sentence_indices", a_sample(sentences.number, np.int64))
    yield whole("token_positions", entries.positions.astype(np.int64))
    yield whole("is_final_token", entries.positions == a_sample(sentences.tokens, np.int64) - 1)
    yield whole("fragment_lengths", _words(entries, sentences))
    yield whole("layer", np.int64(_layer(space)))
    yield whole("average_l0", np.float64(average))
    yield whole("num_features", np.int64(space["width"]))


def _read(entries: Entries, sentences: Sentences) -> Iterator[Any]:
    """Each row's text up to its token, and whole. The longest fragment of a sample is that of its
    last row.
    """
    ranges = entries.ranges()
    lasts = [
        (name, int(entries.positions[end - 1]))
        for name, end in zip(entries.names, ranges[1:], strict=True)
    ]
    longest = max((len(sentences.reading(name).fragment(last)) for name, last in lasts), default=0)

    def fragment(row: int) -> str:
        return sentences.reading(entries.name(row)).fragment(entries.positions[row])

    yield texts("fragments", len(entries), longest, fragment)
    longest = max((len(sentences.reading(name).text) for name in entries.names), default=0)
    yield texts(
        "original_sentences",
        len(entries),
        longest,
        lambda row: sentences.reading(entries.name(row)).text,
    )


def _words(entries: Entries, sentences: Sentences) -> Any:
    import numpy as np

    ranges = entries.ranges()
    parts = [
        sentences.reading(name).words[entries.positions[first:last]]
        for name, first, last in zip(entries.names, ranges, ranges[1:], strict=False)
    ]
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts])


def _stem(space: Mapping[str, Any], average: Mapping[str, float]) -> str:
    return f"layer_{_layer(space)}_l0_{average.get(space['space'], math.nan):g}"


# --- one archive a sample and layer ---------------------------------------------------------------

ALIASES = {"win_rate": "probability", "options": "choices"}
"""What the published files call spans of ours; they are written under both names."""


def layers(work: SinkWork, heads: Sequence[Mapping[str, Any]], rows_of: RowsOf) -> Files:
    """A folder per sample, a file per layer (with the space's id where a layer has several), then
    what the tokens are. Without spaces, the files hold attention alone.
    """
    sentences = Sentences(work.inputs)
    folders = _folders(sentences.names())
    attention = AttentionOfSamples(work.inputs)
    shared = Counter(_layer(space) for space in heads)
    names: set[str] = set()
    files: dict[str, dict[str, Any]] = {}
    for space in heads:
        entries = rows_of(space)
        sentences.check(entries)
        names.update(entries.names)
        own = f"_{space['space']}" if shared[_layer(space)] > 1 else ""
        file = f"layer_{_layer(space)}{own}.npz"
        files[file] = dict(space)
        ranges = entries.ranges()
        for name, first, last in zip(entries.names, ranges, ranges[1:], strict=False):
            length = sentences.tokens(name)
            members = _tokens(entries, int(first), int(last), length, space["width"])
            weights = attention.members(name, _layer(space), length)
            yield f"{folders[name]}/{file}", archive([*members, *weights])
    numbers = sorted({_layer(space) for space in heads} | set(attention.layers))
    for name, layer in attention.pairs():
        if layer not in shared:
            names.add(name)
            members = attention.members(name, layer, sentences.tokens(name))
            yield f"{folders[name]}/layer_{layer}.npz", archive(members)
    ends = numbers[:1] + numbers[-1:]
    metadata = {
        "timestamp": stamp(work.at),
        "n_scenarios": len(names),
        "layer_range": ends,
        "save_features": bool(heads),
        "save_attention": bool(attention.layers),
        "scenarios": [_scenario(folders[name], sentences.sample(name)) for name in sorted(names)],
        "spaces": files,
    }
    yield (
        f"metadata_L{'_'.join(map(str, ends))}.json",
        (json.dumps(metadata, indent=1, sort_keys=True) + "\n").encode(),
    )


def _tokens(entries: Entries, first: int, last: int, tokens: int, width: int) -> Iterator[Any]:
    import numpy as np

    positions = entries.positions[first:last]

    def fill(start: int, end: int, block: Any) -> None:
        lo, hi = first + np.searchsorted(positions, [start, end])
        there = entries.positions[lo:hi] - start
        block[:] = np.nan
        block[there] = 0
        entries.fill(int(lo), int(hi), block, there)

    yield dense("features", tokens, width, fill)
    yield whole("positions", positions.astype(np.int64))


def _folders(names: Sequence[str]) -> dict[str, str]:
    """A sample's own name where that is one folder's, told apart also where upper case counts for
    nothing.
    """
    seen = Counter(name.lower() for name in names)
    return {
        name: name
        if _FOLDER.fullmatch(name) and seen[name.lower()] == 1
        else f"sample-{_hash(name)}"
        for name in names
    }


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def _scenario(folder: str, sample: Mapping[str, Any]) -> dict[str, Any]:
    positions: dict[str, list[int]] = {}
    for span in sample["spans"]:
        for called in {span["name"], ALIASES.get(span["name"], span["name"])}:
            positions.setdefault(called, []).extend(range(span["start"], span["end"]))
    return {
        "scenario": folder,
        "sample": dict(sample),
        "tokens": sample["pieces"],
        "token_ids": sample["token_ids"],
        "seq_len": len(sample["token_ids"]),
        "key_positions": positions,
    }


# --- both -----------------------------------------------------------------------------------------


def _layer(space: Mapping[str, Any]) -> int:
    layer = str(space["hookpoint"]).rpartition(".")[2]
    if not layer.isdigit():
        raise DataError(
            f"space {space['space']} ({space['address']}) is at no layer, which this layout names "
            "files by. Use `layout: space`."
        )
    return int(layer)
