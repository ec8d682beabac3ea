"""Options that mean the same on check, plan and run."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolkit.errors import BadInput

if TYPE_CHECKING:
    from toolkit._plan.plan import Plan
    from toolkit._plugins.loading import Parts

_FILE = click.Path(path_type=Path)


@dataclass(frozen=True)
class Asked:
    """What the command line asked for, the spec or run apart."""

    sets: tuple[str, ...]
    overlays: tuple[Path, ...]
    plugins: tuple[Path, ...]
    on: str
    gpu: str | None
    store: str | None
    as_json: bool


def spec_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the shared options; the command gets them as one `asked`."""

    def wrapped(target: str, **values: Any) -> Any:
        names = ("sets", "overlays", "plugins", "on", "gpu", "store", "as_json")
        return function(target, Asked(**{name: values.pop(name) for name in names}), **values)

    wrapped.__name__, wrapped.__doc__ = function.__name__, function.__doc__
    wrapped.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
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
        "--overlay", "overlays", multiple=True, type=_FILE, help="A YAML file laid over the spec."
    ),
    click.option(
        "--plugin",
        "plugins",
        multiple=True,
        type=_FILE,
        help="A scratch plugin file; its hash is recorded.",
    ),
    click.option(
        "--on", default="local", show_default=True, help="The executor that starts workers."
    ),
    click.option("--gpu", metavar="5 | 2,5 | none", help="Physical GPU indices, one worker each."),
    click.option(
        "--store", metavar="FOLDER|URI", help="Default: TOOLKIT_STORE, else ./toolkit-runs."
    ),
    click.option("--json", "as_json", is_flag=True, help="Machine-readable output on stdout."),
)


def again(target: str, asked: Asked) -> str:
    """The command line that runs what was asked for: every option that decides what is computed,
    where and by whom.
    """
    words = ["toolkit", "run", target]
    for option, values in (
        ("--set", asked.sets),
        ("--overlay", asked.overlays),
        ("--plugin", asked.plugins),
    ):
        words += [word for value in values for word in (option, str(value))]
    words += [] if asked.on == "local" else ["--on", asked.on]
    words += [
        word
        for option, value in (("--gpu", asked.gpu), ("--store", asked.store))
        if value
        for word in (option, value)
    ]
    return shlex.join(words)


def load_plan(target: str, asked: Asked) -> tuple[Plan, Parts, Asked]:
    """The plan of a spec file, or of a run in the store: then with the overlays, sets and plugins
    recorded there.
    """
    from toolkit._plan.plan import make_plan
    from toolkit._plan.resolve import resolve
    from toolkit._plugins.loading import load_parts
    from toolkit._spec.spec import load_spec, load_spec_data

    recorded = _recorded(target, asked)
    if recorded is not None:
        _check_runnable(target, recorded)
        loaded = load_spec_data(
            recorded["spec"], Path(recorded["spec_path"]), asked.overlays, asked.sets
        )
        asked = _with_record(asked, recorded)
    else:
        _check_either(target, asked)
        loaded = load_spec(Path(target), asked.overlays, asked.sets)
    parts = load_parts(asked.plugins)
    return make_plan(resolve(loaded, parts, asked.overlays, asked.sets), parts), parts, asked


def _recorded(target: str, asked: Asked) -> dict[str, Any] | None:
    """The manifest when `target` names a run and no file: what looks like a path is never taken for
    a run.
    """
    from toolkit._run.manifest import read_manifest
    from toolkit._run.run_folder import run_folder, store_folder

    folder = store_folder(asked.store)
    if not _may_be_run(target) or not (folder / "runs").is_dir():
        return None
    if not run_folder(folder, target).is_dir():
        return read_manifest(run_folder(folder, _find(folder, target)))
    return read_manifest(run_folder(folder, target))


_RECORDED = (
    ("run", str),
    ("spec", dict),
    ("spec_path", str),
    ("overlays", list),
    ("sets", list),
    ("plugins", dict),
)
"""What a manifest must have to be run again."""


def _check_runnable(target: str, recorded: dict[str, Any]) -> None:
    """Refuse a run that was imported without its spec, or whose manifest is not one."""
    for name, kind in _RECORDED:
        if not isinstance(recorded.get(name), kind):
            raise BadInput(
                f"Run {target} cannot be run again: its manifest has no '{name}'. A run that was "
                "imported from another program's files has results and no spec; look at them with "
                "toolkit query."
            )


def _may_be_run(target: str) -> bool:
    return not (Path(target).exists() or "/" in target or target.endswith((".yaml", ".yml")))


def _find(folder: Path, target: str) -> str:
    from toolkit._run.run_folder import find_run

    try:
        return find_run(folder, target)
    except BadInput as error:
        raise BadInput(f"{error} Nor is there a file '{Path(target).absolute()}'.") from None


def _check_either(target: str, asked: Asked) -> None:
    """What is no file may have been meant for a run, and there is none: say both."""
    from toolkit._run.run_folder import store_folder
    from toolkit._spec.yaml import missing

    if _may_be_run(target):
        raise BadInput(
            f"{missing(Path(target))} Nor is it a run: the store {store_folder(asked.store)} holds "
            "none. Another store: --store PATH or TOOLKIT_STORE."
        )


def _with_record(asked: Asked, recorded: dict[str, Any]) -> Asked:
    """Overlays and sets are merged into the recorded spec already; only an upstream spec still
    needs them. Recorded scratch plugins are not loaded: they must be named again.
    """
    from dataclasses import replace

    from toolkit._plugins.recorded import check_recorded

    check_recorded(recorded["run"], recorded["plugins"], asked.plugins)
    return replace(
        asked,
        overlays=(*(Path(path) for path in recorded["overlays"]), *asked.overlays),
        sets=(*recorded["sets"], *asked.sets),
    )
