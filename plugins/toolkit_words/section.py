"""The report's sections on words: tokens that features promote, and words of replies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit import figures as draw
from toolkit.features.addresses import prefixes
from toolkit.terminal import cell
from toolkit.work import Figure, Finding
from toolkit_words.replies.pairs import CONFIRMED

if TYPE_CHECKING:
    from toolkit.work import Inputs

    Row = Mapping[str, Any]

SHOWN, LISTED, EXAMPLES = 16, 8, 2
"""Features of a table, words or tokens of a feature, and contexts of one."""
STYLE = (
    "<style>.words-piece{display:inline-block;white-space:pre;background:var(--soft);border:1px "
    "solid var(--line);border-radius:.25rem;padding:0 .25rem;margin:0 .2rem .2rem 0;font-family:"
    "ui-monospace,monospace;font-size:.85rem}.words-context{margin:.35rem 0;font-size:.9rem;"
    "overflow-wrap:anywhere}.words-context "
    "mark{background:var(--part-bg);color:inherit;white-space:pre;padding:0 .1rem}</style>"
)


def word_figures(inputs: Inputs) -> Iterator[Figure]:
    """Confirmed words by feature, and where those features fire."""
    names = prefixes(inputs.read("spaces").to_pylist())
    tested = [row for row in inputs.read("feature_words").to_pylist() if row["z"] is not None]
    if not tested:
        return
    sentence = _sentence(tested, names)
    yield Figure("Found and confirmed", _halves(tested), sentence, tested)
    groups = _by_feature(row for row in tested if row["verdict"] == CONFIRMED)
    if not groups:
        return
    order = sorted(groups, key=lambda key: (min(row["p"] for row in groups[key]), key))[:SHOWN]
    yield Figure(
        "Words associated with features",
        _word_table(order, groups, names),
        _sentence(tested, names),
    )
    yield from _context_figure("Where they fire most strongly", order, inputs, names)


def word_findings(inputs: Inputs) -> Iterable[Finding]:
    """How many pairs of a feature and a word hold on the other half, and the clearest."""
    tested = [row for row in inputs.read("feature_words").to_pylist() if row["z"] is not None]
    if not tested:
        return
    names = prefixes(inputs.read("spaces").to_pylist())
    confirmed = [row for row in tested if row["verdict"] == CONFIRMED]
    best = min(confirmed or tested, key=lambda row: (row["p"], -abs(row["value"])))
    yield Finding(
        sentence=_sentence(tested, names),
        number=best["confirm_value"] if confirmed else best["value"],
        n=best["high_clusters"] + best["low_clusters"],
        baseline=f"of other replies {best['low']:.0%} have the word",
        rank=30,
    )


def token_figures(inputs: Inputs) -> Iterator[Figure]:
    """Promoted and suppressed tokens: of features with confirmed words, else the strongest."""
    names = prefixes(inputs.read("spaces").to_pylist())
    rows = [
        row for row in inputs.read("promoted_tokens").to_pylist() if row["method"] == "unembedding"
    ]
    rows = rows or inputs.read("promoted_tokens").to_pylist()
    if not rows:
        return
    with_words = _with_words(inputs)
    rows.sort(
        key=lambda row: (
            (row["space"], row["feature"]) not in with_words,
            -row["promoted_values"][0],
        )
    )
    shown = rows[:SHOWN]
    note = (
        f"Tokens that {len(shown)} of {len(rows)} features promote and suppress on the direct path "
        "to the logits."
    )
    cells = [
        (
            draw.escaped(_name(row, names)),
            _pieces(row["promoted_pieces"][:LISTED]),
            _pieces(row["suppressed_pieces"][:LISTED]),
        )
        for row in shown
    ]
    heads = ("feature", "promoted", "suppressed")
    yield Figure("Promoted and suppressed tokens", STYLE + draw.table(note, heads, cells), note)
    keys = dict.fromkeys((row["space"], row["feature"]) for row in rows)
    others = [key for key in keys if key not in with_words]
    yield from _context_figure(
        "Where features without words fire most strongly", others, inputs, names
    )


# --- pieces ---------------------------------------------------------------------------------------


def _with_words(inputs: Inputs) -> set[tuple[str, int]]:
    if "feature_words" not in inputs.tables():
        return set()
    rows = inputs.read("feature_words").select(["space", "feature", "verdict"]).to_pylist()
    return {(row["space"], row["feature"]) for row in rows if row["verdict"] == CONFIRMED}


def _by_feature(rows: Iterable[Row]) -> dict[tuple[str, int], list[Row]]:
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["space"], row["feature"]), []).append(row)
    return groups


def _name(row: Row, names: Mapping[str, str]) -> str:
    return f"{names.get(row['space'], row['space'] + ':')}{row['feature']}"


def _sentence(tested: Sequence[Row], names: Mapping[str, str]) -> str:
    counts = Counter(row["verdict"] for row in tested)
    family = tested[0]["family"]
    if not counts[CONFIRMED]:
        return (
            f"No word goes with a feature on both halves of the games: of {family:,} pairs tested, "
            f"{len(tested):,} were discovered on one half, and none was confirmed on the other"
        )
    confirmed = [row for row in tested if row["verdict"] == CONFIRMED]
    best = min(confirmed, key=lambda row: (row["p"], -abs(row["value"])))
    features = len({(row["space"], row["feature"]) for row in confirmed})
    return (
        f"Words go with {features:,} features: {counts[CONFIRMED]:,} of {len(tested):,} "
        f"listed pairs "
        f"hold on the other half of the games (corrected over {family:,}). The clearest: "
        f"'{cell(best['word'])}' with {_name(best, names)}, in {best['high']:.0%} of replies where "
        f"it is high and {best['low']:.0%} of the others"
    )


def _halves(rows: Sequence[Row]) -> str:
    """The log-odds of each pair in both halves; pairs on the diagonal were not overstated."""
    both = [row for row in rows if row["confirm_value"] is not None]
    if not both:
        return "<p>No pair that was found can be tested on the other half.</p>"
    reach = 1.1 * max(float(max(abs(row["value"]), abs(row["confirm_value"]))) for row in both)
    margin, top, size = 60.0, 10.0, 320.0

    def x(value: float) -> float:
        return margin + size * (value / reach + 1) / 2

    def y(value: float) -> float:
        return top + size * (1 - value / reach) / 2

    parts = [
        draw.line(x(-reach), y(0), x(reach), y(0), "axis"),
        draw.line(x(0), y(-reach), x(0), y(reach), "axis"),
        draw.line(x(-reach), y(-reach), x(reach), y(reach), "dash"),
    ]
    for mark in draw.ticks(-reach, reach, 6):
        parts += [
            draw.text(x(mark), top + size + 16, draw.number(mark), anchor="middle"),
            draw.text(margin - 8, y(mark) + 4, draw.number(mark), anchor="end"),
        ]
    for row in both[:2000]:
        kind = "more" if row["verdict"] == CONFIRMED else "rest"
        parts.append(
            f'<circle class="{kind}" cx="{x(row["value"]):.1f}" cy="{y(row["confirm_value"]):.1f}" '
            f'r="4" fill-opacity=".6"><title>{draw.escaped(cell(row["word"]))}</title></circle>'
        )
    parts += [
        draw.text(margin + size / 2, top + size + 36, "log-odds, select half", anchor="middle"),
        draw.text(16, top + size / 2, "in the confirm half", anchor="middle", turn=-90),
    ]
    legend = draw.key([("var(--computed)", "confirmed"), ("var(--faint)", "not confirmed")])
    return legend + draw.svg(margin + size + 20, top + size + 50, parts)


def _word_table(
    order: Sequence[tuple[str, int]],
    groups: Mapping[tuple[str, int], Sequence[Row]],
    names: Mapping[str, str],
) -> str:
    cells = []
    for key in order:
        for row in sorted(groups[key], key=lambda row: (row["p"], row["word"]))[:LISTED]:
            cells.append(
                (
                    draw.escaped(_name(row, names)),
                    _pieces([row["word"]]),
                    draw.signed(row["value"]),
                    draw.signed(row["confirm_value"]),
                    f"{row['high']:.0%}",
                    f"{row['low']:.0%}",
                    str(row["high_clusters"]),
                    draw.small(row["q"]),
                    draw.small(row["confirm_q"]),
                    f"{row['z']:.1f}",
                    _covariate(row),
                )
            )
    heads = (
        "feature",
        "word",
        "log-odds",
        "confirmed",
        "has it, high",
        "has it, others",
        "clusters high",
        "q",
        "q confirmed",
        "z",
        "z of metadata",
    )
    note = (
        "Log-odds with a Dirichlet prior, one reply for each cluster; q over every pair "
        "tested, and "
        "over what was found in the confirm half. Words that go with a feature need not be caused "
        "by it: both may follow the state of the game."
    )
    return STYLE + draw.table(note, heads, cells)


def _covariate(row: Row) -> str:
    """The metadata number that goes with the word most: the baseline for the feature."""
    if row["covariate"] is None:
        return "not asked"
    return f"{draw.escaped(cell(row['covariate']))} {row['covariate_z']:.1f}"


def _pieces(pieces: Sequence[str]) -> str:
    return "".join(f'<span class="words-piece">{_printable(piece)}</span>' for piece in pieces)


def _printable(piece: str) -> str:
    """A token for display: line ends as a mark, control and direction characters as escapes."""
    return draw.escaped(cell(piece.replace("\n", "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}")))


def _context_figure(
    title: str, order: Sequence[tuple[str, int]], inputs: Inputs, names: Mapping[str, str]
) -> Iterator[Figure]:
    """The contexts of the first features in this order that have any."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if "feature_contexts" not in inputs.tables():
        return
    rows = inputs.read("feature_contexts")
    fired = rows.select(["space", "feature"]).group_by(["space", "feature"]).aggregate([])
    having = set(zip(*(fired[name].to_pylist() for name in ("space", "feature")), strict=True))
    shown = [key for key in order if key in having][: SHOWN // 2]
    if not shown:
        return
    numbers = pa.array(sorted({feature for _, feature in shown}), rows["feature"].type)
    chosen = rows.filter(pc.is_in(rows["feature"], value_set=numbers)).to_pylist()
    words = "The places where each feature fires most strongly, with the token marked."
    yield Figure(title, _contexts(shown, _by_feature(chosen), names), words)


def _contexts(
    shown: Sequence[tuple[str, int]],
    contexts: Mapping[tuple[str, int], Sequence[Row]],
    names: Mapping[str, str],
) -> str:
    parts = [STYLE]
    for key in shown:
        places = {(row["sample"], row["position"]): row for row in contexts[key]}
        strongest = sorted(places.values(), key=lambda row: -row["value"])[:EXAMPLES]
        parts.append(f"<p><b>{draw.escaped(_name(strongest[0], names))}</b></p>")
        for row in strongest:
            parts.append(
                f'<p class="words-context">{row["value"]:.3g} at {draw.escaped(row["sample"])}: '
                f"{_printable(row['before'])}<mark>{_printable(row['piece'])}</mark>"
                f"{_printable(row['after'])}</p>"
            )
    return "".join(parts)
