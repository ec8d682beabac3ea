"""What the report shows of a screen: each feature's specific effect beside what random features
did, and the arms.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from toolkit.addresses import short
from toolkit.work import Figure, Inputs

from ._verdict import signed

ROW, LEFT, WIDE, RIGHT = 32, 110, 520, 24
_TONES = {
    "causal": "var(--computed)",
    "not specific": "var(--part)",
    "reconstruction": "var(--failed)",
    "no effect": "var(--faint)",
}


def figures(inputs: Inputs) -> Iterable[Figure]:
    """A forest of specific effects, and a table of all arms with the verdicts."""
    rows = [row for row in inputs.read("effects").to_pylist() if row["sample"] == "*"]
    texts = {
        (row["space"], row["feature"]): str(row["text"])
        for row in inputs.read("features").to_pylist()
        if row["stat"] == "verdict"
    }
    if not rows or not texts:
        return
    spaces = {row["space"]: row for row in inputs.read("spaces").to_pylist()}
    about = next(row["outcome"] for row in rows if row["arm"] == "random")
    arms: dict[tuple[str, int], dict[str, Any]] = {}
    for row in rows:
        if row["outcome"] == about:
            arms.setdefault((row["space"], row["feature"]), {})[row["arm"]] = row
    order = sorted(arms, key=lambda key: -abs(arms[key]["specific"]["effect"]))
    names = {key: short(spaces[key[0]], key[1]) for key in order}
    causal = sum(texts[key].startswith("causal") for key in order)
    yield Figure(
        f"Change of P({about}) when the feature takes one group's mean instead of the other's",
        _forest(order, names, arms, texts),
        f"{causal} of {len(order)} screened features are causal for P({about}).",
    )
    yield Figure(
        "Why", _reasons(order, names, texts), "The verdict on each feature with its reason."
    )
    yield Figure(
        "Every arm", _table(order, names, arms), "Effects of each arm with 95 % intervals."
    )


def _forest(
    order: Sequence[tuple[str, int]],
    names: Mapping[tuple[str, int], str],
    arms: Mapping[tuple[str, int], Mapping[str, Any]],
    texts: Mapping[tuple[str, int], str],
) -> str:
    shown = [arms[key][arm] for key in order for arm in ("specific", "random")]
    reach = max(0.01, *(abs(row[end]) for row in shown for end in ("low", "high"))) * 1.08
    height = ROW * len(order) + 52
    parts = [_axis(reach, height)]
    for at, key in enumerate(order):
        parts.append(_line(at, names[key], arms[key], texts[key], reach))
    legend = (
        '<p class="faint">Dot and bar: effect and 95 % interval, corrected over everything tried. Grey band: smallest to largest effect of '
        "the random features beside it.</p>"
    )
    wide = LEFT + WIDE + RIGHT + 130
    return f'<svg viewBox="0 0 {wide} {height}" width="{wide}" role="img" font-size="12">{"".join(parts)}</svg>{legend}'


def _x(value: float, reach: float) -> float:
    return LEFT + WIDE * (value / reach + 1) / 2


def _axis(reach: float, height: int) -> str:
    bottom = height - 34
    step = next(
        step
        for step in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
        if reach / step <= 4 or step == 1.0
    )
    ticks = [step * n for n in range(-int(reach / step), int(reach / step) + 1)]
    marks = "".join(
        f'<line x1="{_x(tick, reach):.1f}" x2="{_x(tick, reach):.1f}" y1="8" y2="{bottom}" stroke="var(--line)"/>'
        f'<text x="{_x(tick, reach):.1f}" y="{bottom + 16}" text-anchor="middle" fill="var(--faint)">{tick:+.2g}</text>'
        for tick in ticks
        if tick
    )
    zero = _x(0, reach)
    return (
        f'{marks}<line x1="{zero:.1f}" x2="{zero:.1f}" y1="8" y2="{bottom}" stroke="var(--fg)"/>'
        f'<text x="{zero:.1f}" y="{bottom + 16}" text-anchor="middle" fill="var(--fg)">0</text>'
    )


def _line(at: int, name: str, arms: Mapping[str, Any], text: str, reach: float) -> str:
    y, found, random = 8 + ROW * at + ROW / 2, arms["specific"], arms["random"]
    word = text.partition(":")[0]
    tone = _TONES.get(word, "var(--fg)")
    left, right = _x(random["low"], reach), _x(random["high"], reach)
    return (
        f"<g><title>{html.escape(name + ': ' + text)}</title>"
        f'<text x="{LEFT - 10}" y="{y + 4:.1f}" text-anchor="end" fill="var(--fg)">{html.escape(name)}</text>'
        f'<rect x="{left:.1f}" y="{y - 9:.1f}" width="{max(right - left, 1.5):.1f}" height="18" fill="var(--faint)" opacity="0.3"/>'
        f'<line x1="{_x(found["low"], reach):.1f}" x2="{_x(found["high"], reach):.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="{tone}" '
        f'stroke-width="3"/><circle cx="{_x(found["effect"], reach):.1f}" cy="{y:.1f}" r="5" fill="{tone}"/>'
        f'<text x="{LEFT + WIDE + RIGHT}" y="{y + 4:.1f}" fill="{tone}">{html.escape(word)}</text></g>'
    )


def _reasons(
    order: Sequence[tuple[str, int]],
    names: Mapping[tuple[str, int], str],
    texts: Mapping[tuple[str, int], str],
) -> str:
    rows = []
    for key in order:
        word, _, reason = texts[key].partition(": ")
        tone = _TONES.get(word, "var(--fg)")
        cells = f'<td style="color:{tone};white-space:nowrap">{html.escape(word)}</td><td>{html.escape(reason)}</td>'
        rows.append(f'<tr><th scope="row">{html.escape(names[key])}</th>{cells}</tr>')
    head = "".join(f'<th scope="col">{name}</th>' for name in ("feature", "verdict", "reason"))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _table(
    order: Sequence[tuple[str, int]],
    names: Mapping[tuple[str, int], str],
    arms: Mapping[tuple[str, int], Mapping[str, Any]],
) -> str:
    columns = sorted(
        (arm for arm in arms[order[0]] if arm not in ("specific", "random")), key=_column
    )
    heads = ("feature", "specific effect", "random features", *columns)
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in heads)
    body = []
    for key in order:
        found = arms[key]
        cells = [
            _cell(found["specific"]),
            f"{signed(found['random']['low'])} to {signed(found['random']['high'])}",
        ]
        cells += [_cell(found[arm]) for arm in columns]
        numbers = "".join(f'<td class="number">{cell}</td>' for cell in cells)
        body.append(f'<tr><th scope="row">{html.escape(names[key])}</th>{numbers}</tr>')
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def _column(arm: str) -> tuple[int, str]:
    """The two values first, then the controls."""
    return ("set", "sham", "reconstruct").index(arm.partition(":")[0]), arm


def _cell(row: Mapping[str, Any]) -> str:
    return (
        f"{signed(row['effect'])}<br><span "
        f"class='faint'>[{signed(row['low'])}, "
        f"{signed(row['high'])}]</span>"
    )
