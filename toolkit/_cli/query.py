"""`toolkit query`: what the committed tables of a run say about a feature, a sample, a comparison or an intervention.

Rows are filtered and ordered as Arrow, a batch of steps at a time; only those that are shown become Python objects.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from toolkit._cli._answers import Answer, Asked, Row, answered, answered_of_runs, one_line, shown
from toolkit._cli._query_run import Run, first_rows, listing, only, open_run, sorted_by

if TYPE_CHECKING:
    import pyarrow as pa

BEFORE, AFTER = 16, 8
"""Tokens shown on each side of the one that is marked."""
EFFECT_STATS = ("d", "r", "eta2")
TEST_STATS = (*EFFECT_STATS, "t", "df", "p", "q", "significant")
"""What a comparison writes, with the two groups' names as the group."""
TESTED = ("d", "q")
"""Where one of these is, there is a test."""
SMALLEST_FIRST = ("p", "q")
ONLY_IF_ASKED = ("t", "df", "g", "u", "f", "h", "discovered", "t_adjusted", "df_adjusted")
"""Left out of the table for people unless `--stat` names them; programs get them always."""
EFFECTS = ("arm", "outcome", "probability", "effect", "low", "high", "p", "q", "kl")
PLACE = (("layer", True), ("space", True), ("feature", True), ("stage", True))
"""The order of rows that are otherwise equal."""
SUMMARY = "*"
"""The sample of a row that sums up all samples."""
ALL = 1 << 40
"""More rows than there are."""


# --- the commands ---


@click.group("query")
def command() -> None:
    """Look up features, samples, comparisons and effects of a run, also while it runs.

    ADDRESS is 25/2059, L25-2059, L25#2059, 25:2059, Neuronpedia's model/source/2059 or model/hookpoint/sae:2059.
    """


@command.command("top")
@click.argument("address")
@answered
def top(asked: Asked, address: str) -> Answer:
    """Show where the feature at ADDRESS fires hardest."""
    run = open_run(asked)
    heads = ("sample", "position", "token", "value", "unit", "text")
    if missing := next((table for table in ("activations", "spaces") if not run.stages(table)), None):
        return Answer(heads, [], 0, run.why(missing))
    space, index = run.feature(address)
    hits = run.view.top(space, index, asked.k).drop("unit").to_dicts()
    rows = _with_text(run, hits, marked=_marks(asked))
    why = f"Feature {address} fires at no position whose activations run {run.id} has kept."
    total = run.view.entries(space, index) if len(rows) == asked.k else len(rows)
    return Answer(heads, rows, total, why)


@command.command("tokens")
@click.argument("address")
@click.argument("sample")
@click.option("--all", "every", is_flag=True, help="Every token, also where the feature does not fire.")
@answered
def tokens(asked: Asked, address: str, sample: str, every: bool) -> Answer:
    """Show the text of SAMPLE and where in it the feature at ADDRESS fires."""
    run = open_run(asked)
    heads = ("position", "token", "value")
    if missing := next((table for table in ("samples", "activations", "spaces") if not run.stages(table)), None):
        return Answer(heads, [], 0, run.why(missing))
    space, index = run.feature(address)
    text = run.sample(sample)["text"]
    found = run.view.tokens(space, index, sample).rename({"piece": "token"}).to_dicts()
    rows = [row for row in found if every or row["value"]]
    why = _why_no_tokens(run, address, sample, [row["position"] for row in found if row["value"] is not None])
    above = shaded(text, [row["token"] for row in found], [row["value"] for row in found], _is_terminal()) if rows else ""
    return Answer(heads, rows[: asked.k], len(rows), why, above=above)


@command.command("coactive")
@click.argument("address")
@answered
def coactive(asked: Asked, address: str) -> Answer:
    """Show which features of the same space fire where the feature at ADDRESS fires."""
    run = open_run(asked)
    heads = ("address", "both", "count", "jaccard", "label")
    if missing := next((table for table in ("activations", "spaces") if not run.stages(table)), None):
        return Answer(heads, [], 0, run.why(missing))
    space, index = run.feature(address)
    found = run.view.coactive(space, index, ALL)
    rows = _named(run, space, found.head(asked.k).to_dicts())
    return Answer(heads, rows, found.height, f"No other feature fires where {address} does in run {run.id}.")


