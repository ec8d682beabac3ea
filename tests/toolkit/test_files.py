"""Files that a spec names: where they are found, what they are hashed to, and whether they are
whole.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel
from safetensors.numpy import save_file

from toolkit.errors import BadInput
from toolkit.files.local import (
    WHOLE_BYTES,
    PathText,
    content_digest,
    file_digest,
    listed,
    locate,
    read_json,
    safetensors_header,
)


class Placed(BaseModel):
    path: PathText


def message(call: Any, *args: Any) -> str:
    with pytest.raises(BadInput) as caught:
        call(*args)
    return str(caught.value)


# --- places ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "placed"),
    [
        ("models/llama", "{spec}/models/llama"),
        ("../llama", "{parent}/llama"),
        ("/data/llama", "/data/llama"),
        ("package:toolkit_lab/files/model", "package:toolkit_lab/files/model"),
        ("~/llama", "{home}/llama"),
    ],
)
def test_a_path_is_relative_to_its_spec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, placed: str
) -> None:
    spec, home = tmp_path / "specs", tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    result = Placed.model_validate({"path": path}, context={"folder": str(spec)}).path
    assert result == placed.format(spec=spec, parent=tmp_path, home=home)


def test_without_a_spec_a_path_stays_as_it_is() -> None:
    assert Placed(path="models/llama").path == "models/llama"


def test_a_package_is_found_where_it_is_installed() -> None:
    result = locate("package:toolkit_lab/files/model")
    assert (result / "config.json").is_file()
    assert locate(str(result)) == result
    assert locate("package:toolkit_lab") == result.parents[1]


@pytest.mark.parametrize(
    "package", ["toolkit_laboratory", "", "../toolkit_lab", "json.decoder", "sys"]
)
def test_a_package_that_is_not_installed(package: str) -> None:
    text = f"package:{package}/files" if not package.startswith("..") else f"package:{package}"
    shown = message(locate, text)
    assert shown.startswith(f"{text}: there is no installed package '")
    assert shown.endswith("Install it, or name a folder instead.")


def test_a_path_that_is_not_there_says_what_is(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / "models" / name).mkdir(parents=True)
    expected = tmp_path / "models" / "llama" / "weights"
    shown = f"{expected}: {expected} does not exist. {tmp_path / 'models'} holds: a, b."
    assert message(locate, str(expected)) == shown
    for number in range(9):
        (tmp_path / "models" / f"c{number}").mkdir()
    assert message(locate, str(expected)).endswith(
        " holds: a, b, c0, c1, c2, c3, c4, c5 and 3 more."
    )
    empty = tmp_path / "models" / "a"
    assert message(locate, str(empty / "x")).endswith(f"{empty} holds: nothing.")


def test_a_folder_that_a_package_does_not_have() -> None:
    shown = message(locate, "package:toolkit_lab/file")
    assert shown.startswith("package:toolkit_lab/file: ")
    assert "files" in shown.rpartition("holds:")[2]


# --- digests --------------------------------------------------------------------------------------


def test_a_digest_depends_on_names_and_contents_alone(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one")
    (tmp_path / "b").write_text("two")
    shutil.copytree(tmp_path, tmp_path / "copy")
    files = {name: tmp_path / name for name in "ab"}
    result = content_digest(files)
    assert content_digest({name: tmp_path / "copy" / name for name in "ba"}) == result
    assert content_digest({"a": tmp_path / "b", "b": tmp_path / "a"}) != result
    assert content_digest({"a": tmp_path / "a"}) != result
    assert content_digest({"a": tmp_path / "a", "c": tmp_path / "b"}) != result
    (tmp_path / "b").write_text("twO")
    assert content_digest(files) != result


def test_the_digest_of_a_small_file_is_its_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    assert (
        file_digest(tmp_path / "a")
        == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )


def test_the_digest_of_a_large_file_looks_at_size_start_and_end(tmp_path: Path) -> None:
    """Sparse files: nothing is written but what differs."""
    file, result = tmp_path / "large", set()
    for size, at in (
        (WHOLE_BYTES + 1, None),
        (WHOLE_BYTES + 2, None),
        (WHOLE_BYTES + 1, 0),
        (WHOLE_BYTES + 1, WHOLE_BYTES),
    ):
        with file.open("wb") as stream:
            stream.truncate(size)
            if at is not None:
                stream.seek(at)
                stream.write(b"x")
        result.add(file_digest(file))
    assert len(result) == 4
    assert all(digest.startswith("sampled-") for digest in result)


# --- safetensors ----------------------------------------------------------------------------------


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A whole file with two tensors."""
    file = tmp_path / "model.safetensors"
    save_file(
        {"a": np.ones((2, 3), np.float32), "b": np.zeros(5, np.float16)},
        file,
        metadata={"format": "pt"},
    )
    return file


def test_the_header_names_dtypes_and_shapes(weights: Path) -> None:
    header = safetensors_header(weights)
    assert {name: (facts["dtype"], facts["shape"]) for name, facts in header.items()} == {
        "a": ("F32", [2, 3]),
        "b": ("F16", [5]),
    }


