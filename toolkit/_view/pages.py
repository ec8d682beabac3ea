"""The pages about a store and its runs. Each function gets the library and the query of the
address, and returns a `Page`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit._query import answers
from toolkit._view.grid import Grid, Row
from toolkit._view.library import PAGE_ROWS, Library
from toolkit._view.page import Page
from toolkit._view.request import Query, href
from toolkit.errors import BadInput

if TYPE_CHECKING:
    import polars as pl

    from toolkit._query.run import Run

FINDINGS_ROWS = 1_000_000
"""The most rows, besides activations, of a run whose findings are computed for its page: its
sections read whole tables. The report of a larger run has them.
"""
RANKED_AT_ONCE = 200_000
"""The most statistics of features that are ranked before the page is shown."""
PART_ROWS = 20_000
"""Rows of a file that are written at a time."""
SEARCH_ROWS = 50
"""The most hits in one run that the search shows."""


def runs(library: Library, query: Query) -> Page:
    """All runs of the store."""
    frame = answers.runs_frame(library.states())
    grid = Grid("runs", "Runs, the newest first", frame, {"run": lambda row: run_href(row["run"])})
    names = frame["run"].to_list()
    return Page("runs.html", "Runs", {"store": library.uri, "names": names}, [grid])


def run_href(name: str, page: str = "", **values: object) -> str:
    """The address of a page about a run."""
    return href(f"/run/{name}" + (f"/{page}" if page else ""), **values)


def feature_link(run: str) -> Any:
    """The function that links a feature's address in a table to its page."""

    def link(row: Row) -> str | None:
        address = row["address"]
        return None if address == "-" else run_href(run, "feature", address=address)

    return link


def sample_link(run: str) -> Any:
    """The function that links a sample in a table to its page."""
    return lambda row: run_href(run, "sample", sample=row["sample"], position=row.get("position"))


def run(library: Library, query: Query, name: str) -> Page:
    """One run: its question, plan, progress and tables."""
    opened, progress = library.run(name), library.progress(name)
    library.prepare(opened)
    manifest = opened.manifest
    spec = manifest.get("spec") if isinstance(manifest.get("spec"), Mapping) else {}
    stages = [
        {
            "stage": stage.get("id"),
            "part": stage.get("part"),
            "needs": ", ".join(stage.get("needs") or ()),
            **{state: progress.count(state, str(stage.get("id"))) for state in STATES},
            "key": stage.get("key"),
        }
        for stage in manifest.get("stages") or ()
    ]
    grids = [
        Grid(
            "stages", "The plan", answers.frame(stages, ("stage", "part", "needs", *STATES, "key"))
        ),
        Grid("tables", "Rows by table", _tables(opened)),
    ]
    facts = {
        "question": (spec or {}).get("question") or "",
        "description": (spec or {}).get("description") or "",
        "command": manifest.get("command") or f"toolkit run {name}",
        "spec": _yaml(spec or {}),
        "progress": progress_facts(library, name),
        "notes": opened.notes,
        "comparisons": _comparisons(opened),
        "has": {table: bool(opened.stages(table)) for table in LISTED},
    }
    return Page("run.html", name, facts, grids, name)


STATES = ("computed", "reused", "failed")
LISTED = ("features", "samples", "games", "effects", "verdicts")


def progress_facts(library: Library, name: str) -> dict[str, Any]:
    """The progress of a run, for its page and for the script that updates the page."""
    from toolkit._query.run import state_of

    progress = library.progress(name)
    row = next((row for row in library.states() if row.run == name), None)
    state = state_of(row) if row else progress.state
    total = (row.total if row else None) or progress.planned
    done = max(progress.done, row.done if row else 0)
    percent = 100 if state == "done" else round(100 * progress.share)
    busy = [f"{entry.step.stage} [{entry.step.index}]" for entry in progress.busy.values()]
    return {
        "state": state,
        "running": state == "running",
        "percent": percent,
        "text": f"{done:,} of {total or '?'} steps",
        "busy": ", ".join(busy) if state == "running" else "",
    }


