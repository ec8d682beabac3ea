"""The notebooks of the documentation run as they stand, and keep what they showed."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "notebooks"
EXECUTE: Any = runpy.run_path(str(FOLDER / "execute.py"))
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def shown(notebook: dict[str, Any]) -> list[str]:
    """The kinds of what each code cell left."""
    return [
        output["output_type"]
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
        for output in cell["outputs"]
    ]


@pytest.mark.slow
def test_the_notebook_without_a_file_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_STORE", str(tmp_path / "store"))
    notebook = EXECUTE["execute"](FOLDER / "experiment.ipynb")
    assert shown(notebook) == shown(json.loads((FOLDER / "experiment.ipynb").read_text("utf-8")))


def test_there_are_two_with_outputs_and_no_paths_of_a_machine() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["experiment", "results"]
    for path in NOTEBOOKS:
        text = path.read_text(encoding="utf-8")
        notebook = json.loads(text)
        assert notebook["nbformat"] == 4
        assert "execute_result" in shown(notebook)
        assert "/tmp" not in text
        assert " object at 0x" not in text


def test_a_cell_that_fails_fails() -> None:
    with pytest.raises(ZeroDivisionError):
        EXECUTE["outputs"]("1 / 0", {}, "cell", 1)


def test_a_cell_shows_what_it_prints_and_its_last_value() -> None:
    printed, value = EXECUTE["outputs"]("x = 2\nprint('a')\nx + 1", {}, "cell", 1)
    assert printed["text"] == ["a\n"]
    assert value["data"]["text/plain"] == ["3"]
    assert EXECUTE["outputs"]("x = 2", {}, "cell", 1) == []
