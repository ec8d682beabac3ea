"""`words.labels`: labels from files become rows of `features`; what does not fit is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from tests.plugins.toolkit_words.reply_tables import PARTS, SPACE, run
from tests.toolkit.conftest import TOY
from toolkit._plan.make_plan import make_plan
from toolkit._plan.resolve import resolve
from toolkit._plugins.loading import load_parts
from toolkit._spec.load import load_spec
from toolkit.errors import DataError, SpecError
from toolkit.features.neuronpedia import names
from toolkit.tables import arrow_schema
from toolkit.testing.contracts import check_part
from toolkit.testing.fakes import make_work
from toolkit_words.labels import summary

WIDE = {**SPACE, "width": 12}
MODEL, SOURCE = names(WIDE)


def label(index: int, text: str, **changes: Any) -> dict[str, Any]:
    row = {"id": f"{index}-{text}", "modelId": MODEL, "layer": SOURCE, "index": str(index)}
    return {**row, "description": text, "typeName": "human", **changes}


def written(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "v1" / MODEL / SOURCE / "explanations" / "batch-0.jsonl.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    return folder


def spaces(*rows: dict[str, Any]) -> dict[str, pa.Table]:
    return {"spaces": pa.Table.from_pylist(list(rows or [WIDE]), schema=arrow_schema("spaces"))}


def test_labels_become_rows_by_method_and_feature(tmp_path: Path) -> None:
    folder = written(
        tmp_path,
        label(3, "risk taking"),
        label(3, "dangers", typeName="auto", explanationModelName="m"),
        label(3, "a second one of a person"),
        label(5, ""),
        label(7, "of another model", modelId="other"),
    )
    rows = run("words.labels", spaces(), path=str(folder))["features"]
    assert [(row["feature"], row["group"], row["text"]) for row in rows] == [
        (3, "auto / m", "dangers"),
        (3, "human", "a second one of a person"),
        (3, "human #2", "risk taking"),
    ]
    assert {(row["space"], row["stat"]) for row in rows} == {("s1", "label")}


def test_without_a_folder_there_are_none_and_methods_say_so() -> None:
    assert run("words.labels", spaces())["features"] == []
    none = {"name": "feature labels", "labels": 0, "features": 0, "spaces": 0, "of_spaces": 1}
    assert summary([none]) == "No labels of features were imported."
    some = {**none, "labels": 1200, "features": 1100, "spaces": 1}
    assert summary([some]).startswith("1,200 labels of 1,100 features were imported, of 1 of 1")


def test_labels_of_other_saes_are_refused_with_both_names(tmp_path: Path) -> None:
    folder = written(tmp_path, label(3, "x", layer="3-res"))
    message = rf"has labels of {MODEL}/3-res; the spaces here are {MODEL}/{SOURCE}"
    with pytest.raises(DataError, match=message):
        run("words.labels", spaces(), path=str(folder))
    sources = {"3-res": WIDE["address"]}
    (row,) = run("words.labels", spaces(), path=str(folder), sources=sources)["features"]
    assert row["text"] == "x"
    with pytest.raises(DataError, match=r"there is no space 'm/resid_post\.4/x'\. Did you"):
        run("words.labels", spaces(), path=str(folder), sources={"3-res": "m/resid_post.4/x"})


def test_two_spaces_of_one_name_are_refused(tmp_path: Path) -> None:
    folder = written(tmp_path, label(3, "x"))
    twin = {**WIDE, "space": "s2", "revision": "2"}
    with pytest.raises(DataError, match=f"are both '{MODEL}/{SOURCE}'"):
        run("words.labels", spaces(WIDE, twin), path=str(folder))


def test_a_feature_beyond_the_width_is_refused(tmp_path: Path) -> None:
    folder = written(tmp_path, label(12, "x"))
    with pytest.raises(DataError, match=r"batch-0\.jsonl\.gz:1: feature 12 of .* is 12"):
        run("words.labels", spaces(), path=str(folder))


def test_the_key_has_what_the_files_hold_and_not_where_they_are(tmp_path: Path) -> None:
    labelled, same = (written(tmp_path / name, label(3, "risk")) for name in ("one", "same"))
    other = written(tmp_path / "other", label(3, "caution"))
    materials = [material(tmp_path, folder) for folder in (labelled, same, other)]
    assert materials[0] == materials[1]
    assert materials[0]["files"] != materials[2]["files"]
    assert material(tmp_path, None)["files"] is None


def test_a_folder_without_labels_is_refused_with_its_location(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SpecError, match=r"labels\.yaml:\d+: stages\.1\.with\.path: .* holds no"):
        material(tmp_path, tmp_path / "empty")
    with pytest.raises(SpecError, match=r"stages\.1\.with\.path: .* does not exist"):
        material(tmp_path, tmp_path / "missing")


def material(tmp_path: Path, folder: Path | None) -> dict[str, Any]:
    """What enters the key of a stage that reads this folder."""
    params = {} if folder is None else {"path": str(folder)}
    stage = {"id": "labels", "uses": "words.labels", "needs": ["features"], "with": params}
    spec = tmp_path / "labels.yaml"
    spec.write_text(yaml.safe_dump({**TOY, "stages": [TOY["stages"][0], stage]}))
    parts = load_parts([])
    return make_plan(resolve(load_spec(spec), parts), parts).stage("labels").material()


def test_contract(tmp_path: Path) -> None:
    folder = written(tmp_path, label(3, "risk"))
    params = {"path": str(folder)}
    check_part(PARTS["words.labels"], params=params, work=make_work(None, spaces()))
