"""Dense archives as two published pipelines write them: one per configuration of SAEs, and one per
layer of each sample.

`configuration`: `layer_20_l0_71_activations.npz` with `activations` (fragments by features), a
fragment being the text up to and including its token. `layer`: `SAMPLE/layer_15.npz` with
`features` (tokens by features), `positions` (the tracked tokens; the rows of others are NaN),
`attention` (heads, queries, keys) where a stage kept it and, next to the folders,
`metadata_L1_31.json` with each sample's tokens.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.activations.dense_layouts import (
    Fragments,
    folder_names,
    fragment_members,
    scenario,
    token_members,
)
from toolkit.errors import DataError
from toolkit.files.archives import archive
from toolkit.saes import average_l0s

from ._attention import AttentionOfSamples
from ._sentences import Sentences
from ._stamp import stamp

if TYPE_CHECKING:
    from toolkit.work import SinkWork

    from ._entries import Entries

NUMBERS = 33
"""Bytes of the numbers of a fragment: label, sentence, position, words, and whether it is the
final one.
"""

Files = Iterator[tuple[str, bytes | Iterable[bytes]]]
RowsOf = Callable[[Mapping[str, Any]], "Entries"]


# --- one archive per configuration ----------------------------------------------------------------


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
        fragments = _fragments(space, entries, sentences, average.get(space["space"], math.nan))
        members = fragment_members(entries.rows, space["width"], fragments)
        yield f"{name}_activations.npz", archive(members)


def _fragments(
    space: Mapping[str, Any], entries: Entries, sentences: Sentences, average: float
) -> Fragments:
    """The texts and numbers of the rows. A sample's longest fragment is that of its last row."""
    import numpy as np

    def per_row(value: Callable[[str], Any], kind: Any) -> Any:
        return np.array([value(name) for name in entries.names], dtype=kind)[entries.sample]

    ranges = entries.ranges()
    last_positions = [
        (name, int(entries.positions[end - 1]))
        for name, end in zip(entries.names, ranges[1:], strict=True)
    ]
    texts = [sentences.reading(name).text for name in entries.names]
    fragments = (
        len(sentences.reading(name).fragment(position)) for name, position in last_positions
    )
    return Fragments(
        text=lambda row: sentences.reading(entries.name(row)).fragment(entries.positions[row]),
        longest=max(fragments, default=0),
        sentence=lambda row: sentences.reading(entries.name(row)).text,
        longest_sentence=max(map(len, texts), default=0),
        labels=per_row(sentences.label, np.float64),
        numbers=per_row(sentences.number, np.int64),
        positions=entries.positions,
        is_final=entries.positions == per_row(sentences.tokens, np.int64) - 1,
        words=_word_counts(entries, sentences),
        layer=_layer(space),
        average_l0=average,
    )


def _word_counts(entries: Entries, sentences: Sentences) -> Any:
    import numpy as np

    ranges = entries.ranges()
    parts = [
        sentences.reading(name).words[entries.positions[start:end]]
        for name, start, end in zip(entries.names, ranges, ranges[1:], strict=False)
    ]
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts])


def _stem(space: Mapping[str, Any], average: Mapping[str, float]) -> str:
    return f"layer_{_layer(space)}_l0_{average.get(space['space'], math.nan):g}"


# --- one archive per sample and layer -------------------------------------------------------------

ALIASES = {"win_rate": "probability", "options": "choices"}
"""The published names of some of our spans, which are written under both names."""


def layers(work: SinkWork, heads: Sequence[Mapping[str, Any]], rows_of: RowsOf) -> Files:
    """A folder per sample, a file per layer (with the space's id where a layer has several), then
    the metadata of the tokens. Without spaces, the files hold only attention.
    """
    sentences = Sentences(work.inputs)
    folders = folder_names(sentences.names())
    attention = AttentionOfSamples(work.inputs)
    spaces_at = Counter(_layer(space) for space in heads)
    names: set[str] = set()
    files: dict[str, dict[str, Any]] = {}
    for space in heads:
        entries = rows_of(space)
        sentences.check(entries)
        names.update(entries.names)
        suffix = f"_{space['space']}" if spaces_at[_layer(space)] > 1 else ""
        file = f"layer_{_layer(space)}{suffix}.npz"
        files[file] = dict(space)
        ranges = entries.ranges()
        for name, start, end in zip(entries.names, ranges, ranges[1:], strict=False):
            length = sentences.tokens(name)
            members = token_members(
                entries.rows.take(int(start), int(end)),
                space["width"],
                entries.positions[start:end],
                length,
            )
            weights = attention.members(name, _layer(space), length)
            yield f"{folders[name]}/{file}", archive([*members, *weights])
    numbers = sorted({_layer(space) for space in heads} | set(attention.layers))
    for name, layer in attention.pairs():
        if layer not in spaces_at:
            names.add(name)
            weights = attention.members(name, layer, sentences.tokens(name))
            yield f"{folders[name]}/layer_{layer}.npz", archive(weights)
    ends = numbers[:1] + numbers[-1:]
    metadata = {
        "timestamp": stamp(work.committed_at),
        "n_scenarios": len(names),
        "layer_range": ends,
        "save_features": bool(heads),
        "save_attention": bool(attention.layers),
        "scenarios": [
            scenario(folders[name], sentences.sample(name), ALIASES) for name in sorted(names)
        ],
        "spaces": files,
    }
    yield (
        f"metadata_L{'_'.join(map(str, ends))}.json",
        (json.dumps(metadata, indent=1, sort_keys=True) + "\n").encode(),
    )


# --- both -----------------------------------------------------------------------------------------


def _layer(space: Mapping[str, Any]) -> int:
    layer = str(space["hookpoint"]).rpartition(".")[2]
    if not layer.isdigit():
        raise DataError(
            f"space {space['space']} ({space['address']}) has no layer, and this layout names "
            "files by layer. Use `layout: space`."
        )
    return int(layer)