@command.command("similar")
@click.argument("address")
@click.option(
    "--saes", metavar="FOLDER", type=click.Path(path_type=Path), help="Where the SAE files are, if not where they were."
)
@answered
def similar(asked: Asked, address: str, saes: Path | None) -> Answer:
    """Show the features whose decoder points most nearly where that of the feature at ADDRESS does."""
    from toolkit._cli._decoders import find_decoder

    run = open_run(asked)
    space, index = run.feature(address)
    row = next(row for row in run.spaces if row["space"] == space)
    found = run.view.similar(space, index, asked.k, find_decoder(row, run.manifest, saes).rows)
    rows = _named(run, space, found.to_dicts())
    why = f"{row['address']} has no other feature."
    return Answer(("address", "cosine", "label"), rows, max(len(rows), row["width"] - 1), why)


@command.command("diff")
@click.argument("first", metavar="RUN")
@click.argument("second", metavar="RUN")
@click.option("--space", metavar="ADDRESS", help="Of this space only: its id, or its address without an index.")
@click.option("--layer", type=click.IntRange(0), help="Of the spaces at this layer only.")
@answered_of_runs
def diff(asked: Asked, first: str, second: str, space: str | None, layer: int | None) -> Answer:
    """Show the features that fire more, or less, in the second RUN than in the first; in spaces that both have."""
    import polars as pl

    from toolkit_store import Features

    runs = open_run(asked, first), open_run(asked, second)
    heads = ("address", "count_a", "count_b", "rate_a", "rate_b", "change", "max_a", "max_b")
    if missing := next((run for run in runs if not run.stages("activations")), None):
        return Answer(heads, [], 0, missing.why("activations"))
    wanted = _in_both(runs, space, layer)
    found = pl.concat([Features(runs[0].store).diff(runs[0].id, runs[1].id, one) for one in wanted])
    ranked = found.filter(pl.col("change") != 0).sort(
        [pl.col("change").abs(), "space", "feature"], descending=[True, False, False]
    )
    rows = [{**row, "address": runs[0].label(row["space"], row["feature"])} for row in ranked.head(asked.k).to_dicts()]
    why = f"Every feature fires in as large a share of samples in run {runs[1].id} as in run {runs[0].id}."
    return Answer(heads, rows, ranked.height, why)


@command.command("sql")
@click.argument("statement")
@answered
def sql(asked: Asked, statement: str) -> Answer:
    """Answer one SELECT over the tables of the run, in polars' SQL. Nothing else is read, and nothing is written."""
    found = open_run(asked).view.sql(statement)
    return Answer(found.columns, found.head(asked.k).to_dicts(), found.height, "No rows.", types=found.schema)


@command.command("sample")
@click.argument("sample")
@click.option("--position", type=click.IntRange(0), help="At this token only, counted from 0.")
@answered
def sample(asked: Asked, sample: str, position: int | None) -> Answer:
    """Show which features are active on SAMPLE."""
    run = open_run(asked)
    heads = ("address", "position", "token", "value")
    if not run.stages("samples"):
        return Answer(heads, [], 0, run.why("samples"))
    pieces = run.sample(sample)["pieces"]
    _check_position(position, sample, pieces)
    hits = run.view.sample(sample, position).sort(
        ["value", "space", "position", "feature"], descending=[True, False, False, False]
    )
    rows = [
        {
            "address": run.label(row["space"], row["feature"]),
            "position": row["position"],
            "token": _piece(pieces, row["position"]),
            "value": row["value"],
        }
        for row in hits.head(asked.k).to_dicts()
    ]
    return Answer(heads, rows, hits.height, "" if rows else _why_not_active(run, sample, position))


@command.command("features")
@click.option("--space", metavar="ADDRESS", help="Of this space only: its id, or its address without an index.")
@click.option("--layer", type=click.IntRange(0), help="Of the spaces at this layer only.")
@click.option("--stage", metavar="ID", help="What this stage wrote only.")
@click.option("--stat", "stats", multiple=True, metavar="STAT", help="Show this statistic only; may be given again.")
@click.option("--by", metavar="STAT", help="Sort by this statistic. Default: q, then the size of the effect.")
@click.option("--significant", is_flag=True, help="Significant differences only.")
@answered
def features(
    asked: Asked,
    space: str | None,
    layer: int | None,
    stage: str | None,
    stats: tuple[str, ...],
    by: str | None,
    significant: bool,
) -> Answer:
    """Show what was found out about features. One line a feature and comparison: statistics, tests, verdicts."""
    run = open_run(asked)
    wanted = run.spaces_of(space, layer)
    entries = only(run.read_stages("features", stage), "space", wanted)
    if not entries.num_rows:
        return Answer(("address", "stage"), [], 0, run.why("features", stage, "in these spaces" if wanted is not None else ""))
    _check_stats(entries, (*stats, *([by] if by else ())))
    ranked = _ranked(run, entries, by, significant)
    rows = _pivoted(run, entries, first_rows(ranked, asked.k))
    heads = _stat_heads(rows, stats, asked.form)
    why = f"No difference is significant in run {run.id}: stat 'significant' is 1 nowhere in what was asked for."
    return Answer(heads, rows, ranked.num_rows, why, shared=("stage", "contrast"))


