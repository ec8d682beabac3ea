"""`toolkit plugins`: what is installed and what each plugin offers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolkit._cli._text import plugin_files_option
from toolkit.terminal import echo

if TYPE_CHECKING:
    from toolkit._plugins.registry import Parts


@click.command("plugins")
@plugin_files_option
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
def command(files: tuple[Path, ...], as_json: bool) -> None:
    """List the installed plugins and their parts."""
    from toolkit._plugins.loading import load_parts

    listed = describe(load_parts(files))
    if as_json:
        echo(json.dumps(listed, indent=2))
        return
    for plugin in listed:
        echo(f"{plugin['name']}  ({plugin['origin']})")
        width = max((len(part["kind"]) + len(part["name"]) for part in plugin["parts"]), default=0)
        for part in plugin["parts"]:
            gap = " " * (width - len(part["kind"]) - len(part["name"]))
            echo(f"  {part['kind']} {part['name']}{gap}  {part['help']}")
        if not plugin["parts"]:
            echo("  (no parts)")


def describe(parts: Parts) -> list[dict[str, Any]]:
    """Plugins and their parts as plain data, sorted."""
    return [
        {
            "name": plugin.name,
            "distribution": plugin.distribution,
            "version": plugin.version,
            "file": str(plugin.file) if plugin.file else None,
            "sha256": plugin.sha256,
            "origin": plugin.origin,
            "parts": [
                {"kind": part.kind, "name": part.name, "version": part.version, "help": part.help}
                for part in sorted(plugin.parts, key=lambda part: (part.kind, part.name))
            ],
        }
        for plugin in parts.plugins
    ]
