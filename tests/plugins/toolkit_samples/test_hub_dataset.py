"""Datasets of the hub: which files are a split, in every layout that `datasets` reads, and what is
said where there is none. The hub is a stand-in; its files are real Parquet.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import polars as pl
import pytest
from huggingface_hub import errors
from pydantic import ValidationError

from tests.plugins.toolkit_samples.conftest import PARTS, Words, meta_of, tables_of
from toolkit.errors import BadInput, DataError
from toolkit.testing.contracts import check_part
from toolkit.testing.fakes import make_work
from toolkit_samples._dataset_files import configurations_of, files_of
from toolkit_samples._hub_dataset import HfDataset, identify

COMMIT = "0123456789abcdef" * 2 + "01234567"
NAME = "org/games"
CARD = """---
license: mit
configs:
- config_name: plain
  data_files:
  - split: train
    path: data/train-*
  - split: test
    path: [data/test-*]
- config_name: short
  data_files: "short/**/*.parquet"
---
# Games
"""
FILES = {
    "data/train-00000-of-00002.parquet": ["a b", "c d"],
    "data/train-00001-of-00002.parquet": ["e f"],
    "data/test-00000-of-00001.parquet": ["g h"],
    "short/x/y.parquet": ["s"],
}


def parquet(path: Path, texts: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"text": text, "label": i % 2, "length": len(text)} for i, text in enumerate(texts)]
    pl.DataFrame(rows).write_parquet(path)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    for name, texts in FILES.items():
        parquet(folder / name, texts)
    (folder / "README.md").write_text(CARD)
    return folder


class Hub:
    """A hub with one dataset, whose files are those of a folder."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder, self.cache, self.fetched = folder, cache, list[str]()
        self.answer: Exception | None = None

    def repo_info(self, name: str, *, revision: str, repo_type: str, **_: Any) -> Any:
        if self.answer is not None:
            raise self.answer
        assert (name, revision, repo_type) == (NAME, COMMIT, "dataset")
        siblings = [
            SimpleNamespace(
                rfilename=str(path.relative_to(self.folder)),
                size=path.stat().st_size,
                lfs=SimpleNamespace(sha256=hashlib.sha256(path.read_bytes()).hexdigest())
                if path.suffix == ".parquet"
                else None,
            )
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        ]
        return SimpleNamespace(sha=COMMIT, siblings=siblings)

    def snapshot(self, name: str, *, revision: str, allow_patterns: list[str], **_: Any) -> str:
        target = self.cache / "datasets--org--games" / "snapshots" / revision
        for pattern in allow_patterns:
            self.fetched.append(pattern)
            (target / pattern).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.folder / pattern, target / pattern)
        return str(target)


@pytest.fixture
def hub(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub(repository, tmp_path / "cache")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot)
    return hub


def given(**more: Any) -> HfDataset:
    return HfDataset.model_validate(
        {"dataset": NAME, "revision": COMMIT, "config": "plain", **more}
    )


def texts(params: HfDataset, limit: int | None = None) -> list[str]:
    return [row["text"] for row in tables_of("hf_dataset", params, limit)["samples"]]


def test_it_keeps_the_contract(repository: Path) -> None:
    params = {"path": str(repository), "config": "plain"}
    check_part(PARTS["hf_dataset"], params=params, work=make_work(model=Words()))


def test_rows_of_a_split_are_samples(hub: Hub) -> None:
    tables = tables_of("hf_dataset", given())
    assert [row["text"] for row in tables["samples"]] == ["a b", "c d", "e f"]
    assert [row["sample"] for row in tables["samples"]] == ["000000", "000001", "000002"]
    assert meta_of(tables)["000001", "label"] == 1.0
    assert texts(given(split="test")) == ["g h"]
    assert texts(given(config="short")) == ["s"]
    assert texts(given(), limit=2) == ["a b", "c d"]


def test_only_files_that_are_needed_are_fetched_once(hub: Hub) -> None:
    assert texts(given(first=2)) == ["a b", "c d"]
    assert hub.fetched == ["README.md", "data/train-00000-of-00002.parquet"]
    assert texts(given(first=1)) == ["a b"]
    assert len(hub.fetched) == 2


def test_identity_is_the_commit_and_the_hash_of_the_files(hub: Hub, repository: Path) -> None:
    train, test = identify(given(), Path()), identify(given(split="test"), Path())
    assert (train.name, train.revision) == (NAME, COMMIT)
    assert train.facts["rows"] == 3
    assert train.facts["labels"]["label"] == ["0", "1"]
    assert train.digest != test.digest
    folder = HfDataset.model_validate({"path": str(repository), "config": "plain"})
    assert identify(folder, Path()).digest == train.digest
    parquet(repository / "data" / "train-00001-of-00002.parquet", ["changed"])
    assert identify(folder, Path()).digest != train.digest


