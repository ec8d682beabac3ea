"""What cog writes into the reference: the command line, the installed parts and the tables, each at
a fixed width.
"""

from __future__ import annotations

import textwrap
import types
import typing
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import click

    from toolkit.parts import Part

WIDTH = 100
BUILT_IN = "sae-toolkit"


def cli() -> str:
    """`toolkit --help` and the help of each command."""
    import click

    from toolkit._cli import cli as group

    with click.Context(
        group, info_name="toolkit", terminal_width=WIDTH, max_content_width=WIDTH
    ) as top:
        pages = [("toolkit", group.get_help(top))]
        for name in group.list_commands(top):
            command = group.get_command(top, name)
            if command is not None:
                pages += _pages(command, name, top)
    return (
        "\n\n".join(f"## `{title}`\n\n```text\n{text.rstrip()}\n```" for title, text in pages)
        + "\n"
    )


def _pages(command: click.Command, name: str, above: click.Context) -> Iterator[tuple[str, str]]:
    """A command's page, and those of the commands below it."""
    import click

    yield f"{above.command_path} {name}", _help(command, name, above)
    if isinstance(command, click.Group):
        with click.Context(
            command, info_name=name, parent=above, terminal_width=WIDTH, max_content_width=WIDTH
        ) as context:
            for below in command.list_commands(context):
                yield from _pages(command.commands[below], below, context)


def _help(command: click.Command, name: str, top: click.Context) -> str:
    import click

    with click.Context(
        command, info_name=name, parent=top, terminal_width=WIDTH, max_content_width=WIDTH
    ) as context:
        return command.get_help(context)


def parts() -> str:
    """Each built-in part with its params, by kind."""
    from toolkit._plugins.loading import load_parts
    from toolkit._plugins.part_checks import KINDS

    installed = load_parts()
    blocks: list[str] = []
    for kind in KINDS:
        ours = [
            part for part in installed.of(kind) if installed.owner(part).distribution == BUILT_IN
        ]
        if ours:
            blocks.append(f"## {kind}")
        blocks += [_part(part, installed.owner(part).name) for part in ours]
    return "\n\n".join(blocks) + "\n"


def _part(part: Part, plugin: str) -> str:
    facts = [f"plugin `{plugin}`", f"version {part.version}"]
    for side, said in (
        ("reads", "reads"),
        ("optional", "and where they are there"),
        ("writes", "writes"),
    ):
        names = getattr(part, side, ())
        facts += [f"{said} {', '.join(f'`{name}`' for name in names)}"] if names else []
    rows = list(_params(part))
    table = (
        ["", "| param | type | default | meaning |", "|---|---|---|---|", *rows]
        if rows
        else ["", "No params."]
    )
    return "\n".join([f"### `{part.name}`", "", _wrap(f"{part.help} ({', '.join(facts)})"), *table])


def _wrap(prose: str) -> str:
    return textwrap.fill(prose, WIDTH, break_long_words=False, break_on_hyphens=False)


def _params(part: Part) -> Iterator[str]:
    for name, field in part.params.model_fields.items():
        shown = field.alias or name
        default = (
            "required"
            if field.is_required()
            else f"`{field.get_default(call_default_factory=True)!r}`"
        )
        yield (
            f"| `{shown}` | `{_type(field.annotation)}` | {_cell(default)} | "
            f"{_cell(field.description or '')} |"
        )


def _type(annotation: Any) -> str:
    return _cell(_name(annotation))


def _name(annotation: Any) -> str:
    """A type as a reader would write it: without the module, and without what validates it."""
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _name(inside[0])
    if origin in (typing.Union, types.UnionType):
        return " | ".join(map(_name, inside))
    if origin is typing.Literal:
        return " | ".join(map(repr, inside))
    if annotation is type(None):
        return "None"
    if origin is not None:
        names = ["..." if part is ... else _name(part) for part in inside]
        return f"{origin.__name__}[{', '.join(names)}]"
    return (
        annotation.__name__
        if isinstance(annotation, type)
        else str(annotation).replace("typing.", "")
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def tables() -> str:
    """Each table with its columns, from toolkit.tables."""
    from toolkit.tables import TABLES

    blocks = []
    for table in TABLES.values():
        kept = "ledger" if table.ledger else "derived" if table.derived else "data"
        lines = [
            f"## `{table.name}`",
            "",
            _wrap(f"{table.help[:1].upper()}{table.help[1:]}. ({kept}, version {table.version})"),
            "",
        ]
        lines += ["| column | type | meaning |", "|---|---|---|"]
        for column, kind in table.columns.items():
            notes = [
                word
                for word, holds in (
                    ("key", column in table.key),
                    ("may be null", kind.endswith("?")),
                )
                if holds
            ]
            lines.append(f"| `{column}` | `{kind.rstrip('?')}` | {', '.join(notes)} |")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"
