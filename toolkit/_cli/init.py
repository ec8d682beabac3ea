"""`toolkit init`: start an experiment from a spec that comes with the toolkit."""

from __future__ import annotations

import json
from pathlib import Path

import click

from toolkit.errors import BadInput
from toolkit.terminal import echo


@click.command("init")
@click.argument("name", required=False)
@click.option(
    "--from", "source", default="two_groups", show_default=True, help="The shipped spec to copy."
)
@click.option("--list", "listed", is_flag=True, help="List the shipped specs.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="The folder in which NAME is created. Default: the current one.",
)
@click.option("--json", "as_json", is_flag=True, help="Write JSON for programs.")
def command(name: str | None, source: str, listed: bool, out: Path, as_json: bool) -> None:
    """Start an experiment: write the folder NAME with a spec, its data and a README.

    It runs as it is, offline, on a CPU.
    """
    from toolkit._cli.schema import schema_text
    from toolkit._plugins.loading import load_parts
    from toolkit._spec.shipped import begin, run_command

    if listed:
        _list(as_json)
        return
    if name is None:
        raise BadInput("Name the experiment: toolkit init NAME. `toolkit init --list` lists specs.")
    folder = begin(name, source, out)
    (folder / "spec.schema.json").write_text(schema_text(load_parts(())), encoding="utf-8")
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    next_command = f"cd {folder} && {run_command(name, source)}"
    if as_json:
        echo(json.dumps({"folder": str(folder), "files": files, "next": next_command}))
        return
    echo(f"Wrote {folder}: {', '.join(files)}. Next:")
    echo(f"  {next_command}")


def _list(as_json: bool) -> None:
    from toolkit._cli._text import columns
    from toolkit._spec.shipped import shipped_specs

    specs = shipped_specs()
    if as_json:
        echo(json.dumps([{"name": spec.name, "summary": spec.summary} for spec in specs]))
        return
    echo(columns(("SPEC", "WHAT IT DOES"), [(spec.name, spec.summary) for spec in specs]))
    echo("\nStart your own from one of them: toolkit init NAME --from SPEC")
