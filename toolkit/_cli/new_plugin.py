"""`toolkit new-plugin`: write an installable plugin package that passes its contract test."""

from __future__ import annotations

from pathlib import Path

import click

from toolkit.terminal import echo


@click.command("new-plugin")
@click.argument("name")
@click.option(
    "--kind",
    required=True,
    metavar="KIND",
    help="The kind of its part: model, sae, source, extract, compare, sink, ...",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path(),
    help="The folder in which it is created. Default: the current one.",
)
def command(name: str, kind: str, out: Path) -> None:
    """Write the plugin package toolkit-NAME. It installs and passes its contract test as it is.

    Kinds: model, sae, source, environment, parser, extract, compare, patch, play, trace, words,
    sink, executor, report.
    """
    from toolkit._plugins.scaffold import write_plugin

    folder = write_plugin(name, kind, out)
    echo(f"Wrote {folder}. Next:")
    echo(f"  cd {folder}")
    echo("  pip install --no-deps --no-build-isolation -e .")
    echo("  python -m pytest")
    echo("  toolkit plugins")