@command.command("effects")
@click.option("--feature", metavar="ADDRESS", help="Of this feature only.")
@click.option("--arm", metavar="ARM", help="Of this arm only.")
@click.option("--stage", metavar="ID", help="What this stage wrote only.")
@click.option("--samples", is_flag=True, help="One line a sample instead of the summary over samples.")
@answered
def effects(asked: Asked, feature: str | None, arm: str | None, stage: str | None, samples: bool) -> Answer:
    """Show what interventions did, the surest first."""
    import pyarrow.compute as pc

    run = open_run(asked)
    heads = ("address", "stage", *(("sample",) if samples else ()), *EFFECTS)
    table = run.read_stages("effects", stage)
    if not table.num_rows:
        return Answer(heads, [], 0, run.why("effects", stage))
    asked_for = _of_arm(_of_feature(run, table, feature), arm)
    summary = pc.equal(asked_for["sample"], SUMMARY)
    chosen = asked_for.filter(pc.invert(summary) if samples else summary)
    sized = run.placed(chosen).append_column("size", pc.abs(chosen["effect"]))
    ordered = sorted_by(sized, [("q", True), ("size", False), *PLACE, ("arm", True), ("outcome", True), ("sample", True)])
    rows = [{**row, "address": run.label(row["space"], row["feature"])} for row in first_rows(ordered, asked.k)]
    why = _why_no_effects(run, table, asked_for.num_rows, samples)
    return Answer(heads, rows, chosen.num_rows, why, shared=("stage",))


# --- activations ---


def _named(run: Run, space: str, rows: Sequence[Row]) -> list[Row]:
    """The rows with each feature's address, and its label if it has one."""
    labels = dict(run.view.labels(space, [row["feature"] for row in rows]).iter_rows())
    return [{**row, "address": run.label(space, row["feature"]), "label": labels.get(row["feature"])} for row in rows]


def _kept(run: Run, sample: str) -> list[int]:
    """Positions of the sample whose activations were kept, of a run that has kept some."""
    found: set[int] = set()
    for batch in run.batches("activations", ("sample", "position")):
        found.update(only(batch, "sample", [sample])["position"].to_pylist())
    return sorted(found)


def _why_no_tokens(run: Run, address: str, sample: str, kept: Sequence[int]) -> str:
    if not kept:
        return f"No activations of sample '{sample}' are kept in run {run.id} in the space of {address}."
    some = listing([str(number) for number in kept])
    return f"Feature {address} does not fire on sample '{sample}'. Kept positions: {some}."


def _in_both(runs: tuple[Run, Run], space: str | None, layer: int | None) -> list[str]:
    """The spaces to compare: those that both runs have. A feature is compared with itself only."""
    from toolkit.errors import BadInput

    chosen = [run.spaces_of(space, layer) for run in runs]
    sides = [
        {row["space"]: row["address"] for row in run.spaces if ids is None or row["space"] in ids}
        for run, ids in zip(runs, chosen, strict=True)
    ]
    both = [id for id in sides[0] if id in sides[1]]
    if not both:
        named = [f"run {run.id}: {listing(sorted(set(side.values())))}" for run, side in zip(runs, sides, strict=True)]
        raise BadInput(
            f"The two runs have no space in common, and features of two spaces cannot be compared by their numbers. {'; '.join(named)}."
        )
    return both


def _check_position(position: int | None, sample: str, pieces: Sequence[str]) -> None:
    from toolkit.errors import BadInput

    if position is not None and position >= len(pieces):
        raise BadInput(f"--position {position}: sample '{sample}' has {len(pieces)} tokens (0 to {len(pieces) - 1}).")


def _why_not_active(run: Run, sample: str, position: int | None) -> str:
    if not run.stages("activations"):
        return run.why("activations")
    kept = _kept(run, sample)
    if not kept:
        return f"No activations of sample '{sample}' are kept in run {run.id}."
    if position is not None and position not in kept:
        some = listing([str(number) for number in kept])
        return f"No activations are kept at position {position} of sample '{sample}'. Kept positions: {some}."
    return f"No feature is active on sample '{sample}'" + ("." if position is None else f" at position {position}.")


# --- text around a token ---


