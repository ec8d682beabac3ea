"""Runs pushed to the hub and pulled from it, with a stand-in for the hub that can fail half-way."""

from __future__ import annotations

import fnmatch
import hashlib
import inspect
import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import yaml
from huggingface_hub import errors

import toolkit as library
from tests.toolkit.conftest import TOY
from toolkit._cli import main
from toolkit._share.pull import pull
from toolkit._share.push import push
from toolkit.errors import BadInput, DataError
from toolkit_store import open_store

REPO = "me/run"


@dataclass
class Repository:
    """Branches and commits, each a mapping of paths to bytes."""

    private: bool
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        name = hashlib.sha1(f"{len(self.commits)}{sorted(files)}".encode()).hexdigest()
        self.commits[name] = files
        self.branches[branch] = name
        return name

    def at(self, revision: str) -> dict[str, bytes]:
        return self.commits[self.branches.get(revision, revision)]


class Hub:
    """Answers as HfApi and `snapshot_download` do. `fault` names what goes wrong in the next
    upload: cut (before the commit), lost (a file does not exist afterwards), changed (its bytes).
    """

    def __init__(self, cache: Path) -> None:
        self.cache, self.fault = cache, ""
        self.repositories: dict[str, Repository] = {}

    def create_repo(self, name: str, *, repo_type: str, private: bool, exist_ok: bool) -> None:
        assert (repo_type, exist_ok) == ("dataset", True)
        if name not in self.repositories:
            self.repositories[name] = Repository(private)
            self.repositories[name].commit("main", {".gitattributes": b""})

    def create_branch(self, name: str, *, repo_type: str, branch: str) -> None:
        repository = self.repositories[name]
        assert branch not in repository.branches
        repository.branches[branch] = repository.branches["main"]

    def list_repo_refs(self, name: str, *, repo_type: str) -> Any:
        names = self._repository(name).branches
        return SimpleNamespace(branches=[SimpleNamespace(name=entry) for entry in names])

    def repo_info(self, name: str, *, repo_type: str, revision: str = "main", **_: Any) -> Any:
        repository = self._repository(name)
        siblings = [
            SimpleNamespace(
                rfilename=path,
                size=len(data),
                lfs=SimpleNamespace(sha256=hashlib.sha256(data).hexdigest())
                if path.endswith(".parquet")
                else None,
            )
            for path, data in repository.at(revision).items()
        ]
        commit = repository.branches.get(revision, revision)
        return SimpleNamespace(sha=commit, private=repository.private, siblings=siblings)

    def hf_hub_download(self, name: str, path: str, *, repo_type: str, revision: str) -> str:
        return str(Path(self.snapshot(name, revision=revision, allow_patterns=[path])) / path)

    def upload_folder(
        self,
        *,
        repo_id: str,
        repo_type: str,
        folder_path: str,
        revision: str,
        commit_message: str,
        delete_patterns: list[str],
    ) -> Any:
        repository = self._repository(repo_id)
        kept = {
            path: data
            for path, data in repository.at(revision).items()
            if not any(fnmatch.fnmatch(path, pattern) for pattern in delete_patterns)
        }
        new = {path.name: path.read_bytes() for path in sorted(Path(folder_path).iterdir())}
        if self.fault == "cut":
            raise ConnectionError("the connection was lost")
        if self.fault == "lost":
            del new["features.parquet"]
        if self.fault == "changed":
            new["features.parquet"] = bytes(reversed(new["features.parquet"]))
        return SimpleNamespace(oid=repository.commit(revision, {**kept, **new}))

    def snapshot(self, name: str, *, revision: str, allow_patterns: list[str], **_: Any) -> str:
        """As in the hub's cache, files are links."""
        repo = self._repository(name)
        commit = repo.branches.get(revision, revision)
        repository = self.cache / f"datasets--{name.replace('/', '--')}"
        folder = repository / "snapshots" / commit
        for path, data in repo.at(revision).items():
            if path in allow_patterns:
                blob = repository / "blobs" / hashlib.sha256(data).hexdigest()
                for parent in (blob.parent, folder):
                    parent.mkdir(parents=True, exist_ok=True)
                blob.write_bytes(data)
                (folder / path).unlink(missing_ok=True)
                (folder / path).symlink_to(blob)
        return str(folder)

    def _repository(self, name: str) -> Repository:
        if name not in self.repositories:
            raise errors.RepositoryNotFoundError(
                "404", response=SimpleNamespace(headers={}, request=None)
            )
        return self.repositories[name]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one finished toy run; nobody changes it."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "toy.yaml").write_text(yaml.safe_dump({**TOY, "question": "Do they differ?"}))
    library.load(folder / "toy.yaml", store=folder / "store").run(quiet=True)
    return folder / "store"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub(tmp_path / "cache")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot)
    return hub


