"""`toolkit query`: what the committed tables of a run say about a feature, a sample, a comparison or an intervention.

Rows are filtered and ordered as Arrow, a batch of steps at a time; only those that are shown become Python objects.
"""

from __future__ import annotations

import csv
import functools
import io
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolkit._cli._text import columns, json_option, store_option

if TYPE_CHECKING:
    import pyarrow as pa

    from toolkit.records import StepRow
    from toolkit_store import Store

Row = dict[str, Any]

BATCH_ROWS = 100_000
"""Rows read at a time: the activations of a large run do not fit in memory at once."""
BEFORE, AFTER = 16, 8
"""Tokens shown on each side of the one that is marked."""
TEST_STATS = ("d", "t", "df", "p", "q", "significant")
"""What a comparison writes, with the two groups' names as the group."""
TESTED = ("d", "q")
"""Where one of these is, there is a test."""
SMALLEST_FIRST = ("p", "q")
ONLY_IF_ASKED = ("t", "df")
"""Left out of the table for people unless `--stat` names them; programs get them always."""
EFFECTS = ("arm", "outcome", "probability", "effect", "low", "high", "p", "q", "kl")
PLACE = (("layer", True), ("space", True), ("feature", True), ("stage", True))
"""The order of rows that are otherwise equal."""
SUMMARY = "*"
"""The sample of a row that sums up all samples."""


@dataclass(frozen=True)
class Asked:
    """The options that every query has."""

    run: str | None
    store: str | None
    form: str
    k: int


@dataclass(frozen=True)
class Answer:
    """Rows to show, out of how many; if there are none, why. In a table for people, columns in `shared` that say the same
    in every row are said once, above it."""

    heads: Sequence[str]
    rows: Sequence[Row]
    total: int
    why: str
    shared: Sequence[str] = ()


# --- the commands ---


def _shared(function: Callable[..., Answer]) -> Callable[..., None]:
    """Give a command the common options, and print its answer."""

    @functools.wraps(function)
    def collected(run: str | None, store: str | None, as_json: bool, as_csv: bool, k: int, **own: Any) -> None:
        if as_json and as_csv:
            raise click.UsageError("--json and --csv exclude each other; give one.")
        asked = Asked(run, store, "json" if as_json else "csv" if as_csv else "text", k)
        _print(function(asked, **own), asked)

    collected = click.option("--k", default=20, show_default=True, type=click.IntRange(1), help="Rows to show.")(collected)
    collected = click.option("--csv", "as_csv", is_flag=True, help="Write CSV.")(collected)
    collected = store_option(json_option(collected))
    return click.option("--run", metavar="RUN", help="Id of a run or its beginning. Default: the newest.")(collected)


@click.group("query")
def command() -> None:
    """Look up features, samples, comparisons and effects of a run, also while it runs.

    ADDRESS is 25/2059, L25-2059, L25#2059, 25:2059 or model/hookpoint/sae:2059.
    """


@command.command("top")
@click.argument("address")
@_shared
def top(asked: Asked, address: str) -> Answer:
    """Show where the feature at ADDRESS fires hardest."""
    run = _open(asked)
    heads = ("sample", "position", "token", "value", "unit", "text")
    if missing := next((table for table in ("activations", "spaces") if not run.stages(table)), None):
        return Answer(heads, [], 0, run.why(missing))
    space, index = run.feature(address)
    hits = _hardest(run.activations(space), index)
    rows = _with_text(run, _head(hits, asked.k), marked=asked.form == "text" and _is_terminal())
    why = f"Feature {address} fires at no position whose activations run {run.id} has kept."
    return Answer(heads, rows, hits.num_rows, why)


