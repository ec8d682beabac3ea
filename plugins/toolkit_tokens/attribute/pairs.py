"""Clean and changed prompts, and which of their tokens belong together.

Two prompts are aligned by their spans: between spans the tokens must be equal, and a span that
differs may have another length. Its tokens are matched from the end, where a number's last digits
are; what one side has more of is matched with the other's first token of the span.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.errors import DataError

SHOWN = 6
"""Tokens before the place where two texts part that a message shows."""


@dataclass(frozen=True)
class Pair:
    """A clean sample, the changed one, and for each clean position the changed one that is put
    there.
    """

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
    found = []
    for entry in meta:
        if entry["key"] != key or entry["sample"] not in rows:
            continue
        if entry["string"] not in rows:
            raise DataError(
                f"sample '{entry['sample']}': {key} names the sample '{entry['string']}', which is "
                "not among the samples of its unit. Keep both in one file or scenario list, with "
                "the same unit."
            )
        found.append(aligned(rows[entry["string"]], rows[entry["sample"]]))
    return found


def aligned(clean: Mapping[str, Any], changed: Mapping[str, Any]) -> Pair:
    """The pair, or an error that shows both texts where they part."""
    left, right = list(clean["token_ids"]), list(changed["token_ids"])
    if len(left) == len(right) and not _common_spans(clean, changed):
        return Pair(clean, changed, tuple(range(len(left))), ())
    positions: list[int] = []
    names: list[str] = []
    at_left = at_right = 0
    for name, (left_start, left_end), (right_start, right_end) in _common_spans(clean, changed):
        if left_start < at_left or right_start < at_right:
            continue  # inside a span that has been matched
        if left[left_start:left_end] == right[right_start:right_end]:
            continue
        positions += _equal(clean, changed, (at_left, left_start), (at_right, right_start))
        positions += _matched(left_end - left_start, right_start, right_end)
        names.append(name)
        at_left, at_right = left_end, right_end
    positions += _equal(clean, changed, (at_left, len(left)), (at_right, len(right)))
    return Pair(clean, changed, tuple(positions), tuple(names))


def _common_spans(
    clean: Mapping[str, Any], changed: Mapping[str, Any]
) -> list[tuple[str, tuple[int, int], tuple[int, int]]]:
    """Spans that both have equally often, in the order of the clean text; of nested ones the
    shorter first.
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
    both = [key for key in sides[0] if key in sides[1]]
    ordered = sorted(both, key=lambda key: (sides[0][key][0], sides[0][key][1]))
    return [(key[0], sides[0][key], sides[1][key]) for key in ordered]


def _matched(count: int, start: int, end: int) -> list[int]:
    """For `count` clean tokens the tokens of a changed span, matched from the end."""
    length = end - start
    return [start + max(0, length - count + number) for number in range(count)]


def _equal(
    clean: Mapping[str, Any],
    changed: Mapping[str, Any],
    left: tuple[int, int],
    right: tuple[int, int],
) -> range:
    ids = clean["token_ids"][slice(*left)], changed["token_ids"][slice(*right)]
    if ids[0] == ids[1]:
        return range(*right)
    apart = next(
        (number for number, pair in enumerate(zip(*ids, strict=False)) if pair[0] != pair[1]),
        min(map(len, ids)),
    )
    shown = [
        _around(row["pieces"], start + apart)
        for row, start in ((clean, left[0]), (changed, right[0]))
    ]
    raise DataError(
        f"samples '{clean['sample']}' and '{changed['sample']}' cannot be aligned: they part "
        f"outside of any span that both have.\n  {clean['sample']}: {shown[0]}\n  "
        f"{changed['sample']}: {shown[1]}\nMark what differs as a span of one name in both."
    )


def _around(pieces: Sequence[str], at: int) -> str:
    before = "".join(pieces[max(0, at - SHOWN) : at])
    here = pieces[at] if at < len(pieces) else "(end)"
    return f"...{before}>>>{here}<<<{''.join(pieces[at + 1 : at + 3])}".replace("\n", "\\n")
