"""Answers about a run as polars frames, with the addresses, tokens and texts that people read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    hits = run.view.top(space, index, k).to_dicts()
    return hits_frame(hits, run.pieces([hit["sample"] for hit in hits]))


def hits_frame(hits: Sequence[Row], texts: Mapping[str, Row]) -> pl.DataFrame:
    """Values of a feature (`RunView.top`) with the token and the text around it (`Run.pieces`)."""
    rows = []
    for hit in hits:
        text = texts.get(hit["sample"], {"text": "", "pieces": []})
        rows.append(
            {
                **hit,
                "token": piece_at(text["pieces"], hit["position"]),
                "text": around(text["text"], text["pieces"], hit["position"], "[{}]".format),
            }
        )
    return frame(rows, ("sample", "position", "token", "value", "unit", "text"))


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
    ranked = ranked_lines(run, spaces, stage, by)
    lines = (ranked.significant() if significant else ranked).rows(0, k)
    return features_of(run, ranked, lines, stage, every_stat=every_stat)


def features_of(
    run: Run,
    ranked: RankedLines,
    lines: Sequence[Row],
    stage: str | None,
    *,
    every_stat: bool = False,
) -> pl.DataFrame:
    """Lines of a ranking, with their statistics; without lines, only the first two columns."""
    if not ranked.height:
        return frame([], ("address", "stage"))
    rows = pivoted(run, ranked.compared, lines, stage)
    return frame(rows, stat_heads(rows, (), "json" if every_stat else "text"))


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
    pairs = rows.to_dicts()
    labels = dict(run.view.labels(space, [row["feature"] for row in pairs]).iter_rows())
    labelled = [
        {
            "address": run.label(space, row["feature"]),
            **{name: value for name, value in row.items() if name != "feature"},
            "label": labels.get(row["feature"]),
        }
        for row in pairs
    ]
    return frame(labelled, ("address", *rows.columns[1:], "label"))


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


SEARCHED: Mapping[str, tuple[str, Mapping[str, list[str]], str]] = {
    "label": ("features", {"stat": ["label"]}, "text"),
    "word": ("feature_words", {}, "word"),
    "token": ("promoted_tokens", {}, "promoted_pieces"),
}
"""What `search` searches: a table, some of its rows, and their column of texts."""


def search(run: Run, text: str, k: int, labels: pl.DataFrame | None = None) -> pl.DataFrame:
    """Features of a run whose address, label, words or promoted tokens have `text` in them;
    `labels` are those of the run, if they are known.
    """
    from toolkit.errors import BadInput

    rows = []
    try:
        space, index = run.feature(text)
        rows.append({"address": run.label(space, index), "match": "address", "text": text})
    except BadInput:
        pass  # not an address here: it may be a word
    sought = text.strip().lower()
    for kind, (table, _, column) in SEARCHED.items():
        if sought and run.stages(table):
            known = labels if kind == "label" else None
            texts = searched_texts(run, kind) if known is None else known
            rows += _matches(run, texts, column, sought, kind)
    return frame(rows[:k], ("address", "match", "text"))


def searched_texts(run: Run, kind: str) -> pl.DataFrame:
    """The texts of one kind that `search` searches: space, feature and the column of texts."""
    import polars as pl

    table, where, column = SEARCHED[kind]
    rows = pl.DataFrame(run.read_stages(table, None, where, ("space", "feature", column)))
    return rows.explode(column) if rows.schema[column] == pl.List else rows


def _matches(
    run: Run, texts: pl.DataFrame, column: str, sought: str, kind: str
) -> list[dict[str, Any]]:
    import polars as pl

    hits = texts.filter(pl.col(column).str.to_lowercase().str.contains(sought, literal=True))
    hits = hits.unique(["space", "feature"], keep="first", maintain_order=True)
    return [
        {"address": run.label(row["space"], row["feature"]), "match": kind, "text": row[column]}
        for row in hits.to_dicts()
    ]
