"""What stands behind a spec's parts: an error of a part says where in the spec its value stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit._plan.make_plan import make_plan
from toolkit._plan.resolve import resolve
from toolkit._plugins.loading import load_parts
from toolkit._spec.load import load_spec
from toolkit.errors import DataError, SpecError

SPEC = """version: 1
name: a
model:
  uses: huggingface
  with:
    path: package:toolkit_lab/files/model
saes:
  uses: llama_scope
  with:
    path: package:toolkit_lab/files/saes/Lab-LXR-4x
    layers: all
samples:
  uses: csv
  with:
    path: {csv}
    text: sentence
stages:
  - id: features
    uses: extract.activations
"""
CSV = Path(__file__).parents[2] / "specs" / "data" / "lab_trait.csv"


def refusal(tmp_path: Path, old: str, new: str) -> str:
    path = tmp_path / "a.yaml"
    text = SPEC.format(csv=CSV)
    assert old in text
    path.write_text(text.replace(old, new))
    parts = load_parts(())
    with pytest.raises((SpecError, DataError)) as caught:
        make_plan(resolve(load_spec(path), parts), parts)
    return str(caught.value).removeprefix(str(path))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("files/model", "files/modle", ":6: model.with.path: package:toolkit_lab/files/modle: "),
        ("Lab-LXR-4x", "Lab-LXR-9x", ":10: saes.with.path: package:toolkit_lab/files/saes/Lab-LX"),
        ("layers: all", "layers: 9", ":11: saes.with.layers: Lab-LXR-4x has no SAE for layer 9; "),
        ("layers: all", "layers: 3-x", ":11: saes.with.layers: '3-x' is not understood."),
        (str(CSV), "gone.csv", ":15: samples.with.path: "),
        ("text: sentence", "text: sentense", ":16: samples.with.text: "),
    ],
)
def test_an_error_of_a_part_names_file_line_and_field(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert refusal(tmp_path, old, new).startswith(message)


def test_saes_of_one_stage_that_do_not_fit_are_named_where_they_stand(tmp_path: Path) -> None:
    other = "    saes: {uses: llama_scope, with: {path: package:toolkit_lab/files/gemma_scope}}\n"
    text = refusal(tmp_path, "uses: extract.activations\n", f"uses: extract.activations\n{other}")
    assert text.startswith(":20: stages.0.saes.with.path: ")
