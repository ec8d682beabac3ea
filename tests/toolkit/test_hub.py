"""The hub's cache and the hub: which commit a name means, what is there already, and what is said when it cannot be had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants

from toolkit.errors import BadInput
from toolkit.hub import Snapshot, fetch, offline, snapshot

COMMIT, OTHER = "0" * 39 + "1", "f" * 40


class Hub:
    """Stands in for the hub: answers with a commit, or with an error."""

    def __init__(self, answer: str | Exception) -> None:
        self.answer, self.asked = answer, []

    def repo_info(self, name: str, *, revision: str) -> Any:
        self.asked.append((name, revision))
        if isinstance(self.answer, Exception):
            raise self.answer
        return type("Info", (), {"sha": self.answer})


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with org/model: branch main at COMMIT, which has config.json, and nothing else."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--org--model"
    (repository / "snapshots" / COMMIT).mkdir(parents=True)
    (repository / "snapshots" / COMMIT / "config.json").write_text("{}")
    (repository / "refs" / "pr").mkdir(parents=True)
    (repository / "refs" / "main").write_text(f"{COMMIT}\n")
    (repository / "refs" / "empty").touch()
    return repository


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A hub that can be reached, whose branches are all at OTHER."""
    monkeypatch.delenv("HF_HUB_OFFLINE")
    found = Hub(OTHER)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: found)
    return found


@pytest.mark.parametrize(("value", "is_offline"), [("1", True), ("true", True), ("ON", True), ("0", False), ("", False)])
def test_offline_is_what_the_hub_client_takes_for_it(monkeypatch: pytest.MonkeyPatch, value: str, is_offline: bool) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert offline() is is_offline


@pytest.mark.parametrize("revision", ["main", COMMIT])
def test_what_is_cached_is_found_by_branch_and_by_commit(cache: Path, revision: str) -> None:
    assert snapshot("org/model", revision, "config.json") == Snapshot("org/model", COMMIT, cache / "snapshots" / COMMIT)


def test_what_is_cached_asks_nobody(cache: Path, hub: Hub) -> None:
    assert snapshot("org/model", "main", "*.json").folder == cache / "snapshots" / COMMIT
    assert hub.asked == []


@pytest.mark.parametrize(
    ("name", "revision", "marker"),
    [
        ("org/model", "main", "*.safetensors"),
        ("org/model", OTHER, "config.json"),
        ("org/model", "dev", "config.json"),
        ("org/model", "pr", "config.json"),
        ("org/model", "empty", "*"),
        ("org/other", "main", "config.json"),
    ],
)
def test_what_is_not_cached_offline(cache: Path, name: str, revision: str, marker: str) -> None:
    with pytest.raises(BadInput) as caught:
        snapshot(name, revision, marker)
    assert str(caught.value) == (
        f"'{name}' at revision '{revision}' is not in the Hugging Face cache ({cache.parent}), and HF_HUB_OFFLINE forbids fetching "
        "it. Unset HF_HUB_OFFLINE, or name a folder with `path:`."
    )


def test_a_branch_that_is_not_cached_is_resolved_to_its_commit(cache: Path, hub: Hub) -> None:
    assert snapshot("org/model", "dev", "config.json") == Snapshot("org/model", OTHER, None)
    assert hub.asked == [("org/model", "dev")]


def test_a_commit_needs_no_resolving(cache: Path, hub: Hub) -> None:
    assert snapshot("org/model", OTHER, "config.json") == Snapshot("org/model", OTHER, None)
    assert hub.asked == []


def test_a_hub_that_does_not_answer(cache: Path, hub: Hub) -> None:
    hub.answer = ConnectionError("no route\nto host")
    with pytest.raises(BadInput) as caught:
        snapshot("org/model", "dev", "config.json")
    assert str(caught.value) == (
        "'org/model' at revision 'dev': the hub does not give it (ConnectionError: no route). For a gated repository accept its "
        "terms, then run `hf auth login` or set HF_TOKEN; without a network name a folder with `path:`."
    )


def test_fetch_asks_for_the_files_that_match(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: dict[str, Any] = {}

    def download(name: str, **options: Any) -> str:
        asked.update(name=name, **options)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert fetch(Snapshot("org/model", COMMIT, None), ("*.json",)) == tmp_path
    assert asked == {"name": "org/model", "revision": COMMIT, "allow_patterns": ["*.json"]}


def test_a_fetch_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: Any, **__: Any) -> str:
        raise PermissionError

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(BadInput, match=r"does not give it \(PermissionError: no more is said\)"):
        fetch(Snapshot("org/model", COMMIT, None), ["*"])
