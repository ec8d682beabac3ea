"""The sink `wandb`: a run for Weights & Biases. Offline, which is the default, its files are
written for `wandb sync`; online, it is sent.
"""

from __future__ import annotations

import importlib.util
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from toolkit.errors import DataError
from toolkit.secrets import Secrets
from toolkit.work import SinkWork

from .contents import (
    FINDING_COLUMNS,
    TrackerParams,
    config_of,
    finding_rows,
    measures_of,
    notes_of,
    tracked_tables,
)

if TYPE_CHECKING:
    from toolkit.work import ReportContents

QUIET = {"WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"}
"""No crash reports, and nothing on the terminal; read when wandb is imported."""
SERVER = "https://api.wandb.ai"
STATE = ".syncstate"
"""The suffix of the file in which wandb records what it has sent."""
LOGINS = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")


class Wandb(TrackerParams):
    """Which project the run goes to, and whether it is sent."""

    project: str = Field("sae-toolkit", min_length=1, description="The project.")
    entity: str | None = Field(
        None, min_length=1, description="The user or team; without it, the default of the login."
    )
    mode: Literal["offline", "online"] = Field(
        "offline",
        description="offline: write files for `wandb sync`; online: send the run with the login "
        "of `wandb login` or WANDB_API_KEY.",
    )
    group: str | None = Field(None, min_length=1, description="The group of the run.")
    tags: tuple[str, ...] = Field((), description="Tags of the run.")


def check(params: Wandb) -> str | None:
    """What is missing to write it."""
    if importlib.util.find_spec("wandb") is None:
        return "wandb is not installed. Install it: pip install 'sae-toolkit[wandb]'."
    if params.mode == "online" and not _has_login():
        return (
            "mode: online needs a login, and there is none. Run `wandb login`, set WANDB_API_KEY, "
            "or leave `mode` out."
        )
    return None


def _has_login() -> bool:
    from requests.utils import get_netrc_auth

    server = os.environ.get("WANDB_BASE_URL") or SERVER
    return any(map(os.environ.get, LOGINS)) or get_netrc_auth(server) is not None


def write_wandb(work: SinkWork) -> Iterator[tuple[str, bytes]]:
    """The files of the offline run under `wandb/`, and `wandb.json`, which says where the run is.
    A repeated run replaces them.
    """
    params = work.params
    with tempfile.TemporaryDirectory(prefix="toolkit-wandb-") as scratch:
        try:
            _log(work, Path(scratch))
        except DataError:
            raise
        except Exception as error:
            raise DataError(_failure(error)) from None
        if params.mode == "offline":
            yield from _offline_files(work, Path(scratch) / "wandb")
    where = {"project": params.project, "entity": params.entity, "mode": params.mode}
    yield "wandb.json", (json.dumps({"run": work.run, **where}, indent=1) + "\n").encode()


def _failure(error: Exception) -> str:
    """The sentence for what wandb raised, without the key of the login."""
    key = os.environ.get("WANDB_API_KEY")
    text = Secrets({"WANDB_API_KEY": key} if key else {}).hide(str(error)).strip()
    reason = text.splitlines()[0].rstrip(".") if text else type(error).__name__
    return (
        f"Weights & Biases did not take the run: {reason}. Every step is safe: log in (`wandb "
        "login`) or set `mode: offline`, then continue with the same command."
    )


def _log(work: SinkWork, folder: Path) -> None:
    """Log the run as one step of history, and end it."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    import wandb

    if wandb.run is not None:
        raise DataError("a run of wandb is active in this process. End it: wandb.finish().")
    contents = work.report()
    run = wandb.init(
        project=work.params.project,
        entity=work.params.entity,
        id=work.run,
        name=str(work.record.get("name") or work.run),
        group=work.params.group,
        tags=list(work.params.tags),
        notes=notes_of(work, contents.findings),
        config=config_of(work),
        dir=str(folder),
        mode=work.params.mode,
        resume="allow" if work.params.mode == "online" else None,
        settings=_settings(wandb),
    )
    exit_code = 1
    try:
        run.log(_logged(wandb, work, contents))
        run.summary.update(measures_of(work))
        exit_code = 0
    finally:
        run.finish(exit_code=exit_code)
        wandb.teardown()  # waits for the files; `finish` returns before they are written


def _settings(wandb: Any) -> Any:
    """Nothing of this machine is passed on: no host, program, console, code, git or statistics."""
    return wandb.Settings(
        console="off",
        disable_code=True,
        disable_git=True,
        email="-",
        host="-",
        program="toolkit",
        save_code=False,
        silent=True,
        username="-",
        x_disable_machine_info=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )


def _logged(wandb: Any, work: SinkWork, contents: ReportContents) -> dict[str, Any]:
    """Findings, tables and charts, each under its name."""
    findings = wandb.Table(columns=list(FINDING_COLUMNS), data=finding_rows(contents.findings))
    tables = {
        f"tables/{tracked.name}": wandb.Table(
            columns=list(tracked.columns), data=list(tracked.rows), allow_mixed_types=True
        )
        for tracked in tracked_tables(work)
    }
    charts = {
        f"figures/{name.removesuffix('.svg')}": wandb.Html(content.decode(), inject=False)
        for name, content in contents.files.items()
        if name.endswith(".svg")
    }
    return {"findings": findings, **tables, **charts}


def _offline_files(work: SinkWork, folder: Path) -> Iterator[tuple[str, bytes]]:
    """The files of the offline run; its folder is named after the newest result, so that the same
    results are written to the same place.
    """
    (source,) = folder.glob(f"offline-run-*-{work.run}")
    stamp = work.committed_at[:19].replace("-", "").replace(":", "").replace("T", "_")
    target = f"wandb/offline-run-{stamp}-{work.run}"
    for path in sorted(source.rglob("*")):
        inner = path.relative_to(source)
        if path.is_file() and inner.parts[0] not in ("logs", "tmp") and path.suffix != STATE:
            yield f"{target}/{inner.as_posix()}", path.read_bytes()