@command.command("sample")
@click.argument("sample")
@click.option("--position", type=click.IntRange(0), help="At this token only, counted from 0.")
@_shared
def sample(asked: Asked, sample: str, position: int | None) -> Answer:
    """Show which features are active on SAMPLE."""
    run = _open(asked)
    heads = ("address", "position", "token", "value")
    if not run.stages("samples"):
        return Answer(heads, [], 0, run.why("samples"))
    pieces = run.sample(sample)["pieces"]
    _check_position(position, sample, pieces)
    kept, hits = _active(run, sample, position)
    rows = [
        {
            "address": run.label(row["space"], row["feature"]),
            "position": row["position"],
            "token": _piece(pieces, row["position"]),
            "value": row["value"],
        }
        for row in _head(hits, asked.k)
    ]
    return Answer(heads, rows, hits.num_rows, _why_not_active(run, sample, position, kept))


@command.command("features")
@click.option("--space", metavar="ADDRESS", help="Of this space only: its id, or its address without an index.")
@click.option("--layer", type=click.IntRange(0), help="Of the spaces at this layer only.")
@click.option("--stage", metavar="ID", help="What this stage wrote only.")
@click.option("--stat", "stats", multiple=True, metavar="STAT", help="Show this statistic only; may be given again.")
@click.option("--by", metavar="STAT", help="Sort by this statistic. Default: q, then the size of d.")
@click.option("--significant", is_flag=True, help="Significant differences only.")
@_shared
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
    run = _open(asked)
    wanted = run.spaces_of(space, layer)
    entries = _only(run.read_stages("features", stage), "space", wanted)
    if not entries.num_rows:
        return Answer(("address", "stage"), [], 0, run.why("features", stage, "in these spaces" if wanted is not None else ""))
    _check_stats(entries, (*stats, *([by] if by else ())))
    ranked = _ranked(run, entries, by, significant)
    rows = _pivoted(run, entries, _head(ranked, asked.k))
    heads = _stat_heads(rows, stats, asked.form)
    why = f"No difference is significant in run {run.id}: stat 'significant' is 1 nowhere in what was asked for."
    return Answer(heads, rows, ranked.num_rows, why, shared=("stage", "contrast"))


@command.command("effects")
@click.option("--feature", metavar="ADDRESS", help="Of this feature only.")
@click.option("--arm", metavar="ARM", help="Of this arm only.")
@click.option("--stage", metavar="ID", help="What this stage wrote only.")
@click.option("--samples", is_flag=True, help="One line a sample instead of the summary over samples.")
@_shared
def effects(asked: Asked, feature: str | None, arm: str | None, stage: str | None, samples: bool) -> Answer:
    """Show what interventions did, the surest first."""
    import pyarrow.compute as pc

    run = _open(asked)
    heads = ("address", "stage", *(("sample",) if samples else ()), *EFFECTS)
    table = run.read_stages("effects", stage)
    if not table.num_rows:
        return Answer(heads, [], 0, run.why("effects", stage))
    asked_for = _of_arm(_of_feature(run, table, feature), arm)
    summary = pc.equal(asked_for["sample"], SUMMARY)
    chosen = asked_for.filter(pc.invert(summary) if samples else summary)
    sized = run.placed(chosen).append_column("size", pc.abs(chosen["effect"]))
    ordered = _sorted(sized, [("q", True), ("size", False), *PLACE, ("arm", True), ("outcome", True), ("sample", True)])
    rows = [{**row, "address": run.label(row["space"], row["feature"])} for row in _head(ordered, asked.k)]
    why = _why_no_effects(run, table, asked_for.num_rows, samples)
    return Answer(heads, rows, chosen.num_rows, why, shared=("stage",))


# --- the run ---


