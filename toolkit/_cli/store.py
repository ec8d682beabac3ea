"""`toolkit store`: check and compact the store; export and import runs in other programs'
formats.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolkit._cli._text import (
    MAX_NUMBER,
    columns,
    json_option,
    run_option,
    size,
    store_option,
)
from toolkit.features.addresses import layer_of
from toolkit.terminal import counted, echo

if TYPE_CHECKING:
    from toolkit._query.run import Run
    from toolkit_store import CheckReport, CleanReport, Store
    from toolkit_store.interchange import RunTables

_FOLDER = click.Path(path_type=Path)
FORMATS = ("parquet", "safetensors", "rows", "tokens", "neuronpedia", "lists")
_DENSE = ("rows", "tokens")
_EXPORT = {
    "spaces": ("--space", ("safetensors", "rows", "tokens", "neuronpedia", "lists")),
    "features": ("--feature", ("lists",)),
    "name": ("--name", ("lists",)),
    "label": ("--label", ("rows",)),
    "max_bytes": ("--max-bytes", _DENSE),
    "k": ("--samples", ("neuronpedia",)),
}
_IMPORT = {
    "run": ("--run", ("neuronpedia", "lists")),
    "model": ("--model", _DENSE),
    "site": ("--site", _DENSE),
    "label": ("--label", ("rows",)),
    "sources": ("--source", ("neuronpedia",)),
    "space": ("--space", ("lists",)),
}
"""The formats that each option applies to."""


_spaces_option = click.option(
    "--space",
    "spaces",
    multiple=True,
    metavar="ADDRESS",
    help="Only this space; may be repeated.",
)


@click.group("store")
def command() -> None:
    """Check and clean up a store, export its runs for other programs and import theirs."""


@command.command("init")
@click.option(
    "--values",
    type=click.Choice(("float32", "float16")),
    help="The type in which activations are stored. Default: float32.",
)
@store_option
def init(values: str | None, store: str | None) -> None:
    """Make an empty store. A run makes its own store, so this is only needed to store values as
    float16: three digits, a quarter less space.
    """
    from toolkit._run.run_folder import store_folder
    from toolkit_store import open_store

    made = open_store(store_folder(store), create=True, values=values)
    echo(f"{made.uri} keeps values as {'float16' if made.database.half else 'float32'}")


# --- maintenance ---


@command.command("check")
@json_option
@store_option
def check(as_json: bool, store: str | None) -> None:
    """Compare every file with its recorded size and SHA-256, and the rows with the ledger. Exit
    code 3: there are problems.
    """
    report = _opened(store, read_only=True).check()
    if as_json:
        echo(json.dumps(asdict(report), indent=1))
    else:
        lines = [
            *(f"WRONG  {problem}" for problem in report.problems),
            *(f"note   {note}" for note in report.notes),
        ]
        echo("\n".join([*lines, _looked_at(report)]))
    if report.problems:
        echo(
            "Restore these files from a copy of the store, or run the spec again with a new store.",
            err=True,
        )
        sys.exit(3)


def _looked_at(report: CheckReport) -> str:
    if not report.files:
        return "no files to check" + (
            "" if report.problems else "; every step has the rows that it wrote"
        )
    return f"{counted(report.files, 'file')}, {size(report.bytes)}" + (
        "" if report.problems else ": all are unchanged since they were written"
    )


@command.command("compact")
@json_option
@store_option
def compact(as_json: bool, store: str | None) -> None:
    """Join small files and bring the indexes up to date. Runs may continue meanwhile."""
    _report(_opened(store).compact(), as_json)


@command.command("gc")
@json_option
@store_option
def gc(as_json: bool, store: str | None) -> None:
    """Remove what is no longer needed: rows of interrupted steps, old versions of tables, unused
    indexes. No result is lost.
    """
    _report(_opened(store).gc(), as_json)


@command.command("project")
@run_option
@_spaces_option
@click.option(
    "--saes",
    metavar="FOLDER",
    type=_FOLDER,
    help="The folder of the SAE files, if it is not the one that the run used.",
)
@click.option(
    "--dims",
    type=click.IntRange(8, 4096),
    help="Bytes per feature. Default: as the store has them, else 512.",
)
@store_option
def project(
    run: str | None, spaces: tuple[str, ...], saes: Path | None, dims: int | None, store: str | None
) -> None:
    """Store compact projections of a run's decoders: `toolkit query similar` then works without the
    SAE files.
    """
    from toolkit._cli._decoders import find_decoder
    from toolkit._cli.query.answers import open_named
    from toolkit_store.index.projections import project as keep

    source = open_named(store, run)
    target = _opened(store)
    space_ids = (
        {id for name in spaces for id in source.spaces_of(name, None) or ()} if spaces else None
    )
    for space in sorted(source.spaces, key=_by_layer):
        if space["sae"] is None or (space_ids is not None and space["space"] not in space_ids):
            continue
        decoder = find_decoder(space, source.manifest, saes)
        new = keep(
            target,
            space["space"],
            space["sae_hash"],
            decoder.width,
            decoder.rows,
            dims,
            run=source.id,
        )
        echo(f"{space['address']}: " + (f"{decoder.width:,} features" if new else "already stored"))


def _by_layer(space: Mapping[str, Any]) -> tuple[int, str]:
    """Sort by layer; spaces without a layer come first."""
    layer = layer_of(space)
    return -1 if layer is None else layer, space["address"]


def _opened(store: str | None, *, read_only: bool = False, create: bool = False) -> Store:
    from toolkit._run.run_folder import store_folder
    from toolkit_store import open_store

    return open_store(store_folder(store), read_only=read_only, create=create)


def _report(report: CleanReport, as_json: bool) -> None:
    if as_json:
        echo(
            json.dumps(
                {"rows": dict(report.rows), "files": report.files, "bytes": report.bytes}, indent=1
            )
        )
        return
    rows = [(name, f"{count:,}") for name, count in report.rows.items()]
    table = [columns(("TABLE", "ROWS REMOVED"), rows, right=("ROWS REMOVED",))] if rows else []
    echo("\n".join([*table, f"{counted(report.files, 'file')} fewer, {size(report.bytes)} less"]))


# --- other programs' formats ---


def _formats(function: Callable[..., Any]) -> Callable[..., Any]:
    function = click.argument("folder", type=_FOLDER)(function)
    return click.argument("form", metavar="FORMAT", type=click.Choice(FORMATS))(function)


@command.command("export")
@_formats
@run_option
@_spaces_option
@click.option(
    "--feature",
    "features",
    multiple=True,
    metavar="ADDRESS",
    help="lists: only this feature; may be repeated.",
)
@click.option(
    "--name", metavar="TEXT", help="lists: the name of the list. Default: the run's name."
)
@click.option(
    "--label",
    metavar="KEY",
    help="rows: the metadata key of the label. Default: concept_strength_label.",
)
@click.option(
    "--max-bytes",
    type=click.IntRange(1, MAX_NUMBER),
    help="rows, tokens: the largest dense matrix to write, in bytes. Default: 4 GiB.",
)
@click.option(
    "--samples",
    "k",
    type=click.IntRange(1, MAX_NUMBER),
    help="neuronpedia: the number of samples per feature. Default: 20.",
)
@store_option
def export(form: str, folder: Path, run: str | None, store: str | None, **flags: Any) -> None:
    """Write a run to a new FOLDER.

    FORMAT is parquet (everything, for importing it again), safetensors (sparse, COO), rows or
    tokens (dense npz), neuronpedia (bulk JSON lines) or lists (features for SAELens, SAEDashboard,
    quick lists).
    """
    from toolkit._cli.query.answers import open_named
    from toolkit_store.interchange import export_run

    _check_options(form, flags, _EXPORT)
    source = open_named(store, run)
    files = export_run(_tables(source), form, folder, **_export_options(source, flags))
    total = sum(path.stat().st_size for path in files)
    echo(f"run {source.id}: {counted(len(files), 'file')}, {size(total)}, in {folder}")


@command.command("import")
@_formats
@click.option(
    "--run",
    metavar="RUN",
    help="neuronpedia, lists: the run that gets the labels. Default: the newest.",
)
@click.option(
    "--model", metavar="NAME", help="rows, tokens: the model, if the files do not name it."
)
@click.option(
    "--site", metavar="SITE", help="rows, tokens: the site in the model. Default: resid_post."
)
@click.option(
    "--label",
    metavar="KEY",
    help="rows: the metadata key for the labels. Default: concept_strength_label.",
)
@click.option(
    "--source",
    "sources",
    multiple=True,
    metavar="SOURCE=SPACE",
    help="neuronpedia: the space of a source.",
)
@click.option("--space", metavar="ADDRESS", help="lists: the space of plain lists of indices.")
@store_option
def import_(form: str, folder: Path, run: str | None, store: str | None, **flags: Any) -> None:
    """Read FOLDER, written by `toolkit store export` or another program, into the store. Repeating
    an import changes nothing.
    """
    from toolkit._cli.query.answers import open_named
    from toolkit_store.interchange import ATTACHED, import_run

    _check_options(form, flags | {"run": run}, _IMPORT)
    options: dict[str, Any] = {name: value for name, value in flags.items() if value}
    target = _opened(store, create=form not in ATTACHED)
    if form in ATTACHED:
        source = open_named(store, run)
        options |= {"run": _tables(source, target)} | _spaces(source, options)
    echo(f"run {import_run(target, form, folder, **options)}")


def _check_options(
    form: str, flags: dict[str, Any], meant: dict[str, tuple[str, tuple[str, ...]]]
) -> None:
    for name, (option, formats) in meant.items():
        if flags.get(name) and form not in formats:
            raise click.UsageError(
                f"{option} does not apply to format '{form}'; it is for {', '.join(formats)}."
            )


def _export_options(run: Run, flags: dict[str, Any]) -> dict[str, Any]:
    """The options of a format's writer, with addresses as ids."""
    options = {name: value for name, value in flags.items() if value}
    if "spaces" in options:
        options["spaces"] = [
            id for name in options["spaces"] for id in run.spaces_of(name, None) or ()
        ]
    if "features" in options:
        options["features"] = [run.feature(address) for address in options["features"]]
    return options


def _spaces(run: Run, options: dict[str, Any]) -> dict[str, Any]:
    """The options of a format's reader, with addresses as ids."""
    out: dict[str, Any] = {}
    if "space" in options:
        out["space"] = _one_space(run, "--space", options["space"])
    if "sources" in options:
        pairs = [text.partition("=") for text in options["sources"]]
        if bad := next(
            (source for source, sign, space in pairs if not (source and sign and space)), None
        ):
            raise click.UsageError(
                f"--source {bad}: write SOURCE=SPACE, for example 20-gemmascope-res-16k=SPACE_ID."
            )
        out["sources"] = {
            source: _one_space(run, f"--source {source}", space) for source, _, space in pairs
        }
    return out


def _one_space(run: Run, option: str, name: str) -> str:
    spaces = run.spaces_of(name, None) or []
    if len(spaces) != 1:
        raise click.UsageError(
            f"{option}: '{name}' matches {len(spaces)} spaces: {', '.join(spaces)}. Give "
            "the id of one."
        )
    return spaces[0]


def _tables(run: Run, store: Store | None = None) -> RunTables:
    from toolkit_store.interchange import RunTables

    return RunTables(store or run.store, run.state, run.steps)
