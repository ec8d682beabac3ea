"""The source `hf_dataset` reads the rows that the library `datasets` reads, in each layout of a
repository.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import polars as pl
import pytest

from tests.plugins.toolkit_samples.conftest import tables_of
from toolkit_samples._hub_dataset import HfDataset

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("default")]
NUMBERED = (
    "data/train-00000-of-00002.parquet",
    "data/train-00001-of-00002.parquet",
    "data/test-00000-of-00001.parquet",
    "data/my_split-00000-of-00001.parquet",
)
CARD = """---
configs:
- config_name: first
  data_files:
  - {split: train, path: "a/*.parquet"}
  - {split: test, path: ["b/one.parquet", "b/t*.parquet"]}
- config_name: second
  data_dir: b
  default: true
- config_name: deep
  data_files: "**/deep.parquet"
---
"""
LAYOUTS = {
    "numbered": (NUMBERED, "", [(None, "train"), (None, "test"), (None, "my_split")]),
    "folders": (
        ("train/b.parquet", "train/a.parquet", "x/my-dev-2/x.parquet", "test.parquet"),
        "",
        [(None, "train"), (None, "validation")],
    ),
    "file names": (
        ("train.parquet", "games-eval.parquet", "trainer.parquet", "a/b.valid.1.parquet"),
        "",
        [(None, "train"), (None, "test"), (None, "validation")],
    ),
    "plain": (("b.parquet", "a.parquet", "sub/latest.parquet"), "", [(None, "train")]),
    "card": (
        ("a/y.parquet", "a/x.parquet", "b/one.parquet", "b/two.parquet", "c/d/deep.parquet"),
        CARD,
        [
            ("first", "train"),
            ("first", "test"),
            ("second", "train"),
            (None, "train"),
            ("deep", "train"),
        ],
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_reads_what_datasets_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    if importlib.util.find_spec("datasets") is None:
        pytest.skip("datasets is not installed")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    import datasets

    names, card, asked = LAYOUTS[layout]
    folder = tmp_path / "repository"
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        texts = [f"{name} {row}".replace("/", " ") for row in range(3)]
        pl.DataFrame({"text": texts, "label": [0, 1, 2]}).write_parquet(folder / name)
    (folder / "README.md").write_text(card)
    for config, split in asked:
        theirs = datasets.load_dataset(
            str(folder), config, split=split, cache_dir=str(tmp_path / "cache")
        )
        params = HfDataset.model_validate({"path": str(folder), "config": config, "split": split})
        ours = [row["text"] for row in tables_of("hf_dataset", params)["samples"]]
        assert ours == list(theirs["text"]), (config, split)