@dataclass(frozen=True)
class Run:
    """The committed rows of one run."""

    id: str
    folder: Path
    store: Store
    steps: Sequence[StepRow]

    def stages(self, table: str) -> dict[str, list[str]]:
        """Stage -> keys of its steps that wrote rows to `table`."""
        out: dict[str, list[str]] = {}
        for step in self.steps:
            if step.tables.get(table):
                out.setdefault(step.stage, []).append(step.key)
        return out

    def read(self, table: str, wanted: Sequence[str] | None = None) -> pa.Table:
        """All rows of a table, of whatever stage."""
        return self.store.read(table, [step.key for step in self.steps if step.tables.get(table)], wanted)

    def batches(self, table: str, wanted: Sequence[str]) -> Iterator[pa.Table]:
        """The rows of a table, the steps of about `BATCH_ROWS` rows at a time."""
        keys: list[str] = []
        count = 0
        for step in self.steps:
            if rows := step.tables.get(table):
                keys, count = [*keys, step.key], count + rows
            if count >= BATCH_ROWS:
                yield self.store.read(table, keys, wanted)
                keys, count = [], 0
        if keys:
            yield self.store.read(table, keys, wanted)

    def read_stages(self, table: str, stage: str | None) -> pa.Table:
        """The rows of a table with a column `stage`; of one stage, if it is named."""
        import pyarrow as pa

        from toolkit.errors import BadInput, choices, nearest
        from toolkit.tables import arrow_schema

        found = self.stages(table)
        if stage is not None and stage not in found:
            known = {step.stage for step in self.steps} | {str(entry.get("id")) for entry in self.planned}
            if stage not in known:
                raise BadInput(f"Run {self.id} has no stage '{stage}'.{nearest(stage, known)} Stages: {choices(known)}.")
        parts = []
        for name, keys in found.items():
            if stage in (None, name):
                rows = self.store.read(table, keys)
                parts.append(rows.append_column("stage", pa.repeat(pa.scalar(name), rows.num_rows)))
        schema = arrow_schema(table).append(pa.field("stage", pa.string()))
        return pa.concat_tables([schema.empty_table(), *parts])

    def activations(self, space: str) -> Iterator[pa.Table]:
        """Activations in one space, a batch at a time."""
        wanted = ("space", "sample", "position", "features", "values")
        for batch in self.batches("activations", wanted):
            yield _only(batch, "space", [space])

    @cached_property
    def spaces(self) -> list[Row]:
        """The rows of `spaces`."""
        found: list[Row] = self.read("spaces").to_pylist()
        return found

    @cached_property
    def planned(self) -> list[Row]:
        """The stages as the manifest names them; empty when it cannot be read."""
        from toolkit._manifest import read_manifest
        from toolkit._places import run_folder
        from toolkit.errors import BadInput

        try:
            return list(read_manifest(run_folder(self.folder, self.id)).get("stages") or ())
        except BadInput:
            return []

    @cached_property
    def _prefixes(self) -> dict[str, str]:
        from toolkit.addresses import prefixes

        return prefixes(self.spaces)

    def label(self, space: str, index: int) -> str:
        """The shortest address of a feature that can be typed back; `-` for what is done to no feature."""
        return f"{self._prefixes.get(space, f'{space}:')}{index}" if space else "-"

    def feature(self, address: str) -> tuple[str, int]:
        """Space id and index of an address."""
        from toolkit.addresses import locate, parse
        from toolkit.errors import BadInput

        if not self.spaces:
            parse(address)
            raise BadInput(self.why("spaces"))
        space, index = locate(address, self.spaces)
        return str(space["space"]), index

    def spaces_of(self, name: str | None, layer: int | None) -> list[str] | None:
        """Ids of the spaces that `--space` and `--layer` mean; None for all."""
        from toolkit.addresses import at_layer
        from toolkit.errors import BadInput, nearest

        if name is None and layer is None:
            return None
        rows = self.spaces if layer is None else at_layer(self.spaces, layer)
        found = [row for row in rows if name in (None, row["space"], row["address"])]
        if not found:
            known = [str(row["address"]) for row in rows]
            raise BadInput(f"There is no space '{name}' here.{nearest(str(name), known)} Spaces: {_some(known)}.")
        return [str(row["space"]) for row in found]

    def placed(self, table: pa.Table) -> pa.Table:
        """The table with a column `layer`, by which spaces are put in order."""
        import pyarrow as pa

        from toolkit.addresses import layer_of

        layers = {row["space"]: layer_of(row) for row in self.spaces}
        spaces = table["space"].combine_chunks().dictionary_encode()
        known = pa.array([layers.get(space) for space in spaces.dictionary.to_pylist()], pa.int64())
        return table.append_column("layer", known.take(spaces.indices))

    def sample(self, name: str) -> Row:
        """The sample of that id, or an error with the nearest."""
        from toolkit.errors import BadInput, nearest

        known: list[str] = []
        for batch in self.batches("samples", ("sample", "pieces")):
            if found := _only(batch, "sample", [name]).to_pylist():
                return dict(found[0])
            known += batch["sample"].to_pylist()
        raise BadInput(
            f"Run {self.id} has no sample '{name}'.{nearest(name, known)} It has {len(known):,}, such as {_some(sorted(known), 3)}."
        )

    def why(self, table: str, stage: str | None = None, where: str = "") -> str:
        """Why a table is empty, and which stage writes it."""
        writers = [entry for entry in self.planned if table in (entry.get("writes") or ())]
        head = f"Table '{table}' has no rows {where or f'in run {self.id}'}"
        if stage is not None and stage not in [entry.get("id") for entry in writers]:
            return f"{head}: stage '{stage}' does not write it. " + _writes(writers, table)
        if where or not writers:
            return f"{head}. " + (f"Stages that wrote some: {_some(list(self.stages(table)))}." if where else _writes([], table))
        return f"{head}: " + "; ".join(self._why_stage(entry) for entry in writers if stage in (None, entry.get("id"))) + "."

    def _why_stage(self, entry: Mapping[str, Any]) -> str:
        done = sum(step.stage == entry.get("id") for step in self.steps)
        said = f"its {done} committed step(s) wrote none" if done else "it has committed no step yet"
        return f"stage '{entry.get('id')}' ({entry.get('part')}) writes it and {said}"


