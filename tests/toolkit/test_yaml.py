"""Specs' YAML: what is read, with which lines, and the whole text of every refusal."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit._spec.yaml import MAX_NODES, expand, load_yaml, parse_value, placed, plain
from toolkit.errors import SpecError

RESOURCES = Path(__file__).parents[1] / "resources"

REFUSED = {
    "duplicate_key.yaml": ":5: The key 'uses' occurs a second time; the first is at line 4. "
    "Keep one of them.",
    "python_tag.yaml": ":2: Tags (`!!python/object/apply:os.system`) are not used in specs; remove "
    "it, or quote the text.",
    "own_tag.yaml": ":1: Tags (`!secret`) are not used in specs; remove it, or quote the text.",
    "anchor.yaml": ":2: Anchors and aliases (`&m`) are not used in specs; write it out, or use "
    "--overlay.",
    "alias.yaml": ":2: Anchors and aliases (`*m`) are not used in specs; write it out, or use "
    "--overlay.",
    "merge_key.yaml": ":3: Merge keys (`<<`) are not used in specs; write the keys out, or use "
    "--overlay.",
    "two_documents.yaml": ":2: A second document begins here; one file holds one document (remove "
    "`---`).",
    "list_on_top.yaml": ":2: The top level must be a map (`name: ...`); this file holds a list.",
    "empty.yaml": ":1: The top level must be a map (`name: ...`); this file holds nothing.",
    "number_key.yaml": ":3: The key 5 is not text; write it in quotes: '5'.",
    "list_key.yaml": ":3: A key must be text, not a list or a map; did you mean to quote a "
    "value that has braces?",
    "not_a_number.yaml": ":2: .nan is not a finite number; give a number, or null for none.",
    "infinite.yaml": ":2: 1e999 is not a finite number; give a number, or null for none.",
    "long_number.yaml": ":2: The number 18446744073709551616 needs more than 64 bits; quote it if "
    "it is text.",
    "open_bracket.yaml": ":3:5: Not valid YAML: expected ',' or ']', but got ':'. "
    "Check quotes, brackets and indentation just before it.",
    "tab.yaml": ":3:1: Not valid YAML: found character '\\t' that cannot start any token. "
    "Check quotes, brackets and indentation just before it.",
    "escaped_nul.yaml": ":1: The text holds the character U+0000, which is not allowed.",
    "bad_escape.yaml": ":2: Not valid YAML: ",
    "latin1.yaml": ":2: Byte 17 is not UTF-8; save the file as UTF-8.",
    "nul.yaml": ":2: The character U+0000 is not allowed; remove it.",
}


def refusal(path: Path) -> str:
    with pytest.raises(SpecError) as caught:
        load_yaml(path)
    return str(caught.value)


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "spec.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_say_file_line_and_what_to_do(name: str) -> None:
    path = RESOURCES / name
    text = refusal(path)
    assert text.startswith(f"{path}{REFUSED[name]}")
    assert "\n" not in text


@pytest.mark.parametrize("depth", [51, 200, 5000])
@pytest.mark.parametrize("shape", ["[", "{a: ", "- "])
def test_deep_nesting_is_refused(tmp_path: Path, depth: int, shape: str) -> None:
    path = written(tmp_path, "name: a\ndeep:\n  " + shape * depth)
    assert refusal(path) == f"{path}:3: This is nested deeper than 50 levels."


def test_fifty_levels_are_read(tmp_path: Path) -> None:
    load_yaml(written(tmp_path, "a: " + "[" * 49 + "]" * 49))


def test_a_large_file_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "name: " + "x" * 1024 * 1024)
    assert (
        refusal(path) == f"{path}:1: The file is larger than 1 MiB; a spec holds settings; put "
        "data into separate files."
    )


def test_many_values_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_NODES == 20_000
    monkeypatch.setattr("toolkit._spec.yaml.MAX_NODES", 1000)
    path = written(tmp_path, "a:\n" + "- 1\n" * 1000)
    assert refusal(path).startswith(f"{path}:999: More than 1,000 values. ")


def test_a_long_list_is_refused_before_all_of_it_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, "a: [" + "1," * 400_000 + "1]")
    read = []

    class Counting(yaml.SafeLoader):
        def get_event(self) -> object:
            read.append(1)
            return super().get_event()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yaml, "SafeLoader", Counting)
        assert "More than 20,000 values." in refusal(path)
    assert len(read) < 20_100


def test_a_missing_file_names_the_path_tried_and_near_names(tmp_path: Path) -> None:
    (tmp_path / "exp1.yaml").write_text("a: 1")
    assert (
        refusal(tmp_path / "exp.yaml")
        == f"There is no file '{tmp_path}/exp.yaml'. Did you mean 'exp1.yaml'?"
    )
    assert refusal(tmp_path / "zzz") == f"There is no file '{tmp_path}/zzz'. It has: exp1.yaml."
    gone = tmp_path / "gone" / "a.yaml"
    assert refusal(gone) == f"There is no file '{gone}': the folder '{gone.parent}' does not exist."


def test_a_missing_relative_file_is_named_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        refusal(Path("a.yaml"))
        == f"There is no file '{tmp_path}/a.yaml'. That folder has no YAML files."
    )


def test_a_folder_is_refused(tmp_path: Path) -> None:
    written(tmp_path, "a: 1")
    assert (
        refusal(tmp_path) == f"'{tmp_path}' is a folder; name a YAML file in it. It has: spec.yaml."
    )


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert (
        refusal(tmp_path / "pipe")
        == f"'{tmp_path}/pipe' is not a regular file; write the YAML to a file first."
    )


def test_an_unreadable_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "a: 1")

    def closed(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", closed)
    assert refusal(path) == f"'{path}' cannot be read: Permission denied."
    assert "cannot be read" in refusal(Path("a\0b"))
    assert "cannot be read" in refusal(tmp_path / ("x" * 5000))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("~", None),
        ("", None),
        ("null", None),
        ("true", True),
        ("False", False),
        ("0", 0),
        ("-7", -7),
        ("0x1F", 31),
        ("1e-4", 1e-4),
        (".5", 0.5),
        ("-1.25E+2", -125.0),
        ("2.", 2.0),
        *(
            (word, word)
            for word in (
                "yes",
                "no",
                "on",
                "Off",
                "y",
                "010",
                "0o17",
                "1:30",
                "1_000",
                "2020-01-01",
                "=",
                "nan",
                "-",
            )
        ),
        ("2001-12-14t21:59:43.10-05:00", "2001-12-14t21:59:43.10-05:00"),
        ("'5'", "5"),
        ('"null"', "null"),
        ("[1, two, {a: b}]", [1, "two", {"a": "b"}]),
    ],
)
def test_scalars_follow_yaml_1_2_without_octal(text: str, value: Any) -> None:
    result = plain(parse_value(text, "--set a")) if text != "-" else "-"
    assert result == value
    assert type(result) is type(value)


def test_a_quoted_merge_key_and_words_as_keys_are_text(tmp_path: Path) -> None:
    assert load_yaml(written(tmp_path, "'<<': 1\non: 2\n2020-01-01: 3\n")).data == {
        "<<": 1,
        "on": 2,
        "2020-01-01": 3,
    }


def test_lines_are_those_of_keys_and_items_or_the_nearest_parent(tmp_path: Path) -> None:
    result = load_yaml(
        written(
            tmp_path,
            "\ufeffname: a\n"
            "stages:\n"
            "  - id: x\n"
            "    with:\n"
            "      alpha: 1\n"
            "  - {id: y,\n"
            "     uses: z}\n",
        )
    )
    assert [
        result.line(at) for at in [(), ("name",), ("stages",), ("stages", 0), ("stages", 0, "with")]
    ] == [1, 1, 2, 3, 4]
    assert result.line(("stages", 0, "with", "alpha")) == 5
    assert result.line(("stages", 0, "with", "gamma", 3)) == 4
    assert result.line(("stages", 1, "uses")) == 7
    assert result.line(("stages", 9)) == 2


def test_environment_values_are_filled_in_on_demand_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOOLKIT_TEST_A", "${env:TOOLKIT_TEST_B}")
    result = load_yaml(written(tmp_path, "a: ['x/${env:TOOLKIT_TEST_A}/y', $HOME, '${other}']\n"))
    assert result.data == {"a": ["x/${env:TOOLKIT_TEST_A}/y", "$HOME", "${other}"]}
    assert expand(result.root) == {"a": ["x/${env:TOOLKIT_TEST_B}/y", "$HOME", "${other}"]}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "${env:TOOLKIT_TEST_NONE_SUCH}",
            "The environment variable TOOLKIT_TEST_NONE_SUCH is not set.",
        ),
        ("${env:A-B}", "'${env:A-B}' is not an environment reference; write ${env:NAME}."),
        ("${env:AB", "'${env:AB' is not an environment reference; write ${env:NAME}."),
    ],
)
def test_environment_refusals(tmp_path: Path, text: str, problem: str) -> None:
    path = written(tmp_path, f"a:\n  b: '{text}'\n")
    with pytest.raises(SpecError) as caught:
        expand(load_yaml(path).root)
    assert str(caught.value).startswith(f"{path}:2: {problem}")


def test_set_values_are_refused_with_their_own_text() -> None:
    for text, problem in [
        ("[1,", "Not valid YAML: "),
        ("&a 1", "Anchors"),
        ("a\0", "The character U+0000"),
        (".inf", ".inf is not"),
    ]:
        with pytest.raises(SpecError) as caught:
            parse_value(text, "--set a=")
        assert str(caught.value).startswith(f"--set a=: {problem}")


class _Quoting(yaml.SafeDumper):
    """Quotes all text, so that PyYAML's older rules for plain words play no part."""


