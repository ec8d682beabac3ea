"""`toolkit report --figures`: charts that stand alone, and their data."""

from __future__ import annotations

import csv
import io
import re
import struct
import xml.etree.ElementTree as xml
from pathlib import Path

import pytest

from toolkit import figures as draw
from toolkit._report import images
from toolkit._report.figures import figure_files
from toolkit._report.sections import Section
from toolkit.errors import PluginError
from toolkit.work import Figure

EVIL = 'a <b> & "c"</svg><script>'
SVG = "{http://www.w3.org/2000/svg}"


def chart() -> str:
    marks = [draw.line(0, 0, 9, 9, "axis"), draw.text(5, 5, EVIL, kind="strong")]
    legend = [
        ("var(--computed)", EVIL),
        ("color-mix(in srgb,var(--faint) 40%,transparent)", "rest"),
    ]
    return draw.key(legend) + draw.svg(400, 200, marks)


def files_of(*shown: Figure) -> dict[str, str]:
    section = Section("volcano", "Volcanoes", "", shown)
    return {file.name: file.content.decode() for file in figure_files([section])}


def test_a_chart_stands_alone() -> None:
    files = files_of(Figure(f"Effect {EVIL}", chart(), f"Alt {EVIL}", [{"d": 1.5, "q": None}]))
    (name,) = (name for name in files if name.endswith(".svg"))
    assert re.fullmatch(r"01-volcano-effect-[a-z-]+\.svg", name)
    root = xml.fromstring(files[name])
    assert root.tag == f"{SVG}svg"
    assert (root.get("width"), root.get("height")) == ("400", "222")
    assert root.findtext(f"{SVG}title") == f"Effect {EVIL}"
    assert root.findtext(f"{SVG}desc") == f"Alt {EVIL}"
    assert [text.text for text in root.iter(f"{SVG}text")] == [EVIL, EVIL, "rest"]
    assert "var(" not in files[name]
    assert "color-mix" not in files[name]
    assert [dot.get("style") for dot in root.iter(f"{SVG}circle")] == [
        "fill:#0072b2",
        "fill:#bdc1c8",
    ]
    assert root.find(f"{SVG}script") is None


def test_its_data_and_every_table_are_csv() -> None:
    table = draw.table("Counts", ("name", "n"), [["a<br>b", "1"], [draw.escaped('x, "y"'), "2"]])
    rows = [{"name": 'x, "y"', "d": 0.25}, {"name": "z", "q": 1e-9}]
    files = files_of(Figure("One", chart(), "", rows), Figure("Two", table + table))
    assert list(files) == [
        "01-volcano-one.svg",
        "01-volcano-one.csv",
        "02-volcano-two-table-1.csv",
        "02-volcano-two-table-2.csv",
    ]
    data = list(csv.reader(io.StringIO(files["01-volcano-one.csv"])))
    assert data == [["name", "d", "q"], ['x, "y"', "0.25", ""], ["z", "", "1e-09"]]
    shown = list(csv.reader(io.StringIO(files["02-volcano-two-table-1.csv"])))
    assert shown == [["name", "n"], ["a b", "1"], ['x, "y"', "2"]]


def test_a_chart_keeps_the_styles_of_its_plugin() -> None:
    drawn = '<style>.played .x{fill:var(--bad)}</style><svg class="played" viewBox="0 0 9 9"></svg>'
    (text,) = files_of(Figure("Own", drawn)).values()
    root = xml.fromstring(text)
    assert root.get("class") == "played"
    assert ".played .x{fill:#b34700}" in str(root.findtext(f"{SVG}style"))


def test_two_figures_of_one_title_have_two_files() -> None:
    assert len(files_of(Figure("Same", chart()), Figure("Same", chart()))) == 2


@pytest.mark.slow
def test_the_command_writes_an_index(
    toolkit, toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = toolkit.run("run", toy())
    assert done.returncode == 0, done.stderr
    run = Path(done.stdout.splitlines()[-1]).parent.name
    folder = tmp_path / "figures"
    done = toolkit.run("report", run, "--figures", folder)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((folder / "index.csv").read_text().splitlines()))
    assert {row["file"] for row in rows} | {"index.csv"} == {path.name for path in folder.iterdir()}
    titles = ["Features that fire, by layer", "Features that fire, by SAE", "Largest means"]
    assert list(dict.fromkeys(row["title"] for row in rows)) == titles
    (tmp_path / "file").write_text("")
    empty = toolkit.run("report", run, "--figures", "")
    assert empty.returncode == 2
    assert "--figures is empty" in empty.stderr
    refused = toolkit.run("report", run, "--figures", tmp_path / "file" / "x")
    assert refused.returncode == 2
    assert "--figures" in refused.stderr
    shown = [Section("x", "X", "", [Figure("Drawn", chart())])]
    monkeypatch.setattr("toolkit._report.figures.sections_of", lambda *_: shown)
    for name, hidden in (("all", False), ("plain", True)):
        if hidden:
            monkeypatch.setattr(images, "find_spec", lambda name: None)
        expected = {".csv", ".svg", *(f".{ending}" for ending in images.converters())}
        done = toolkit.run("report", run, "--figures", tmp_path / name)
        assert {path.suffix for path in (tmp_path / name).iterdir()} == expected
        assert ("pip install 'sae-toolkit[figures]'" in done.stderr) == (len(expected) == 2)


def converted(figure: Figure) -> dict[str, bytes]:
    pytest.importorskip("vl_convert")
    files = figure_files([Section("volcano", "Volcanoes", "", [figure])], images.converters())
    return {file.name.rpartition(".")[2]: file.content for file in files}


def test_a_chart_is_png_at_twice_its_size_and_pdf_with_text() -> None:
    files = converted(Figure("Effect", chart()))
    assert list(files) == ["svg", "png", "pdf"]
    assert files["png"].startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", files["png"][16:24]) == (800, 444)
    assert files["pdf"].startswith(b"%PDF-")
    (letters,) = re.findall(rb"beginbfchar(.*)endbfchar", files["pdf"], re.DOTALL)
    codes = re.findall(rb"<[0-9A-F]{4}> <([0-9A-F]{4})>", letters)
    assert set(EVIL) <= {chr(int(code, 16)) for code in codes}


def test_a_chart_that_is_no_svg_is_an_error_that_names_it() -> None:
    with pytest.raises(PluginError, match="'Broken' cannot be written as PNG"):
        converted(Figure("Broken", '<svg viewBox="0 0 9 9"><b></svg>'))


@pytest.mark.parametrize("colour", ["#fff", "#5b6575"])
def test_a_faded_colour_is_a_colour(colour: str) -> None:
    from toolkit._report.figures import _faded

    assert re.fullmatch(r"#[0-9a-f]{6}", _faded(colour, 40))
