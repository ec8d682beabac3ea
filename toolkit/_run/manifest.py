"""A run's manifest: everything needed to say what was done, and to repeat it with `toolkit run
RUN_ID`.

The spec is recorded as written, with `${env:NAME}` unexpanded: environment values, and so secrets,
never enter the record.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit._plan.keys import canonical, key_of
from toolkit._plan.versions import packages
from toolkit._run.atomic import write_text
from toolkit._run.events import now
from toolkit.errors import BadInput
from toolkit.version import VERSION

if TYPE_CHECKING:
    from toolkit._plan.plan import Plan, Stage
    from toolkit._plan.resolve import Loadable
    from toolkit._plugins.registry import Parts
    from toolkit._run.options import RunOptions

FORMAT = 1
_REGISTERED = ("sha256", "registered_at", "steps_before", "results_before", "families", "earlier")


def make_manifest(
    plan: Plan,
    parts: Parts,
    options: RunOptions,
    executors: Sequence[Mapping[str, Any]],
    command: str,
    registered: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The record of a plan about to run. `executors` says which workers it may start; `command`
    repeats it.
    """
    loaded = plan.loaded
    return {
        "format": FORMAT,
        "run": plan.run,
        "name": plan.name,
        "toolkit": VERSION,
        "created_at": now(),
        "spec": loaded.data,
        "spec_path": str(loaded.path),
        "spec_sha256": hashlib.sha256(canonical(loaded.data).encode()).hexdigest(),
        "overlays": [str(path.resolve()) for path in options.overlays],
        "sets": list(options.sets),
        "plugin_files": [str(path.resolve()) for path in options.plugins],
        "seed": loaded.spec.seed,
        "plugins": parts.versions(),
        "python": sys.version.split()[0],
        "packages": packages(),
        "platform": platform.platform(),
        "host": platform.node(),
        "executors": list(executors),
        "model": _identity(next((stage.model for stage in plan.stages if stage.model), None)),
        "saes": _identity(next((stage.saes for stage in plan.stages if stage.saes), None)),
        "stages": [_stage(stage) for stage in plan.stages],
        **(
            {"preregistration": {name: registered[name] for name in _REGISTERED}}
            if registered
            else {}
        ),
        "command": command,
    }


def _stage(stage: Stage) -> dict[str, Any]:
    return {
        "id": stage.id,
        "experiment": stage.experiment,
        "part": stage.part.name,
        "version": stage.part.version,
        "help": stage.part.help,
        "params": stage.recorded_params(),
        "needs": list(stage.needs),
        "on": stage.on,
        "writes": list(stage.writes()),
        "key": key_of(canonical(stage.material())),
        "model": _identity(stage.model),
        "saes": _identity(stage.saes),
    }


def _identity(loadable: Loadable[Any] | None) -> dict[str, Any] | None:
    if loadable is None:
        return None
    identity = loadable.identity
    return {
        "uses": loadable.part.name,
        "name": identity.name,
        "revision": identity.revision,
        "digest": identity.digest,
        "facts": dict(identity.facts),
    }


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write it to the run's folder."""
    write_text(folder / "manifest.json", json.dumps(manifest, indent=1, sort_keys=True) + "\n")


def read_manifest(folder: Path) -> dict[str, Any]:
    """A run's record."""
    path = folder / "manifest.json"
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(
            f"{path}: the run's manifest cannot be read ({error}). Run the spec again; committed "
            "steps are reused."
        ) from None
    if not isinstance(manifest, dict):
        raise BadInput(f"{path}: the run's manifest is not a JSON object. Run the spec again.")
    return manifest