def test_what_is_cached_is_read_offline(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    online = identify(given(), Path())
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.answer = AssertionError("the hub was asked")
    fetched = len(hub.fetched)
    assert identify(given(), Path()) == online
    assert len(hub.fetched) == fetched
    with pytest.raises(BadInput, match=f"'{NAME}' at revision '{COMMIT}' is not in the Hugging"):
        identify(given(split="test"), Path())


def test_what_was_never_listed_is_not_guessed_offline(
    hub: Hub, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.snapshot(NAME, revision=COMMIT, allow_patterns=["data/train-00000-of-00002.parquet"])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(BadInput, match="is not in the Hugging Face cache"):
        identify(given(), Path())


def test_a_changed_file_of_the_cache_is_refused(hub: Hub, tmp_path: Path) -> None:
    identify(given(), Path())
    (path,) = (tmp_path / "cache").rglob("train-00001-of-00002.parquet")
    parquet(path, ["other"])
    with pytest.raises(DataError, match="is not the one of this commit: its SHA-256 differs"):
        identify(given(), Path())


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (errors.GatedRepoError, "it is gated, and you have not been granted access"),
        (errors.RepositoryNotFoundError, "there is no repository of this name, or it is private"),
        (errors.RevisionNotFoundError, "the repository has no such revision"),
    ],
)
def test_what_the_hub_does_not_give(hub: Hub, answer: Any, message: str) -> None:
    hub.answer = answer("403", response=SimpleNamespace(headers={}, request=None))
    with pytest.raises(BadInput) as caught:
        identify(given(), Path())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"split": "tets"}, "split: there is no 'tets'. Did you mean 'test'? Splits: test, train."),
        ({"config": "plane"}, "config: there is no 'plane'. Did you mean 'plain'? Configurations:"),
        ({"config": None}, "config: choose one. Configurations: plain, short."),
        ({"text": "txt"}, "text: there is no column 'txt'. Did you mean 'text'? Columns: text, l"),
        ({"label": "length"}, "column 'length' holds '3' here"),
    ],
)
def test_what_is_not_there_is_one_sentence(hub: Hub, params: dict, message: str) -> None:
    with pytest.raises((BadInput, DataError)) as caught:
        identify(given(**params, label_range=(0, 1)), Path())
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"dataset": NAME, "revision": "main"}, "'main' is not a commit. Write its 40 hex digits"),
        ({"dataset": NAME}, "`dataset` and `revision` belong together"),
        ({}, "name either `dataset` with `revision`, or `path`"),
        ({"path": "x", "dataset": NAME, "revision": COMMIT}, "name either `dataset` with"),
    ],
)
def test_params_that_name_no_dataset(params: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        HfDataset.model_validate(params)


# --- layouts --------------------------------------------------------------------------------------


def test_the_layout_of_the_hubs_conversion() -> None:
    paths = [
        "plain_text/train/0001.parquet",
        "plain_text/train/0000.parquet",
        "b/test/0000.parquet",
    ]
    assert configurations_of(paths, "", "x").splits == {
        "plain_text": {"train": [paths[1], paths[0]]},
        "b": {"test": [paths[2]]},
    }


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("data/train-00000-of-00001.parquet", "train"),
        ("data/my_split-00000-of-00003-0a1b.parquet", "my_split"),
        ("dev/games.parquet", "validation"),
        ("games_test.parquet", "test"),
        ("latest.parquet", "train"),
        ("games.parquet", "train"),
    ],
)
def test_splits_by_names(path: str, split: str) -> None:
    configurations = configurations_of([path, "notes.txt"], "# no head\n", "x")
    assert configurations.splits == {"default": {split: [path]}}


@pytest.mark.parametrize(
    "data_files",
    [
        '"data/*.parquet"',
        "[data/a.parquet, data/b.parquet]",
        "{train: 'data/?.parquet'}",
        "[{split: train, path: [data/a.parquet, data/b.parquet]}]",
        "[{split: train, path: '**/[ab].parquet'}, {split: train, path: data/*}]",
    ],
)
def test_forms_of_data_files(data_files: str) -> None:
    card = f"---\nconfigs:\n- config_name: default\n  data_files: {data_files}\n---\n"
    paths = ["data/a.parquet", "data/b.parquet", "data/deep/c.parquet"]
    configs = configurations_of(paths, card, "x")
    assert files_of(configs, None, "train", "x") == paths[:2]


def test_data_dir_is_in_front_of_the_patterns() -> None:
    card = "---\nconfigs:\n- {config_name: a, data_dir: deep, data_files: '*.parquet'}\n---\n"
    assert configurations_of(["b.parquet", "deep/c.parquet"], card, "x").splits == {
        "a": {"train": ["deep/c.parquet"]}
    }


def test_a_card_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(BadInput, match=r"x: the head of its README.md cannot be read: "):
        configurations_of(["a.parquet"], "---\nconfigs: [\n---\n", "x")


def test_a_dataset_without_parquet_names_the_way_out() -> None:
    with pytest.raises(
        BadInput, match=r"x has no Parquet files\. Name the commit of the hub's own"
    ):
        configurations_of(["data.csv"], "", "x")
