"""`toolkit hub push`: export a run as Parquet and upload it in one commit, so that a repository has
either the whole run or none of it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit._share.card import card
from toolkit._share.repository import (
    CARD,
    INDEX,
    ask,
    check_name,
    check_online,
    different,
    files_at,
)
from toolkit.errors import BadInput, DataError

if TYPE_CHECKING:
    from toolkit._query.run import Run

MAIN = "main"


@dataclass(frozen=True)
class Pushed:
    """What was pushed, or would be; `commit` is empty for a dry run."""

    run: str
    repository: str
    revision: str
    private: bool
    files: Mapping[str, int]
    commit: str = ""


def push(
    run: Run,
    repository: str,
    *,
    revision: str | None = None,
    public: bool = False,
    dry_run: bool = False,
) -> Pushed:
    """Upload a run to a dataset repository, which is created if it does not exist. A dry run
    exports the run and contacts no server.
    """
    check_name(repository)
    if not dry_run:
        check_online("Pushing a run")
    branch = revision or MAIN
    with exported(run, repository) as files:
        sizes = {name: path.stat().st_size for name, path in files.items()}
        commit = "" if dry_run else _upload(run.id, files, repository, branch, public)
    return Pushed(run.id, repository, branch, not public, sizes, commit)


@contextmanager
def exported(run: Run, repository: str) -> Iterator[dict[str, Path]]:
    """The files of a run's export, with a card for the repository, by name."""
    from toolkit._plugins.loading import load_parts
    from toolkit._report.findings import findings_of
    from toolkit._run.inputs import StoreInputs
    from toolkit_store.interchange import RunTables, export_run

    with tempfile.TemporaryDirectory(prefix="toolkit-push-") as scratch:
        folder = Path(scratch) / "run"
        files = export_run(RunTables(run.store, run.state, run.steps), "parquet", folder)
        findings = findings_of(StoreInputs(run.store, {"": run.steps}), load_parts())
        (folder / CARD).write_text(card(run, files, findings, repository), encoding="utf-8")
        yield {path.name: path for path in (*files, folder / CARD)}


def _upload(run: str, files: Mapping[str, Path], repository: str, branch: str, public: bool) -> str:
    """The id of the commit that holds the files."""
    from huggingface_hub import HfApi

    api = HfApi()
    ask(repository, branch, lambda: _make_repository(api, repository, public))
    is_new = ask(repository, branch, lambda: _make_branch(api, repository, branch))
    if not is_new:
        ask(repository, branch, lambda: _check_same_run(api, repository, branch, run))
    commit = ask(repository, branch, lambda: _commit(api, run, files, repository, branch))
    _check_arrived(api, files, repository, commit)
    return commit


def _make_repository(api: Any, repository: str, public: bool) -> None:
    api.create_repo(repository, repo_type="dataset", private=not public, exist_ok=True)
    info = api.repo_info(repository, repo_type="dataset")
    if not public and not info.private:
        raise BadInput(
            f"'{repository}' exists and is public: everyone could read the run. Allow that with "
            "--public, name another repository, or make this one private on the hub."
        )


def _make_branch(api: Any, repository: str, branch: str) -> bool:
    """Whether the branch is new: it then starts with the files of main, which keeps them."""
    branches = api.list_repo_refs(repository, repo_type="dataset").branches
    if branch == MAIN or any(existing.name == branch for existing in branches):
        return False
    api.create_branch(repository, repo_type="dataset", branch=branch)
    return True


def _check_same_run(api: Any, repository: str, branch: str, run: str) -> None:
    """Refuse a repository that holds another run: nothing that was shared is overwritten."""
    if INDEX not in files_at(api, repository, branch):
        return
    path = api.hf_hub_download(repository, INDEX, repo_type="dataset", revision=branch)
    other = json.loads(Path(path).read_text(encoding="utf-8"))["run"]["run"]
    if other != run:
        raise BadInput(
            f"'{repository}' at revision '{branch}' holds run {other}. Name another repository, or "
            "another branch with --revision."
        )


def _commit(api: Any, run: str, files: Mapping[str, Path], repository: str, branch: str) -> str:
    """Upload all files in one commit, which also removes tables that the run no longer has."""
    (folder,) = {path.parent for path in files.values()}
    info = api.upload_folder(
        repo_id=repository,
        repo_type="dataset",
        folder_path=str(folder),
        revision=branch,
        commit_message=f"Run {run}",
        delete_patterns=["*.parquet"],
    )
    return str(info.oid)


def _check_arrived(api: Any, files: Mapping[str, Path], repository: str, commit: str) -> None:
    remote = ask(repository, commit, lambda: files_at(api, repository, commit))
    wrong = sorted(different(files, remote))
    if wrong:
        raise DataError(
            f"'{repository}' at commit {commit}: {wrong[0]} differs from what was sent "
            f"({len(wrong)} of {len(files)} files differ). Push the run again."
        )