def findings(library: Library, query: Query, name: str) -> Page:
    """The findings of a run: a part of its page that is loaded later, since it takes longer."""
    with library.lock:
        opened = library.run(name)
    rows = sum(row["rows"] for row in _tables(opened).to_dicts() if row["table"] != "activations")
    if rows > FINDINGS_ROWS:
        facts = {"findings": [], "rows": rows, "report": run_href(name, "report")}
        return Page("findings.html", name, facts, (), name)
    return Page("findings.html", name, {"findings": library.findings(opened), "rows": 0}, (), name)


def _tables(run: Run) -> Any:
    counts: dict[str, int] = {}
    for step in run.steps:
        for table, rows in step.tables.items():
            counts[table] = counts.get(table, 0) + rows
    written = [{"table": table, "rows": counts[table]} for table in sorted(counts)]
    return answers.frame(written, ("table", "rows"))


def _rows_of(run: Run, table: str) -> int:
    return sum(step.tables.get(table, 0) for step in run.steps)


def _comparisons(run: Run) -> list[dict[str, Any]]:
    columns = ("comparison", "part", "effect", "groups", "half", "alpha")
    rows = run.read_stages("comparisons", None, None, columns).to_pylist()
    return [
        {
            **row,
            "contrast": " vs ".join(str(group["name"]) for group in row["groups"]),
            "href": run_href(run.id, "comparison", comparison=row["comparison"]),
        }
        for row in rows
    ]