def _writes(writers: Sequence[Mapping[str, Any]], table: str) -> str:
    """Which stages write the table; if none does, which installed parts would."""
    from toolkit._plugins import load_parts
    from toolkit.errors import PluginError

    if writers:
        return f"Stages of this run that do: {', '.join(str(entry.get('id')) for entry in writers)}."
    try:
        parts = [part.name for part in load_parts().all() if table in getattr(part, "writes", ())]
    except PluginError:  # what is committed can be read whatever is installed
        return "No stage of this run writes it. Parts that do: toolkit plugins says why they cannot be listed."
    return f"No stage of this run writes it. Parts that do: {', '.join(parts) or 'none is installed'}."


def _open(asked: Asked) -> Run:
    """The run asked for. Of one that is not done, the committed steps, and a word about it on stderr."""
    from toolkit._cli.status import alive
    from toolkit._events import read_events
    from toolkit._places import find_run, run_folder, store_folder, tally
    from toolkit.errors import BadInput
    from toolkit_store import open_store

    folder = store_folder(asked.store)
    store = open_store(folder, read_only=True)
    states = store.run_states()
    if asked.run is None and not states:
        raise BadInput(f"{folder} holds no runs yet. Start one: toolkit run SPEC")
    name = states[-1].run if asked.run is None else find_run(folder, asked.run)
    told = tally(read_events(run_folder(folder, name)))
    row = next((row for row in states if row.run == name), None)
    run = Run(name, folder, store, store.steps(sorted({*(row.steps if row else ()), *told.keys})))
    if asked.run is None and len(states) > 1:
        click.echo(f"run: {name}, the newest of {len(states)}", err=True)
    state = told.state if row is None else "dead" if row.state == "running" and not alive(row) else row.state
    if state != "done":
        total = (row.total if row else None) or told.total
        click.echo(f"partial: run {name} is {state}; {len(run.steps)} of {total or '?'} steps are committed", err=True)
    return run


# --- activations ---


def _hardest(batches: Iterable[pa.Table], index: int) -> pa.Table:
    """Where one feature fires: sample, position and value, the largest first."""
    import pyarrow as pa
    import pyarrow.compute as pc

    by = ["sample", "position"]
    schema = pa.schema([("sample", pa.string()), ("position", pa.int32()), ("value", pa.float32())])
    parts = [schema.empty_table()]
    for batch in batches:
        rows = _flat(batch, by)
        parts.append(rows.filter(pc.equal(rows["feature"], index)).select(schema.names))
    return _sorted(_once(pa.concat_tables(parts), by), [("value", False), *((name, True) for name in by)])