def _with_text(run: Run, hits: Sequence[Row], marked: bool) -> list[Row]:
    """Add the token, the unit and the text around the token to each place."""
    found = {row["sample"]: row for row in run.texts([row["sample"] for row in hits])}
    nothing: Row = {"unit": None, "text": "", "pieces": []}
    return [_place(row, found.get(row["sample"], nothing), marked) for row in hits]


def _place(hit: Row, sample: Row, marked: bool) -> Row:
    at, pieces = hit["position"], sample["pieces"]
    text = around(sample["text"], pieces, at, _bright if marked else "[{}]".format)
    return {**hit, "token": _piece(pieces, at), "unit": sample["unit"], "text": text}


def _marks(asked: Asked) -> bool:
    return asked.form == "text" and _is_terminal()


def _is_terminal() -> bool:
    return sys.stdout.isatty()


def _bright(piece: str) -> str:
    return click.style(piece, bold=True, reverse=True)


def shaded(text: str, pieces: Sequence[str], values: Sequence[float | None], terminal: bool) -> str:
    """The whole text with the tokens marked where a feature fires: in a terminal brightly from half of its largest value on."""
    most = max((value for value in values if value), default=0.0)
    out, cursor = [], 0
    for (start, end), value in zip(spans(text, pieces), values, strict=True):
        out.append(one_line(text[cursor:start]))
        piece = one_line(text[start:end])
        if value and piece:
            piece = click.style(piece, bold=True, reverse=value >= most / 2, underline=True) if terminal else f"[{piece}]"
        out.append(piece)
        cursor = max(cursor, end)
    return "".join(out) + one_line(text[cursor:])


def around(text: str, pieces: Sequence[str], at: int, mark: Callable[[str], str]) -> str:
    """The text around token `at`, on one line, with the token marked; the end of the text for a token past it."""
    spots = [*spans(text, pieces), (len(text), len(text))]
    at = min(at, len(pieces))
    first, last = max(0, at - BEFORE), min(len(pieces) - 1, at + AFTER)
    (start, _), (begin, end), (_, stop) = spots[first], spots[at], spots[max(last, at)]
    left, right = "…" if first else "", "…" if last < len(pieces) - 1 else ""
    marked = mark(one_line(text[begin:end])) if at < len(pieces) else ""
    return f"{left}{one_line(text[start:begin])}{marked}{one_line(text[end:stop])}{right}"


def spans(text: str, pieces: Sequence[str]) -> list[tuple[int, int]]:
    """Where each piece stands in the text. A tokeniser may leave out spaces, and give one character to several tokens."""
    out, cursor = [], 0
    for piece in pieces:
        start = cursor
        while start < len(text) and text[start].isspace() and not text.startswith(piece, start):
            start += 1
        if text.startswith(piece, start):
            cursor = start + len(piece)
            out.append((start, cursor))
        elif text.endswith(piece, 0, cursor):
            out.append((cursor - len(piece), cursor))
        else:
            out.append((cursor, cursor))
    return out


def _piece(pieces: Sequence[str], at: int) -> str:
    return pieces[at] if at < len(pieces) else ""


# --- statistics of features ---


def _check_stats(entries: pa.Table, asked: Sequence[str]) -> None:
    from toolkit.errors import BadInput, choices, nearest

    known = entries["stat"].unique().to_pylist()
    for stat in asked:
        if stat not in known:
            raise BadInput(f"No feature here has the statistic '{stat}'.{nearest(stat, known)} Statistics: {choices(known)}.")


def _ranked(run: Run, entries: pa.Table, by: str | None, significant: bool) -> pa.Table:
    """The lines to show, in order: stage, space, feature, and the compared groups (`group`; empty where none are compared)."""
    import pyarrow as pa
    import pyarrow.compute as pc

    tests = only(entries, "stat", TESTED)
    on = ["stage", "space", "feature", *(["group"] if tests.num_rows else [])]
    lines = run.placed((tests if tests.num_rows else entries).group_by(on).aggregate([]))
    known = set(entries["stat"].unique().to_pylist())
    order = [by] if by else ["q", *(stat for stat in EFFECT_STATS if stat in known)] if tests.num_rows else []
    for stat in dict.fromkeys([*order, "significant"]):
        lines = _with_stat(lines, entries, stat, on)
    if significant:
        lines = lines.filter(pc.fill_null(pc.equal(lines["stat significant"], 1), False))
    if not tests.num_rows:
        lines = lines.append_column("group", pa.repeat(pa.scalar(""), lines.num_rows))
    return sorted_by(lines, [*((f"stat {stat}", stat in SMALLEST_FIRST) for stat in order), *PLACE, ("group", True)])


