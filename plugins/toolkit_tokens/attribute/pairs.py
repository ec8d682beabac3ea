"""Clean and changed prompts, and which of their tokens correspond.

Two prompts are aligned by their spans: between spans the tokens must be equal, and a span that
differs may also differ in length. Its tokens are matched from the end, where a number's last digits
are; surplus clean tokens are matched with the first token of the changed span.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.errors import DataError

TOKENS_BEFORE = 6
"""How many tokens a message shows before the first difference of two texts."""


@dataclass(frozen=True)
class Pair:
    """A clean and a changed sample; for each clean position, the changed one to patch in."""

    clean: Mapping[str, Any]
    changed: Mapping[str, Any]
    positions: tuple[int, ...]
    spans: tuple[str, ...]
    """Names of the spans that differ."""


def pairs_of(
    samples: Sequence[Mapping[str, Any]], meta: Sequence[Mapping[str, Any]], key: str
) -> list[Pair]:
    """Each changed sample with the clean one that its metadata names."""
    rows = {row["sample"]: row for row in samples}
    pairs = []
    for entry in meta:
        if entry["key"] != key or entry["sample"] not in rows:
            continue
        if entry["string"] not in rows:
            raise DataError(
                f"sample '{entry['sample']}': {key} names the sample '{entry['string']}', which is "
                "not among the samples of its unit. Keep both in one file or scenario list, with "
                "the same unit."
            )
        pairs.append(aligned(rows[entry["string"]], rows[entry["sample"]]))
    return pairs


def aligned(clean: Mapping[str, Any], changed: Mapping[str, Any]) -> Pair:
    """The pair, or an error that shows both texts where they differ."""
    clean_ids, changed_ids = list(clean["token_ids"]), list(changed["token_ids"])
    if len(clean_ids) == len(changed_ids) and not _common_spans(clean, changed):
        return Pair(clean, changed, tuple(range(len(clean_ids))), ())
    positions: list[int] = []
    names: list[str] = []
    clean_done = changed_done = 0
    for name, (clean_start, clean_end), (changed_start, changed_end) in _common_spans(
        clean, changed
    ):
        if clean_start < clean_done or changed_start < changed_done:
            continue  # inside a span that has been matched
        if clean_ids[clean_start:clean_end] == changed_ids[changed_start:changed_end]:
            continue
        positions += _checked_equal(
            clean, changed, (clean_done, clean_start), (changed_done, changed_start)
        )
        positions += _match_from_end(clean_end - clean_start, changed_start, changed_end)
        names.append(name)
        clean_done, changed_done = clean_end, changed_end
    positions += _checked_equal(
        clean, changed, (clean_done, len(clean_ids)), (changed_done, len(changed_ids))
    )
    return Pair(clean, changed, tuple(positions), tuple(names))


def _common_spans(
    clean: Mapping[str, Any], changed: Mapping[str, Any]
) -> list[tuple[str, tuple[int, int], tuple[int, int]]]:
    """Spans that both have, by name and occurrence, in the order of the clean text; of nested spans
    the shorter one first.
    """
    sides = []
    for row in (clean, changed):
        counts: dict[str, int] = {}
        numbered = {}
        for span in sorted(row["spans"], key=lambda span: (span["start"], span["end"])):
            number = counts.get(span["name"], 0)
            counts[span["name"]] = number + 1
            numbered[span["name"], number] = (span["start"], span["end"])
        sides.append(numbered)
    common = [key for key in sides[0] if key in sides[1]]
    ordered = sorted(common, key=lambda key: (sides[0][key][0], sides[0][key][1]))
    return [(key[0], sides[0][key], sides[1][key]) for key in ordered]


def _match_from_end(count: int, start: int, end: int) -> list[int]:
    """For each of `count` clean tokens, its token of the changed span, matched from the end."""
    length = end - start
    return [start + max(0, length - count + number) for number in range(count)]


def _checked_equal(
    clean: Mapping[str, Any],
    changed: Mapping[str, Any],
    clean_range: tuple[int, int],
    changed_range: tuple[int, int],
) -> range:
    ids = clean["token_ids"][slice(*clean_range)], changed["token_ids"][slice(*changed_range)]
    if ids[0] == ids[1]:
        return range(*changed_range)
    offset = next(
        (number for number, pair in enumerate(zip(*ids, strict=False)) if pair[0] != pair[1]),
        min(map(len, ids)),
    )
    excerpts = [
        _excerpt(row["pieces"], start + offset)
        for row, start in ((clean, clean_range[0]), (changed, changed_range[0]))
    ]
    raise DataError(
        f"samples '{clean['sample']}' and '{changed['sample']}' cannot be aligned: they differ "
        f"outside of the spans that both have.\n  {clean['sample']}: {excerpts[0]}\n  "
        f"{changed['sample']}: {excerpts[1]}\nMark the text that differs as a span of the same "
        "name in both."
    )


def _excerpt(pieces: Sequence[str], position: int) -> str:
    before = "".join(pieces[max(0, position - TOKENS_BEFORE) : position])
    piece = pieces[position] if position < len(pieces) else "(end)"
    return f"...{before}>>>{piece}<<<{''.join(pieces[position + 1 : position + 3])}".replace(
        "\n", "\\n"
    )
