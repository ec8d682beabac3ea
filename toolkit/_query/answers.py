"""Answers about a run as polars frames, with the addresses, tokens and texts that people read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit._query.feature_rows import PLACE, pivoted, stat_heads
from toolkit._query.ranking import RankedLines, rank
from toolkit._query.run import Run, first_rows, sorted_by
from toolkit._query.text import Row, around, piece_at

if TYPE_CHECKING:
    import polars as pl

SUMMARY = "*"
"""The `sample` of a row that summarises all samples."""
VERDICTS = ("contrast", "outcome", "verdict", "effect", "low", "high", "p", "q", "reason")
EFFECTS = ("arm", "outcome", "probability", "effect", "low", "high", "p", "q", "kl")
ALL = 1 << 40
"""More rows than any table has."""


def frame(rows: Sequence[Mapping[str, Any]], heads: Sequence[str]) -> pl.DataFrame:
    """Rows as a frame with these columns."""
    import polars as pl

    from toolkit._query.frames import ResultFrame

    if not rows:
        return ResultFrame(schema=dict.fromkeys(heads, pl.String))
    picked = [{head: row.get(head) for head in heads} for row in rows]
    return ResultFrame(picked, infer_schema_length=None, strict=False)


def top(run: Run, space: str, index: int, k: int) -> pl.DataFrame:
    """The largest values of a feature: sample, position, token, value, unit and the surrounding
    text.
    """
    hits = run.view.top(space, index, k)
    return in_texts(hits, run.pieces(hits["sample"].to_list()))


def in_texts(hits: pl.DataFrame, texts: Mapping[str, Row]) -> pl.DataFrame:
    """Values of a feature, as the store gives them, with the token and the surrounding text of
    each, from the texts of their samples (`Run.pieces`).
    """
    import polars as pl

    from toolkit._query.frames import ResultFrame

    tokens, around_them = [], []
    for sample, position in hits.select("sample", "position").iter_rows():
        text = texts.get(sample, {"text": "", "pieces": []})
        tokens.append(piece_at(text["pieces"], position))
        around_them.append(around(text["text"], text["pieces"], position, "[{}]".format))
    described = hits.with_columns(
        pl.Series("token", tokens, pl.String), pl.Series("text", around_them, pl.String)
    )
    return ResultFrame(described.select("sample", "position", "token", "value", "unit", "text"))


def check_position(sample: str, pieces: Sequence[str], position: int | None) -> None:
    """Refuse a position that a sample does not have."""
    from toolkit.errors import BadInput

    if position is not None and not 0 <= position < len(pieces):
        raise BadInput(
            f"Sample '{sample}' has {len(pieces)} tokens: write position=0 to {len(pieces) - 1}."
        )


def features(
    run: Run,
    *,
    spaces: Sequence[str] | None = None,
    stage: str | None = None,
    by: str | None = None,
    significant: bool = False,
    every_stat: bool = False,
    k: int = 20,
) -> pl.DataFrame:
    """One row per feature and comparison, ranked as `toolkit query features` ranks them."""
    from toolkit_store.query.run_view import check_row_limit

    check_row_limit(k)
    ranked = ranked_lines(run, spaces, stage, by)
    lines = (ranked.significant() if significant else ranked).rows(0, k)
    return features_of(run, ranked, lines, stage, by, every_stat=every_stat)


def features_of(
    run: Run,
    ranked: RankedLines,
    lines: Sequence[Row],
    stage: str | None,
    by: str | None = None,
    *,
    every_stat: bool = False,
) -> pl.DataFrame:
    """Lines of a ranking, with their statistics; without lines, only the first two columns."""
    if not ranked.height:
        return frame([], ("address", "stage"))
    rows = pivoted(run, ranked.compared, lines, stage)
    return frame(rows, stat_heads(rows, (), "json" if every_stat else "text", by))


def ranked_lines(
    run: Run,
    spaces: Sequence[str] | None,
    stage: str | None,
    by: str | None,
    ranking: RankedLines | None = None,
) -> RankedLines:
    """The ranking of the features of these spaces, of one stage if it is named; a part of
    `ranking`, unless that compares what is not compared in this part.
    """
    if ranking is not None:
        run.check_stage("features", stage)
        part = ranking.chosen(spaces, stage)
        if part.height or not ranking.height:
            return part
    return rank(run, stage, {} if spaces is None else {"space": list(spaces)}, by)


def effects(run: Run, where: Mapping[str, Sequence[Any]], *, samples: bool = False) -> pl.DataFrame:
    """What interventions did, most certain first; the summaries over samples, or single samples."""
    import pyarrow.compute as pc

    chosen = run.read_stages("effects", None, where if samples else {**where, "sample": [SUMMARY]})
    chosen = chosen.filter(pc.not_equal(chosen["sample"], SUMMARY)) if samples else chosen
    heads = ("address", "stage", *(("sample",) if samples else ()), *EFFECTS)
    return _by_certainty(run, chosen, heads, ("arm", "outcome", "sample"))


def verdicts(run: Run, where: Mapping[str, Sequence[Any]]) -> pl.DataFrame:
    """What was concluded about screened features, most certain first."""
    chosen = run.read_stages("verdicts", None, where)
    return _by_certainty(run, chosen, ("address", "stage", *VERDICTS), ("outcome",))


def _by_certainty(run: Run, chosen: Any, heads: Sequence[str], last: Sequence[str]) -> pl.DataFrame:
    import pyarrow.compute as pc

    sized = run.placed(chosen).append_column("size", pc.abs(chosen["effect"]))
    order = [("q", True), ("size", False), *PLACE, *((name, True) for name in last)]
    rows = first_rows(sorted_by(sized, order), ALL)
    return frame(
        [{**row, "address": run.label(row["space"], row["feature"])} for row in rows], heads
    )


def active(run: Run, pieces: Sequence[str], hits: pl.DataFrame, k: int = ALL) -> pl.DataFrame:
    """The features that are active on a sample (`RunView.sample`), the strongest first."""
    order = ["value", "space", "position", "feature"]
    rows = [
        {
            **row,
            "address": run.label(row["space"], row["feature"]),
            "token": piece_at(pieces, row["position"]),
        }
        for row in hits.sort(order, descending=[True, False, False, False]).head(k).to_dicts()
    ]
    return frame(rows, ("address", "position", "token", "value"))


def named(run: Run, space: str, rows: pl.DataFrame) -> pl.DataFrame:
    """Rows about features of a space, with the address of each, and its label if it has one."""
    import polars as pl

    from toolkit._query.frames import ResultFrame

    features = rows["feature"].to_list()
    labels = dict(run.view.labels(space, features).iter_rows())
    addressed = rows.drop("feature").insert_column(
        0, pl.Series("address", [run.label(space, feature) for feature in features], pl.String)
    )
    texts = pl.Series("label", [labels.get(feature) for feature in features], pl.String)
    return ResultFrame(addressed.with_columns(texts))


def runs_frame(run_rows: Sequence[Any]) -> pl.DataFrame:
    """The runs of a store, the newest first."""
    from toolkit._query.run import state_of

    rows = [
        {
            "run": row.run,
            "name": row.name,
            "state": state_of(row),
            "steps": row.done,
            "of": row.total,
            "at": row.at[:19].replace("T", " "),
            "note": row.note,
        }
        for row in reversed(run_rows)
    ]
    return frame(rows, ("run", "name", "state", "steps", "of", "at", "note"))


SEARCHED: Mapping[str, tuple[str, str]] = {
    "word": ("feature_words", "word"),
    "token": ("promoted_tokens", "promoted_pieces"),
}
"""The tables that `search` reads besides labels, and their columns of texts."""
FEATURE = ("space", "feature")


def search(run: Run, text: str, k: int) -> pl.DataFrame:
    """The first `k` features of a run whose address, label, words or promoted tokens have `text` in
    them.
    """
    from toolkit_store.query.run_view import check_row_limit

    check_row_limit(k)
    return with_addresses(run, search_hits(run, text).head(k))


def with_addresses(run: Run, hits: pl.DataFrame) -> pl.DataFrame:
    """What `search_hits` found, with the addresses of features."""
    import polars as pl

    from toolkit._query.frames import ResultFrame

    pairs = hits.select("space", "feature").iter_rows()
    addresses = pl.Series("address", [run.label(*pair) for pair in pairs], pl.String)
    return ResultFrame(hits.select(addresses, "match", "text"))


def search_hits(run: Run, text: str, labels: pl.DataFrame | None = None) -> pl.DataFrame:
    """All features of a run whose address, label, words or promoted tokens have `text` in them:
    space, feature, match and text. `labels` are those of the run, if they are known. Tables are
    read a few thousand rows at a time.
    """
    import polars as pl

    from toolkit.errors import BadInput

    sought = text.strip().lower()
    known = all_labels(run) if labels is None else labels
    parts = [_hits([known], "text", sought, "label")] if sought else []
    for kind, (table, column) in SEARCHED.items() if sought else ():
        columns = ("space", "feature", column)
        batches = (rows for _, rows in run.rows.stage_batches(table, columns))
        parts.append(_hits(batches, column, sought, kind))
    try:
        space, index = run.feature(text)
        row = {"space": [space], "feature": [index], "text": [text]}
        parts.insert(0, _hits([pl.DataFrame(row)], "text", sought, "address"))
    except BadInput:
        pass  # not an address here: it may be a word
    return pl.concat(parts) if parts else _hits([], "text", sought, "label")


def all_labels(run: Run) -> pl.DataFrame:
    """The labels of a run's features: space, feature and text."""
    import polars as pl

    columns = ("space", "feature", "text")
    return pl.DataFrame(run.read_stages("features", None, {"stat": ["label"]}, columns))


def _hits(batches: Iterable[pl.DataFrame], column: str, sought: str, kind: str) -> pl.DataFrame:
    """The features with `sought` in one of their texts, each once, with the first such text."""
    import polars as pl

    has_it = pl.col(column).str.to_lowercase().str.contains(sought, literal=True)
    kinds = pl.Schema(
        {"space": pl.String, "feature": pl.UInt32, "match": pl.String, "text": pl.String}
    )
    parts = [pl.DataFrame(schema=kinds)]
    for rows in batches:
        texts = rows.explode(column) if rows.schema[column] == pl.List else rows
        hits = texts.filter(has_it).unique(FEATURE, keep="first", maintain_order=True)
        named = hits.select(*FEATURE, match=pl.lit(kind), text=column)
        parts.append(named.cast(kinds))
    hits = pl.concat(parts).unique(FEATURE, keep="first", maintain_order=True)
    return hits.sort(FEATURE)