def run_of(store: Path) -> Any:
    return library.open(store).run().query


def test_the_stand_in_is_called_as_the_client_is() -> None:
    """Every argument that the stand-in takes is one of the real client's."""
    for name in ("create_repo", "create_branch", "list_repo_refs", "repo_info", "upload_folder"):
        ours = [*inspect.signature(getattr(Hub, name)).parameters][1:]
        theirs = [*inspect.signature(getattr(huggingface_hub.HfApi, name)).parameters]
        assert {our for our in ours if our not in ("name", "_")} <= {*theirs}, name
        assert "repo_id" in theirs, name


@pytest.mark.slow
def test_a_pulled_run_is_the_run_that_was_pushed(hub: Hub, shared: Path, tmp_path: Path) -> None:
    pushed = push(run_of(shared), REPO)
    repository = hub.repositories[REPO]
    assert (repository.private, pushed.commit) == (True, repository.branches["main"])
    assert {"README.md", "toolkit-run.json", "manifest.json", "features.parquet"} <= {
        *repository.at("main")
    }
    card = repository.at("main")["README.md"].decode()
    assert "Do they differ?" in card
    assert f"toolkit hub pull {REPO}" in card
    assert {"config_name": "features", "data_files": "features.parquet"} in yaml.safe_load(
        card.split("---")[1]
    )["configs"]
    pulled = library.pull(REPO, store=tmp_path / "other")
    assert pulled.id == pushed.run
    ours, theirs = open_store(shared), open_store(tmp_path / "other")
    keys = ours.run_states()[0].steps
    assert theirs.fingerprint(keys) == ours.fingerprint(keys)
    assert all(row.origin.startswith("parquet ") for row in theirs.steps())
    manifest = f"runs/{pushed.run}/manifest.json"
    assert json.loads((tmp_path / "other" / manifest).read_text())["run"] == pushed.run
    assert pull(theirs, REPO).run == pushed.run
    assert len(theirs.run_states()) == len(open_store(tmp_path / "other").run_states())


def test_what_was_computed_here_is_not_replaced(hub: Hub, shared: Path) -> None:
    push(run_of(shared), REPO)
    repository = hub.repositories[REPO]
    files = dict(repository.at("main"))
    index = json.loads(files["toolkit-run.json"])
    index["run"]["note"] = "changed"
    repository.commit("main", {**files, "toolkit-run.json": json.dumps(index).encode()})
    store = open_store(shared)
    before = [(row.key, row.committed_at, row.origin) for row in store.steps()]
    with pytest.raises(BadInput, match="already, and an import never changes a run"):
        pull(store, REPO)
    after = [(row.key, row.committed_at, row.origin) for row in open_store(shared).steps()]
    assert after == before
    assert {origin for _, _, origin in after} == {""}


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["lost", "changed"])
def test_a_half_upload_is_reported_by_push_and_refused_by_pull(
    hub: Hub, shared: Path, tmp_path: Path, fault: str
) -> None:
    hub.fault = fault
    with pytest.raises(
        DataError,
        match=r"features.parquet differs from what was sent \(1 of \d+ "
        r"files",
    ):
        push(run_of(shared), REPO)
    store = open_store(tmp_path / "other", create=True)
    message = (
        "is missing" if fault == "lost" else "has changed since it was written: its SHA-256 differs"
    )
    with pytest.raises(DataError) as caught:
        pull(store, REPO)
    text = str(caught.value)
    assert text.startswith(f"{REPO}@{hub.repositories[REPO].branches['main']}/features.parquet")
    assert message in text
    assert "and pull again" in text
    assert store.run_states() == []
    hub.fault = ""
    pushed = push(run_of(shared), REPO)
    assert pull(store, REPO).run == pushed.run