def _yaml(spec: Mapping[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(dict(spec), sort_keys=False, allow_unicode=True) if spec else ""


def features(library: Library, query: Query, name: str) -> Page:
    """The features of a run, ranked as on the command line; of a large run that is not ranked yet,
    they are loaded later.
    """
    opened = library.run(name)
    layer, stage, by = query.integer("layer"), query.text("stage"), query.text("by")
    significant = query.flag("significant")
    from toolkit.features.addresses import layer_of

    layers = sorted({number for row in opened.spaces if (number := layer_of(row)) is not None})
    chosen = {"layer": layer, "stage": stage, "significant": significant}
    facts = {
        "layers": layers,
        "stages": sorted(opened.stages("features")),
        "chosen": chosen,
        "comparisons": _comparisons(opened),
    }
    is_quick = library.is_ranked(opened, by) or _rows_of(opened, "features") <= RANKED_AT_ONCE
    if is_quick or query.downloads:
        grids = [_ranked_features(library, opened, query)]
    else:
        grids = []
        flag = "1" if significant else None
        later = {"layer": layer, "stage": stage, "by": by, "significant": flag}
        facts["ranking"] = run_href(name, "ranking", **later)
    return Page("features.html", f"Features of {name}", facts, grids, name)


def ranking(library: Library, query: Query, name: str) -> Page:
    """The ranked features of a run: a part of their page that is loaded later if ranking them
    takes longer.
    """
    with library.lock:
        opened = library.run(name)
    grid = _ranked_features(library, opened, query)
    return Page("ranking.html", f"Features of {name}", {}, [grid], name)


def _ranked_features(library: Library, run: Run, query: Query) -> Grid:
    layer, stage, by = query.integer("layer"), query.text("stage"), query.text("by")
    significant = query.flag("significant")
    frame = library.features(run, layer, stage, by, significant)
    ranked = library.ranked(run, layer, stage, by)
    lines = ranked.significant() if significant else ranked

    def parts() -> Iterator[pl.DataFrame]:
        from toolkit._query.ranked_files import ranked_parts

        return ranked_parts(run, ranked, lines, stage)

    links, why = {"address": feature_link(run.id)}, _why(run, "features", frame)
    caption = "Features, most certain first"
    return Grid("features", caption, frame, links, why, parts, lines.height)


def _why(run: Run, table: str, frame: pl.DataFrame) -> str:
    """Why a table is empty. To say it takes longer than to read the table, so a table with rows is
    not asked.
    """
    return "" if frame.height else run.why(table)


def samples(library: Library, query: Query, name: str) -> Page:
    """The samples of a run, a hundred at a time; a download has all of them."""
    import polars as pl

    from toolkit_store.filters import among

    opened = library.run(name)
    offset = query.integer("offset") or 0
    columns = ("sample", "unit", "pieces", "text")
    tokens = pl.col("pieces").list.len()
    # Only the texts of the page are read: those before it would take longer.
    names = opened.view.lazy("samples").select("sample").slice(offset, PAGE_ROWS + 1).collect()
    rows = opened.rows.samples(names["sample"].to_list(), columns).unique("sample", keep="first")
    frame = names.join(
        rows.select("sample", "unit", tokens=tokens, text=pl.col("text").str.slice(0, 120)),
        on="sample",
        how="left",
        maintain_order="left",
    )

    def parts() -> Iterator[pl.DataFrame]:
        yield frame.clear()  # the columns, also of a table without rows
        for where in among("step", opened.rows.writers("samples")):
            for batch in opened.rows.find_in_batches("samples", where, columns):
                yield batch.select("sample", "unit", tokens, "text").rename({"pieces": "tokens"})

    links = {"sample": sample_link(name)}
    shown, why = frame.head(PAGE_ROWS), _why(opened, "samples", frame)
    grid = Grid("samples", "Samples", shown, links, why, parts)
    more = href(f"/run/{name}/samples", offset=offset + PAGE_ROWS)
    facts = {"offset": offset, "more": more if frame.height > PAGE_ROWS else None}
    return Page("samples.html", f"Samples of {name}", facts, [grid], name)


def games(library: Library, query: Query, name: str) -> Page:
    """The games of a run, a hundred at a time; a download has all of them."""
    import polars as pl

    opened = library.run(name)
    outcome, offset = query.text("outcome"), query.integer("offset") or 0
    columns = ("game", "condition", "outcome", "rounds", "total_bet", "final_balance")
    rows = pl.DataFrame(opened.read_stages("games", None, None, columns)).select(columns)
    outcomes = rows["outcome"].unique().sort().to_list()
    if outcome is not None:
        rows = rows.filter(pl.col("outcome") == outcome)
    links = {"game": lambda row: run_href(name, "game", game=row["game"])}
    shown, after = rows.slice(offset, PAGE_ROWS), offset + PAGE_ROWS
    why = _why(opened, "games", rows)
    grid = Grid("games", "Games", shown, links, why, lambda: iter([rows]))
    more = href(f"/run/{name}/games", outcome=outcome, offset=after)
    facts = {
        "outcomes": outcomes,
        "outcome": outcome,
        "count": rows.height,
        "more": more if rows.height > after else None,
    }
    return Page("games.html", f"Games of {name}", facts, [grid], name)


def game(library: Library, query: Query, name: str) -> Page:
    """One game: what the model read, what it replied, and how the game ended."""
    opened, game_id = library.run(name), query.required("game")
    rows = opened.read_stages("games", None, {"game": [game_id]}).to_pylist()
    if not rows:
        raise BadInput(f"Run {name} has no game '{game_id}'. Choose one from Games.")
    turns = opened.read_stages("rounds", None, {"game": [game_id]}).to_pylist()
    turns.sort(key=lambda row: (row["round"], row["attempt"]))
    columns = (
        *("round", "attempt", "action", "asked", "bet", "won", "parse", "finish"),
        *("balance_before", "balance_after", "reply"),
    )
    grid = Grid("rounds", "Rounds", answers.frame(turns, columns))
    return Page("game.html", f"Game {game_id}", {"game": rows[0], "turns": turns}, [grid], name)


def search(library: Library, query: Query) -> Page:
    """Features of all runs by label, word, promoted token or address."""
    import polars as pl

    text = query.text("q") or ""
    names = [state.run for state in reversed(library.states())] if text else []

    def hits(name: str) -> tuple[Run, pl.DataFrame]:
        with library.lock:
            run = library.run(name)
            labels = library.labels(run)
        return run, answers.search_hits(run, text, labels)

    def addressed(run: Run, rows: pl.DataFrame) -> pl.DataFrame:
        named = answers.with_addresses(run, rows)
        return named.select(pl.lit(run.id).alias("run"), pl.all())

    def parts() -> Iterator[pl.DataFrame]:
        yield frame.clear()
        for name in names:
            run, rows = hits(name)
            for part in rows.iter_slices(PART_ROWS):
                yield addressed(run, part)

    shown, height = [], 0
    for name in names:
        run, rows = hits(name)
        shown.append(addressed(run, rows.head(SEARCH_ROWS)))
        height += rows.height
    frame = pl.concat(shown) if shown else answers.frame([], ("run", "address", "match", "text"))
    links = {
        "run": lambda row: run_href(row["run"]),
        "address": lambda row: run_href(row["run"], "feature", address=row["address"]),
    }
    why = f"No run, feature or sample contains '{text}'." if text else ""
    grid = Grid("hits", f"Features with '{text}'", frame, links, why, parts, height)
    return Page("search.html", "Search", {"sought": text}, [grid])


def compare(library: Library, query: Query) -> Page:
    """Two runs side by side, and the features that fire more or less often in the second."""
    import polars as pl

    first, second = library.run(query.required("a")), library.run(query.required("b"))
    compared = [
        {"fact": fact, "first": first_text, "second": second_text}
        for (fact, first_text), second_text in zip(
            _facts(first).items(), _facts(second).values(), strict=True
        )
    ]
    spaces, left_out = _compared(first, second)
    shown = library.changes(first, second, spaces)

    def parts() -> Iterator[pl.DataFrame]:
        from toolkit_store.query.diff import diff_views

        yield _addressed(second, shown.clear())
        changes = diff_views(first.view, second.view, spaces) if spaces else shown
        for rows in changes.filter(pl.col("change") != 0).iter_slices(PART_ROWS):
            yield _addressed(second, rows)

    grids = [
        Grid("runs", "The two runs", answers.frame(compared, ("fact", "first", "second"))),
        Grid(
            "changes",
            f"Change from {first.id} to {second.id}, the largest first",
            _addressed(second, shown),
            {"address": feature_link(second.id)},
            "No feature fires in a different share of samples, or no space can be compared.",
            parts,
        ),
    ]
    facts = {"first": first.id, "second": second.id, "left_out": left_out}
    return Page("compare.html", f"{first.id} and {second.id}", facts, grids)


def _facts(run: Run) -> dict[str, str]:
    manifest = run.manifest
    names = {kind: (manifest.get(kind) or {}).get("name") or "-" for kind in ("model", "saes")}
    counts = {row["table"]: f"{row['rows']:,}" for row in _tables(run).to_dicts()}
    return {
        "name": run.state.name,
        "state": run.state.state,
        "at": run.state.at[:19].replace("T", " "),
        "seed": str(manifest.get("seed", "-")),
        **names,
        "stages": ", ".join(str(stage.get("id")) for stage in run.planned),
        **{table: counts.get(table, "-") for table in ("samples", "activations", "games")},
    }


def _compared(first: Run, second: Run) -> tuple[list[str], Sequence[str]]:
    """The spaces in which two runs can be compared, and why others are left out."""
    from toolkit_store.query.diff import common_spaces

    known = {row["space"] for row in second.spaces}
    both = [row["space"] for row in first.spaces if row["space"] in known]
    if not both or not (first.stages("activations") and second.stages("activations")):
        return [], ["The two runs have no space in common with activations in both."]
    common = common_spaces(first.view, second.view, both)
    addresses = {row["space"]: row["address"] for row in first.spaces}
    left_out = [f"{addresses[space]}: {why}" for space, why in common.left_out.items()]
    return common.spaces, left_out


def _addressed(run: Run, changes: pl.DataFrame) -> pl.DataFrame:
    """Changes of features with their addresses."""
    import polars as pl

    pairs = changes.select("space", "feature").iter_rows()
    addresses = pl.Series("address", [run.label(*pair) for pair in pairs], pl.String)
    heads = ("count_a", "count_b", "rate_a", "rate_b", "change", "max_a", "max_b")
    return changes.select(addresses, *heads)