_Quoting.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
)

TEXT = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff\ufeff"),
    max_size=8,
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
PLAIN = st.dictionaries(
    TEXT,
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
        max_leaves=12,
    ),
)
QUICK = settings(max_examples=100, deadline=None, database=None)


def _printable(data: Any) -> bool:
    if isinstance(data, dict):
        return all(_printable(item) for pair in data.items() for item in pair)
    if isinstance(data, list):
        return all(map(_printable, data))
    return not isinstance(data, str) or all(
        ord(char) & 0xFFFE != 0xFFFE or ord(char) > 0xFFFF for char in data
    )


@pytest.mark.slow
@QUICK
@given(PLAIN.filter(_printable), st.booleans())
def test_dumped_data_loads_back_equal(
    tmp_path_factory: pytest.TempPathFactory, data: dict[str, Any], flow: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "dumped.yaml"
    path.write_text(
        yaml.dump(data, Dumper=_Quoting, default_flow_style=flow, allow_unicode=True),
        encoding="utf-8",
    )
    result = load_yaml(path)
    assert result.data == data
    assert repr(plain(placed(data, "x"))) == repr(data)


@QUICK
@given(
    st.binary(max_size=60)
    | st.text("[]{}:,-?!&*#|>@`%'\"\\ \n\tab<1.U~", max_size=40).map(str.encode)
)
def test_any_bytes_load_or_are_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.yaml"
    path.write_bytes(data)
    try:
        refused, result = "", load_yaml(path).data
    except SpecError as error:
        refused, result = str(error), {}
    assert not refused or refused.startswith(f"{path}:")
    assert all(math.isfinite(value) for value in result.values() if isinstance(value, float))