def _active(run: Run, sample: str, position: int | None) -> tuple[list[int], pa.Table]:
    """Positions of the sample whose activations were kept, and what is active there, the largest first."""
    import pyarrow as pa
    import pyarrow.compute as pc

    by = ["space", "position", "feature"]
    schema = pa.schema([("space", pa.string()), ("position", pa.int32()), ("feature", pa.uint32()), ("value", pa.float32())])
    parts, kept = [schema.empty_table()], set[int]()
    for batch in run.batches("activations", ("space", "sample", "position", "features", "values")):
        rows = _only(batch, "sample", [sample])
        kept.update(rows["position"].to_pylist())
        if position is not None:
            rows = rows.filter(pc.equal(rows["position"], position))
        parts.append(_flat(rows, ["space", "position"]).select(schema.names))
    return sorted(kept), _sorted(_once(pa.concat_tables(parts), by), [("value", False), *((name, True) for name in by)])


def _flat(rows: pa.Table, by: Sequence[str]) -> pa.Table:
    """One row an entry: the columns `by`, `feature` and `value`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    whole = rows.combine_chunks()
    lists = {name: whole[name].combine_chunks() for name in ("features", "values")}
    parents = pc.list_parent_indices(lists["features"])
    out = whole.select(list(by)).take(parents)
    flat = {name: pc.list_flatten(column) for name, column in lists.items()}
    return pa.table({**{name: out[name] for name in by}, "feature": flat["features"], "value": flat["values"]})


def _once(rows: pa.Table, by: Sequence[str]) -> pa.Table:
    """Two stages may have kept the same entry: it is shown once."""
    found = rows.group_by(list(by)).aggregate([("value", "max")])
    return found.rename_columns(["value" if name == "value_max" else name for name in found.column_names])


def _check_position(position: int | None, sample: str, pieces: Sequence[str]) -> None:
    from toolkit.errors import BadInput

    if position is not None and position >= len(pieces):
        raise BadInput(f"--position {position}: sample '{sample}' has {len(pieces)} tokens (0 to {len(pieces) - 1}).")


def _why_not_active(run: Run, sample: str, position: int | None, kept: Sequence[int]) -> str:
    if not run.stages("activations"):
        return run.why("activations")
    if not kept:
        return f"No activations of sample '{sample}' are kept in run {run.id}."
    if position is not None and position not in kept:
        some = _some([str(number) for number in kept])
        return f"No activations are kept at position {position} of sample '{sample}'. Kept positions: {some}."
    return f"No feature is active on sample '{sample}'" + ("." if position is None else f" at position {position}.")


# --- text around a token ---


def _with_text(run: Run, hits: Sequence[Row], marked: bool) -> list[Row]:
    """Add the token, the unit and the text around the token to each place."""
    ids = [row["sample"] for row in hits]
    found: dict[str, Row] = {}
    for batch in run.batches("samples", ("sample", "unit", "text", "pieces")) if ids else ():
        found |= {row["sample"]: row for row in _only(batch, "sample", ids).to_pylist()}
    nothing: Row = {"unit": None, "text": "", "pieces": []}
    return [_place(row, found.get(row["sample"], nothing), marked) for row in hits]


def _place(hit: Row, sample: Row, marked: bool) -> Row:
    at, pieces = hit["position"], sample["pieces"]
    text = around(sample["text"], pieces, at, _bright if marked else "[{}]".format)
    return {**hit, "token": _piece(pieces, at), "unit": sample["unit"], "text": text}


def _is_terminal() -> bool:
    return sys.stdout.isatty()


def _bright(piece: str) -> str:
    return click.style(piece, bold=True, reverse=True)


def around(text: str, pieces: Sequence[str], at: int, mark: Callable[[str], str]) -> str:
    """The text around token `at`, on one line, with the token marked; the end of the text for a token past it."""
    spots = [*spans(text, pieces), (len(text), len(text))]
    at = min(at, len(pieces))
    first, last = max(0, at - BEFORE), min(len(pieces) - 1, at + AFTER)
    (start, _), (begin, end), (_, stop) = spots[first], spots[at], spots[max(last, at)]
    left, right = "…" if first else "", "…" if last < len(pieces) - 1 else ""
    marked = mark(_line(text[begin:end])) if at < len(pieces) else ""
    return f"{left}{_line(text[start:begin])}{marked}{_line(text[end:stop])}{right}"


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


def _line(text: str) -> str:
    """The text on one line: line ends as a visible mark, and nothing in it that steers a terminal."""
    return "".join(letter if letter.isprintable() else {"\n": "↵", "\t": " ", "\xa0": " "}.get(letter, "·") for letter in text)


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

    tests = _only(entries, "stat", TESTED)
    on = ["stage", "space", "feature", *(["group"] if tests.num_rows else [])]
    lines = run.placed((tests if tests.num_rows else entries).group_by(on).aggregate([]))
    order = [by] if by else ["q", "d"] if tests.num_rows else []
    for stat in dict.fromkeys([*order, "significant"]):
        lines = _with_stat(lines, entries, stat, on)
    if significant:
        lines = lines.filter(pc.fill_null(pc.equal(lines["stat significant"], 1), False))
    if not tests.num_rows:
        lines = lines.append_column("group", pa.repeat(pa.scalar(""), lines.num_rows))
    return _sorted(lines, [*((f"stat {stat}", stat in SMALLEST_FIRST) for stat in order), *PLACE, ("group", True)])


def _with_stat(lines: pa.Table, entries: pa.Table, stat: str, on: Sequence[str]) -> pa.Table:
    """Add a statistic of each line; its size, unless small means much. One that each group has counts with its largest."""
    import pyarrow.compute as pc

    found = _only(entries, "stat", (stat,))
    keys = list(on) if stat in TEST_STATS else [name for name in on if name != "group"]
    pick = "min" if stat in SMALLEST_FIRST else "max"
    found = found.set_column(found.column_names.index("number"), "number", pc.abs(found["number"]))
    values = found.group_by(keys).aggregate([("number", pick)]).rename_columns([*keys, f"stat {stat}"])
    return lines.join(values, keys=keys, join_type="left outer")


def _pivoted(run: Run, entries: pa.Table, lines: Sequence[Row]) -> list[Row]:
    """Each line with what its stage wrote about the feature, and with the verdicts of all stages."""
    near = _only(_only(entries, "space", {row["space"] for row in lines}), "feature", {row["feature"] for row in lines})
    compared = set(_only(entries, "stat", TESTED)["group"].unique().to_pylist())
    written: dict[tuple[str, int], list[Row]] = {}
    for entry in near.to_pylist():
        written.setdefault((entry["space"], entry["feature"]), []).append(entry)
    return [_line_of(run, line, written[line["space"], line["feature"]], compared) for line in lines]


def _line_of(run: Run, line: Row, written: Sequence[Row], compared: set[str]) -> Row:
    cells: Row = {"address": run.label(line["space"], line["feature"]), "stage": line["stage"], "contrast": line["group"] or None}
    own = (entry for entry in written if entry["stage"] == line["stage"] and entry["stat"] != "verdict")
    for entry in own:
        stat, group = entry["stat"], entry["group"]
        if stat in TEST_STATS and group in compared - {line["group"]}:
            continue  # another comparison of the same stage: it has its own line
        name = stat if group in ("", line["group"]) else f"{stat}[{group}]"
        cells[name] = entry["text"] if entry["number"] is None else entry["number"]
    verdicts = [entry for entry in written if entry["stat"] == "verdict"]
    said = [entry["text"] or _cell(entry["number"]) for entry in verdicts]
    if len(set(said)) > 1:
        said = [f"{entry['group'] or entry['stage']}: {text}" for entry, text in zip(verdicts, said, strict=True)]
    return {**cells, "verdict": "; ".join(dict.fromkeys(said))} if said else cells


def _stat_heads(rows: Sequence[Row], stats: Sequence[str], form: str) -> list[str]:
    """The columns: the test first, then what each group has, then the rest, the verdict last."""
    fixed = ("address", "stage", "contrast")
    first = {name: place for place, name in enumerate((*TEST_STATS, "mean", "density", "fired"))}
    names = {name: name.partition("[")[0] for row in rows for name in row if name not in fixed}
    hidden = ONLY_IF_ASKED if form == "text" else ()
    shown = [name for name, stat in names.items() if (stat in stats if stats else stat not in hidden)]
    return [*fixed, *sorted(shown, key=lambda name: (name == "verdict", first.get(names[name], len(first)), name))]


# --- effects ---


def _of_feature(run: Run, table: pa.Table, address: str | None) -> pa.Table:
    if address is None:
        return table
    space, index = run.feature(address)
    return _only(_only(table, "space", [space]), "feature", [index])


def _of_arm(table: pa.Table, arm: str | None) -> pa.Table:
    from toolkit.errors import BadInput, choices, nearest

    known = table["arm"].unique().to_pylist()
    if arm is not None and known and arm not in known:
        raise BadInput(f"There is no arm '{arm}' here.{nearest(arm, known)} Arms: {choices(known)}.")
    return table if arm is None else _only(table, "arm", [arm])


def _why_no_effects(run: Run, table: pa.Table, found: int, samples: bool) -> str:
    if not found:
        pairs = run.placed(table.group_by(["space", "feature", "stage"]).aggregate([]))
        known = dict.fromkeys(run.label(row["space"], row["feature"]) for row in _sorted(pairs, PLACE).to_pylist())
        return f"Run {run.id} has no effects of this feature. It has effects of {len(known):,}: {_some(list(known))}."
    if samples:
        return "There are only summaries over samples: leave --samples out."
    return "There are only rows of single samples: add --samples."


# --- tables ---


def _only(table: pa.Table, column: str, values: Iterable[Any] | None) -> pa.Table:
    """The rows whose `column` is one of `values`; all rows for None."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if values is None:
        return table
    return table.filter(pc.is_in(table[column], value_set=pa.array(list(values), table.schema.field(column).type)))


