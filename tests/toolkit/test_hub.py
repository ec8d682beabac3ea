"""The hub's cache and the hub: which commit a name means, what is there already, and what is said
when it cannot be had.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants, errors

from toolkit.errors import BadInput
from toolkit.files.hub import (
    HubFile,
    Snapshot,
    cached_files,
    fetch,
    fetch_file,
    offline,
    repository_files,
    snapshot,
)

COMMIT, OTHER = "0" * 39 + "1", "f" * 40


class Hub:
    """Stands in for the hub: answers with a commit, or with an error."""

    def __init__(self, answer: str | Exception) -> None:
        self.answer, self.asked = answer, []

    def repo_info(self, name: str, *, revision: str, files_metadata: bool = False) -> Any:
        self.asked.append((name, revision))
        if isinstance(self.answer, Exception):
            raise self.answer
        sizes = {
            "config.json": 2,
            "model.safetensors": 88,
            "original/params.json": None,
            "README.md": 5,
        }
        siblings = (
            [SimpleNamespace(rfilename=path, size=size) for path, size in sizes.items()]
            if files_metadata
            else None
        )
        return SimpleNamespace(sha=self.answer, siblings=siblings)


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
    result = Hub(OTHER)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: result)
    return result


@pytest.mark.parametrize(
    ("value", "is_offline"), [("1", True), ("true", True), ("ON", True), ("0", False), ("", False)]
)
def test_offline_is_what_the_hub_client_takes_for_it(
    monkeypatch: pytest.MonkeyPatch, value: str, is_offline: bool
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert offline() is is_offline


@pytest.mark.parametrize("revision", ["main", COMMIT])
def test_what_is_cached_is_found_by_branch_and_by_commit(cache: Path, revision: str) -> None:
    assert snapshot("org/model", revision, "config.json") == Snapshot(
        "org/model", COMMIT, cache / "snapshots" / COMMIT
    )


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
        f"'{name}' at revision '{revision}' is not in the Hugging Face cache ({cache.parent}), "
        "and HF_HUB_OFFLINE disables downloads. Unset HF_HUB_OFFLINE, name a cached revision, "
        "or a folder with `path:`."
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
        "'org/model' at revision 'dev': it cannot be downloaded (ConnectionError: no route). "
        "For a gated repository accept its terms, then run `hf auth login` or set HF_TOKEN; "
        "without a network name a folder with `path:`."
    )


def test_fetch_asks_for_the_files_that_match(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
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
    with pytest.raises(BadInput, match=r"cannot be downloaded \(PermissionError: no details\)"):
        fetch(Snapshot("org/model", COMMIT, None), ["*"])


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_either_variable_forbids_the_network(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert not offline()
    monkeypatch.setenv(name, "1")
    assert offline()


# --- single files ---------------------------------------------------------------------------------


def test_the_hub_says_which_files_match_and_how_large_they_are(hub: Hub) -> None:
    result = repository_files(Snapshot("org/model", COMMIT, None), ("*.json", "model*.safetensors"))
    assert result == [
        HubFile("config.json", 2),
        HubFile("model.safetensors", 88),
        HubFile("original/params.json", 0),
    ]
    assert hub.asked == [("org/model", COMMIT)]


def test_files_of_a_hub_that_does_not_answer(hub: Hub) -> None:
    hub.answer = ConnectionError("no route")
    with pytest.raises(BadInput, match=r"cannot be downloaded \(ConnectionError: no route\)"):
        repository_files(Snapshot("org/model", COMMIT, None), ("*",))


def test_the_cache_says_which_files_it_has(cache: Path) -> None:
    (cache / "snapshots" / COMMIT / "original").mkdir()
    (cache / "snapshots" / COMMIT / "original" / "params.json").write_text("{}")
    (cache / "snapshots" / COMMIT / "README.md").write_text("A model.")
    result = cached_files(Snapshot("org/model", COMMIT, None), ("*.json",))
    assert result == {
        name: cache / "snapshots" / COMMIT / name
        for name in ("config.json", "original/params.json")
    }
    assert cached_files(Snapshot("org/model", OTHER, None), ("*.json",)) == {}


@pytest.mark.parametrize("again", [False, True])
def test_a_file_is_fetched_and_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, again: bool
) -> None:
    """Two bars, as for transfers that are put together from parts; nothing is drawn."""
    asked: dict[str, Any] = {}

    def download(name: str, path: str, *, tqdm_class: Any, **options: Any) -> str:
        asked.update(name=name, path=path, **options)
        with (
            tqdm_class(desc="written", total=100, initial=40, unit="B") as written,
            tqdm_class(total=100) as received,
        ):
            received.update(70)
            written.update(60)
            written.set_postfix_str("1 MB/s", refresh=False)
        return str(tmp_path / "w.bin")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    reports: list[int] = []
    assert (
        fetch_file(Snapshot("org/model", COMMIT, None), "w.bin", reports.append, restart=again)
        == tmp_path / "w.bin"
    )
    assert asked == {
        "name": "org/model",
        "path": "w.bin",
        "revision": COMMIT,
        "force_download": again,
    }
    assert reports == [40, 0, 70, 100]


def _answer(kind: type[Exception], status: int) -> Exception:
    """An error as the hub's client raises it, without the answer that it holds."""
    error = kind.__new__(kind)
    error.args = (f"{status} Client Error. Access to org/model is restricted.",)
    return error


@pytest.mark.parametrize(
    "error",
    [
        _answer(errors.GatedRepoError, 403),
        _answer(errors.RepositoryNotFoundError, 404),
        errors.LocalTokenNotFoundError("no token"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_no_further_try_can_mend(
    monkeypatch: pytest.MonkeyPatch, hub: Hub, error: Exception
) -> None:
    """A gated repository, one that does not exist, a token that is missing: said the same way
    wherever it is met.
    """

    def refuse(*_: Any, **__: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    hub.answer = error
    expected = Snapshot("org/model", COMMIT, None)
    for way in (
        lambda: fetch_file(expected, "w.bin", lambda _: None),
        lambda: fetch(expected, ("*",)),
        lambda: repository_files(expected, ("*",)),
        lambda: snapshot("org/model", "main", "*"),
    ):
        with pytest.raises(BadInput) as caught:
            way()
        assert f"it cannot be downloaded ({type(error).__name__}: " in str(caught.value)
        assert "then run `hf auth login` or set HF_TOKEN" in str(caught.value)


def test_what_may_pass_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise ConnectionError("reset")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(ConnectionError, match="reset"):
        fetch_file(Snapshot("org/model", COMMIT, None), "w.bin", lambda _: None)


def test_a_run_says_that_files_are_missing_before_it_starts(toolkit, tmp_path: Path) -> None:
    spec = Path(__file__).parents[2] / "specs" / "exp1_sae_l1_31.yaml"
    done = toolkit.run("run", spec, HF_HUB_OFFLINE="1", HF_HUB_CACHE=str(tmp_path / "hub"))
    assert done.returncode == 2
    assert "stage 'exp0_llama/play': 'meta-llama/Llama-3.1-8B' at revision" in done.stderr
    assert "is not in the Hugging Face cache" in done.stderr
    assert list((toolkit.store / "runs").iterdir()) == []
