"""Options that check, plan and run share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from toolkit._run.options import RunOptions
from toolkit._spec.defaults import DEFAULT_EXECUTOR

_FILE = click.Path(path_type=Path)


def spec_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of `RunOptions` and `--json`; the command gets `options` and `as_json`."""

    @functools.wraps(function)
    def wrapped(target: str, **values: Any) -> Any:
        options = RunOptions(**{field.name: values.pop(field.name) for field in fields(RunOptions)})
        return function(target, options, **values)

    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped


_OPTIONS = (
    click.option(
        "--set",
        "sets",
        multiple=True,
        metavar="KEY=VALUE",
        help="Change one value; stages by id, sinks by name.",
    ),
    click.option(
        "--overlay",
        "overlays",
        multiple=True,
        type=_FILE,
        help="A YAML file with changes to the spec.",
    ),
    click.option(
        "--plugin",
        "plugins",
        multiple=True,
        type=_FILE,
        help="Also load a scratch plugin from this file; its hash is recorded.",
    ),
    click.option(
        "--on",
        default=DEFAULT_EXECUTOR,
        show_default=True,
        help="The executor that starts workers: an installed one, or an entry of the spec's "
        "`executors`.",
    ),
    click.option(
        "--gpu",
        metavar="5 | 2,5 | all | none",
        help="GPUs by physical index or UUID, one worker each.",
    ),
    click.option(
        "--store", metavar="FOLDER|URI", help="Default: TOOLKIT_STORE, else ./toolkit-runs."
    ),
    click.option("--json", "as_json", is_flag=True, help="Machine-readable output on stdout."),
)