def _sorted(table: pa.Table, order: Iterable[tuple[str, bool]]) -> pa.Table:
    """The rows in order; True means smallest first. What has no value comes last either way, as Arrow has it."""
    import pyarrow.compute as pc

    keys = [(name, "ascending" if up else "descending") for name, up in order]
    return table.take(pc.sort_indices(table, sort_keys=keys))


def _head(table: pa.Table, k: int) -> list[Row]:
    rows: list[Row] = table.slice(0, k).to_pylist()
    return rows


def _some(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "(none)") + more


# --- printing ---


def _print(answer: Answer, asked: Asked) -> None:
    rows = [{head: _plain(row.get(head)) for head in answer.heads} for row in answer.rows]
    if asked.form == "json":
        click.echo(json.dumps(rows, indent=1))
    elif asked.form == "csv":
        click.echo(_csv(answer.heads, rows), nl=False)
    elif rows:
        click.echo(_table(answer, rows))
    if not rows:
        click.echo(answer.why, err=True)
    elif answer.total > len(rows):
        click.echo(f"{len(rows):,} of {answer.total:,} rows; more: --k N", err=True)


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _csv(heads: Sequence[str], rows: Sequence[Row]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, heads, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _table(answer: Answer, rows: Sequence[Row]) -> str:
    """Aligned columns, numbers to the right; columns without any value are left out."""
    once = [head for head in answer.shared if len({row[head] for row in rows}) == 1]
    heads = [head for head in answer.heads if head not in once and any(row[head] is not None for row in rows)]
    right = [head for head in heads if all(isinstance(row[head], int | float | None) for row in rows)]
    said = [f"{head}: {rows[0][head]}" for head in once if rows[0][head] is not None]
    # Marked text holds terminal codes, whose line was cleaned when it was cut out.
    cells = [[row[head] if head == "text" else _line(_cell(row[head])) for head in heads] for row in rows]
    return "".join(f"{line}\n" for line in ["   ".join(said)] if line) + columns(heads, cells, right=right)


def _cell(value: Any) -> str:
    """A number with four significant digits, whole ones in full; `-` for none."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e9 else f"{value:.4g}"
    return str(value)
