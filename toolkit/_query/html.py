"""Frames and tokens as HTML for notebooks. Every text is escaped; control characters and direction
marks are shown as dots.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from toolkit._query.text import one_line, shown

if TYPE_CHECKING:
    import polars as pl

MAX_ROWS = 50


def safe(value: Any) -> str:
    """A value as HTML on one line."""
    return html.escape(one_line(shown(value)))


def table_html(frame: pl.DataFrame, caption: str = "") -> str:
    """A frame as a table: numbers aligned right with four digits, columns without values left out,
    at most `MAX_ROWS` rows.
    """
    heads = [name for name in frame.columns if frame[name].null_count() < frame.height]
    number = {name: frame[name].dtype.is_numeric() for name in heads}
    head = "".join(f"<th>{safe(name)}</th>" for name in heads)
    body = "".join(
        "<tr>" + "".join(_cell(row[name], number[name]) for name in heads) + "</tr>"
        for row in frame.head(MAX_ROWS).to_dicts()
    )
    more = (
        f"<p>{MAX_ROWS} of {frame.height:,} rows.</p>"
        if frame.height > MAX_ROWS
        else ""
        if frame.height
        else "<p>No rows.</p>"
    )
    heading = f"<caption style='text-align:left'>{safe(caption)}</caption>" if caption else ""
    return f"<table>{heading}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def _cell(value: Any, number: bool) -> str:
    side = "right" if number else "left"
    return f"<td style='text-align:{side}'>{safe(value)}</td>"


def tokens_html(pieces: Sequence[str], values: Sequence[float | None]) -> str:
    """A text with each token shaded by a feature's value, which is shown on hover."""
    largest = max((value for value in values if value), default=0.0)
    out = []
    for piece, value in zip(pieces, values, strict=True):
        text = html.escape(one_line(piece))
        if value:
            depth = 0.15 + 0.6 * value / largest
            text = (
                f"<span style='background:rgba(230,159,0,{depth:.2f})' title='{value:.4g}'>"
                f"{text}</span>"
            )
        out.append(text)
    return f"<p style='white-space:pre-wrap'>{''.join(out)}</p>"