def test_an_upload_that_is_cut_off_leaves_no_run(hub: Hub, shared: Path, tmp_path: Path) -> None:
    hub.fault = "cut"
    with pytest.raises(BadInput, match="the connection was lost"):
        push(run_of(shared), REPO)
    assert "toolkit-run.json" not in hub.repositories[REPO].at("main")
    with pytest.raises(BadInput, match="is not a finished export"):
        pull(open_store(tmp_path / "other", create=True), REPO)


def test_only_files_of_an_export_are_taken(hub: Hub, shared: Path, tmp_path: Path) -> None:
    push(run_of(shared), REPO)
    repository = hub.repositories[REPO]
    repository.commit("main", {**repository.at("main"), "evil.py": b"x", "runs/x.parquet": b"y"})
    pull(open_store(tmp_path / "other", create=True), REPO)
    names = {path.name for path in (tmp_path / "cache").rglob("*")}
    assert not names & {"evil.py", "runs", "x.parquet"}


@pytest.mark.slow
def test_a_repository_with_another_run_is_refused(hub: Hub, shared: Path) -> None:
    push(run_of(shared), REPO)
    repository = hub.repositories[REPO]
    files = dict(repository.at("main"))
    index = json.loads(files["toolkit-run.json"])
    index["run"]["run"] = "other-1"
    repository.commit("main", {**files, "toolkit-run.json": json.dumps(index).encode()})
    with pytest.raises(BadInput, match="'me/run' at revision 'main' holds run other-1"):
        push(run_of(shared), REPO)
    pushed = push(run_of(shared), REPO, revision="second")
    assert repository.branches["second"] == pushed.commit
    assert json.loads(repository.at("main")["toolkit-run.json"])["run"]["run"] == "other-1"
    assert push(run_of(shared), REPO, revision="second").run == pushed.run


def test_a_public_repository_needs_to_be_named_so(hub: Hub, shared: Path) -> None:
    hub.create_repo(REPO, repo_type="dataset", private=False, exist_ok=True)
    with pytest.raises(BadInput, match="exists and is public"):
        push(run_of(shared), REPO)
    assert push(run_of(shared), REPO, public=True).commit


def test_a_dry_run_lists_files_and_asks_nobody(
    hub: Hub, shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(["hub", "push", "toy", REPO, "--dry-run", "--store", str(shared)])
    out = capsys.readouterr()
    assert left.value.code == 0
    assert "features.parquet" in out.out
    assert out.out.splitlines()[-1].endswith(
        "would be pushed to me/run@main (private); nothing was uploaded"
    )
    assert "name this machine" in out.err
    assert hub.repositories == {}


def test_push_and_pull_from_the_command_line(
    hub: Hub, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(shared).id
    for args in (
        ["push", "toy", REPO, "--store", str(shared)],
        ["pull", REPO, "--revision", "main", "--store", str(tmp_path / "other")],
    ):
        with pytest.raises(SystemExit) as left:
            main(["hub", *args])
        assert left.value.code == 0
    commit = hub.repositories[REPO].branches["main"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(f"is now at me/run@main (private), commit {commit}")
    assert lines[1] == f"run {run} from me/run, commit {commit}"


def test_a_repository_that_is_not_there(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no repository of this name, or it is private"):
        pull(open_store(tmp_path / "other", create=True), REPO)


@pytest.mark.parametrize("name", ["a/b/c", "../x", "a b", "-x/y"])
def test_a_name_that_no_repository_has(shared: Path, name: str) -> None:
    with pytest.raises(BadInput, match=r"cannot be a repository of the hub\. Write"):
        push(run_of(shared), name)


def test_offline_nothing_is_pushed_or_pulled(shared: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="Pushing a run needs the hub, and HF_HUB_OFFLINE disables"):
        push(run_of(shared), REPO)
    with pytest.raises(BadInput, match="HF_HUB_OFFLINE disables downloads"):
        pull(open_store(tmp_path / "other", create=True), REPO)