@pytest.mark.parametrize(("change", "how"), [(-1, "cut off"), (-30, "cut off"), (1, "too long")])
def test_a_file_of_another_length_than_promised(weights: Path, change: int, how: str) -> None:
    size = weights.stat().st_size
    with weights.open("r+b") as stream:
        stream.truncate(size + change)
    shown = (
        f"{weights} is {how}: its header promises {size:,} bytes, it has {size + change:,}. Copy "
        "or download it again."
    )
    assert message(safetensors_header, weights) == shown


def headed(text: bytes) -> bytes:
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 4,
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n",
        headed(b"[1]"),
        headed(b"\xff\xfe"),
        headed(json.dumps({"a": 1}).encode()),
        headed(json.dumps({"a": {"dtype": "F32"}}).encode()),
        headed(json.dumps({"a": {"data_offsets": [0]}}).encode()),
        headed(json.dumps({"a": {"data_offsets": [0, None]}}).encode()),
        (1 << 60).to_bytes(8, "little") + b"{}",
    ],
)
def test_a_file_that_is_no_safetensors_file(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(content)
    shown = (
        f"{file} is not a safetensors file: it has no readable header. Copy or download it again."
    )
    assert message(safetensors_header, file) == shown


def tensor(first: int, last: int, shape: Any = (2,), dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [first, last]}


@pytest.mark.parametrize(
    ("header", "shown"),
    [
        ({"a": tensor(-8, 0)}, "tensor 'a' overlaps the previous one: it begins at byte -8"),
        (
            {"a": tensor(0, 8), "b": tensor(4, 12)},
            "tensor 'b' overlaps the previous one: it begins at byte 4, and the previous tensors "
            "end at 8.",
        ),
        (
            {"a": tensor(0, 8), "b": tensor(0, 8)},
            "tensor 'b' overlaps the previous one: it begins at byte 0",
        ),
        (
            {"a": tensor(4, 12)},
            "tensor 'a' leaves a gap after the previous one: it begins at byte 4",
        ),
        (
            {"a": tensor(0, 12)},
            "tensor 'a' is [2] of F32, 8 bytes, but its offsets 0 to 12 hold 12. Copy",
        ),
        ({"a": tensor(8, 0)}, "its offsets 8 to 0 hold -8."),
        ({"a": tensor(0, 8, [1 << 40])}, "4,398,046,511,104 bytes, but its offsets"),
    ],
)
def test_tensors_that_do_not_lie_one_behind_the_other(
    tmp_path: Path, header: dict[str, Any], shown: str
) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(headed(json.dumps(header).encode()) + bytes(16))
    result = message(safetensors_header, file)
    assert result.startswith(f"{file}: ")
    assert shown in result


@pytest.mark.parametrize(
    "facts",
    [
        tensor(0, 8, [-2, -1]),
        tensor(0, 8, [2.0]),
        tensor(0, 8, [True, 2]),
        tensor(0, 8, "2"),
        tensor(0, 8, [1 << 80]),
        tensor(0, 8, dtype="F31"),
        {"dtype": ["F32"], "shape": [2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 8, 16]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0.0, 8.0]},
    ],
)
def test_a_header_that_says_no_tensor(tmp_path: Path, facts: Any) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(headed(json.dumps({"a": facts}).encode()) + bytes(8))
    assert "it has no readable header" in message(safetensors_header, file)


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":' * 100_000,
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "a": {}}',
    ],
)
def test_a_header_that_is_built_to_hurt(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(headed(text) + bytes(8))
    assert "it has no readable header" in message(safetensors_header, file)
    (tmp_path / "config.json").write_bytes(text)
    if b"dtype" not in text:
        assert "cannot be read as JSON" in message(read_json, tmp_path / "config.json")


@pytest.mark.parametrize("reader", [safetensors_header, read_json, file_digest])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, reader: Any) -> None:
    """A pipe that nobody writes to, and a device without end."""
    os.mkfifo(tmp_path / "x.safetensors")
    (tmp_path / "y.safetensors").symlink_to("/dev/zero")
    for name, kind in (("x", "a named pipe"), ("y", "a device")):
        file = tmp_path / f"{name}.safetensors"
        assert message(reader, file) == f"{file} is {kind}, not a file. Put the file itself there."


def test_a_file_cut_off_in_its_header(weights: Path) -> None:
    with weights.open("r+b") as stream:
        stream.truncate(20)
    assert message(safetensors_header, weights).endswith(
        "it has no readable header. Copy or download it again."
    )


# --- other files ----------------------------------------------------------------------------------


def test_json_that_is_no_object(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text("[1, 2]")
    assert message(read_json, file) == f"{file} holds a list; it must hold a JSON object."
    file.write_text('{"a": 1}')
    assert read_json(file) == {"a": 1}


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe{}"])
def test_json_that_cannot_be_read(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(content)
    shown = message(read_json, file)
    assert shown.startswith(f"{file} cannot be read as JSON: ")
    assert shown.endswith("Copy or download it again.")


def test_json_that_is_not_there(tmp_path: Path) -> None:
    assert "cannot be read as JSON: " in message(read_json, tmp_path / "config.json")


def test_files_are_listed_by_name(tmp_path: Path) -> None:
    for name in ("b.json", "a.json", "c.txt", "d.bin"):
        (tmp_path / name).touch()
    assert list(listed(tmp_path, ("*.json", "c.*", "nothing"))) == ["a.json", "b.json", "c.txt"]