def _with_stat(lines: pa.Table, entries: pa.Table, stat: str, on: Sequence[str]) -> pa.Table:
    """Add a statistic of each line; its size, unless small means much. One that each group has counts with its largest."""
    import pyarrow.compute as pc

    found = only(entries, "stat", (stat,))
    keys = list(on) if stat in TEST_STATS else [name for name in on if name != "group"]
    pick = "min" if stat in SMALLEST_FIRST else "max"
    found = found.set_column(found.column_names.index("number"), "number", pc.abs(found["number"]))
    values = found.group_by(keys).aggregate([("number", pick)]).rename_columns([*keys, f"stat {stat}"])
    return lines.join(values, keys=keys, join_type="left outer")


def _pivoted(run: Run, entries: pa.Table, lines: Sequence[Row]) -> list[Row]:
    """Each line with what its stage wrote about the feature, and with the verdicts and labels of all stages."""
    near = only(only(entries, "space", {row["space"] for row in lines}), "feature", {row["feature"] for row in lines})
    compared = set(only(entries, "stat", TESTED)["group"].unique().to_pylist())
    written: dict[tuple[str, int], list[Row]] = {}
    for entry in near.to_pylist():
        written.setdefault((entry["space"], entry["feature"]), []).append(entry)
    return [_line_of(run, line, written[line["space"], line["feature"]], compared) for line in lines]


def _line_of(run: Run, line: Row, written: Sequence[Row], compared: set[str]) -> Row:
    cells: Row = {"address": run.label(line["space"], line["feature"]), "stage": line["stage"], "contrast": line["group"] or None}
    own = (entry for entry in written if entry["stage"] == line["stage"] and entry["stat"] not in ("verdict", "label"))
    for entry in own:
        stat, group = entry["stat"], entry["group"]
        if group in compared - {line["group"]}:
            continue  # another comparison of the same stage: it has its own line
        name = stat if group in ("", line["group"]) else f"{stat}[{group}]"
        cells[name] = entry["text"] if entry["number"] is None else entry["number"]
    if labels := [entry["text"] for entry in written if entry["stat"] == "label" and entry["text"]]:
        cells["label"] = "; ".join(dict.fromkeys(labels))
    verdicts = [entry for entry in written if entry["stat"] == "verdict"]
    said = [entry["text"] or shown(entry["number"]) for entry in verdicts]
    if len(set(said)) > 1:
        said = [f"{entry['group'] or entry['stage']}: {text}" for entry, text in zip(verdicts, said, strict=True)]
    return {**cells, "verdict": "; ".join(dict.fromkeys(said))} if said else cells


def _stat_heads(rows: Sequence[Row], stats: Sequence[str], form: str) -> list[str]:
    """The columns: the test first, then what each group has, then the rest, the verdict and the label last."""
    fixed = ("address", "stage", "contrast")
    first = {name: place for place, name in enumerate((*TEST_STATS, "mean", "density", "fired"))}
    names = {name: name.partition("[")[0] for row in rows for name in row if name not in fixed}
    hidden = ONLY_IF_ASKED if form == "text" else ()
    shown = [name for name, stat in names.items() if (stat in stats if stats else stat not in hidden)]
    return [
        *fixed,
        *sorted(shown, key=lambda name: (name == "label", name == "verdict", first.get(names[name], len(first)), name)),
    ]


# --- effects ---


def _of_feature(run: Run, table: pa.Table, address: str | None) -> pa.Table:
    if address is None:
        return table
    space, index = run.feature(address)
    return only(only(table, "space", [space]), "feature", [index])


def _of_arm(table: pa.Table, arm: str | None) -> pa.Table:
    from toolkit.errors import BadInput, choices, nearest

    known = table["arm"].unique().to_pylist()
    if arm is not None and known and arm not in known:
        raise BadInput(f"There is no arm '{arm}' here.{nearest(arm, known)} Arms: {choices(known)}.")
    return table if arm is None else only(table, "arm", [arm])


def _why_no_effects(run: Run, table: pa.Table, found: int, samples: bool) -> str:
    if not found:
        pairs = run.placed(table.group_by(["space", "feature", "stage"]).aggregate([]))
        known = dict.fromkeys(run.label(row["space"], row["feature"]) for row in sorted_by(pairs, PLACE).to_pylist())
        return f"Run {run.id} has no effects of this feature. It has effects of {len(known):,}: {listing(list(known))}."
    if samples:
        return "There are only summaries over samples: leave --samples out."
    return "There are only rows of single samples: add --samples."
