"""Text around a token, with tokens marked: highlighted in a terminal, in brackets elsewhere."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

import click

from toolkit._cli._text import Styled
from toolkit._cli.query.answers import QueryOptions
from toolkit._query.run import Run
from toolkit._query.text import Row, around, one_line, piece_at, spans


def with_text(run: Run, hits: Sequence[Row], marked: bool) -> list[Row]:
    """Add the token, the unit and the text around the token to each hit."""
    results = {row["sample"]: row for row in run.texts([row["sample"] for row in hits])}
    nothing: Row = {"unit": None, "text": "", "pieces": []}
    return [_located(row, results.get(row["sample"], nothing), marked) for row in hits]


def _located(hit: Row, sample: Row, marked: bool) -> Row:
    position, pieces = hit["position"], sample["pieces"]
    text = around(sample["text"], pieces, position, _bright if marked else "[{}]".format)
    text = Styled(text) if marked else text
    return {**hit, "token": piece_at(pieces, position), "unit": sample["unit"], "text": text}


def marked_in(options: QueryOptions) -> bool:
    """Whether tokens are marked by colours: in the text table, on a terminal."""
    return options.form == "text" and is_terminal()


def is_terminal() -> bool:
    """Whether stdout is a terminal, which shows colours."""
    return sys.stdout.isatty()


def _bright(piece: str) -> str:
    return click.style(piece, bold=True, reverse=True)


def shaded(text: str, pieces: Sequence[str], values: Sequence[float | None], terminal: bool) -> str:
    """The whole text with the tokens marked where a feature fires; a terminal highlights those with
    at least half of its largest value.
    """
    largest = max((value for value in values if value), default=0.0)
    out, cursor = [], 0
    for (start, end), value in zip(spans(text, pieces), values, strict=True):
        out.append(one_line(text[cursor:start]))
        piece = one_line(text[start:end])
        if value and piece:
            piece = (
                click.style(piece, bold=True, reverse=value >= largest / 2, underline=True)
                if terminal
                else f"[{piece}]"
            )
        out.append(piece)
        cursor = max(cursor, end)
    return "".join(out) + one_line(text[cursor:])


def chosen_positions(
    sample: Row, position: int | None, token: str | None, span: str | None
) -> list[int] | None:
    """The tokens of a sample that all these options select; None for all. Refuses what the sample
    does not have.
    """
    from toolkit.errors import BadInput, nearest

    name, pieces = sample["sample"], sample["pieces"]
    results = set(range(len(pieces)))
    if position is not None and position >= len(pieces):
        raise BadInput(
            f"--position {position}: sample '{name}' has {len(pieces)} tokens (0 to "
            f"{len(pieces) - 1})."
        )
    if position is not None:
        results &= {position}
    if token is not None:
        if not token or not (there := positions_of(token, sample["text"], pieces)):
            raise BadInput(
                f"--token {token!r}: sample '{name}' does not contain this text. Its "
                f"tokens: toolkit query tokens ADDRESS {name} --all"
            )
        results &= set(there)
    if span is not None:
        known = {item["name"]: range(item["start"], item["end"]) for item in sample["spans"]}
        if span not in known:
            raise BadInput(
                f"--span {span}: sample '{name}' has no such span.{nearest(span, known)} Its "
                f"spans: {', '.join(sorted(known)) or 'none'}."
            )
        results &= {
            index
            for item in sample["spans"]
            if item["name"] == span
            for index in range(item["start"], item["end"])
        }
    if not results:
        raise BadInput(
            f"No token of sample '{name}' is selected by all of the options. Leave one of them out."
        )
    return sorted(results) if any(item is not None for item in (position, token, span)) else None


def positions_of(words: str, text: str, pieces: Sequence[str]) -> list[int]:
    """The tokens of every occurrence of these words as whole words, and tokens that equal the
    text.
    """
    before, after = (
        (r"(?<!\w)" if words[:1].isalnum() else ""),
        (r"(?!\w)" if words[-1:].isalnum() else ""),
    )
    inside = [match.span() for match in re.finditer(before + re.escape(words) + after, text)]
    return [
        index
        for index, (start, end) in enumerate(spans(text, pieces))
        if pieces[index].strip() == words.strip()
        or any(start < last and first < end for first, last in inside)
    ]
