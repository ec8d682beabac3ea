"""Configs and headers of SAEs that are changed at random: each is read, or refused in one sentence;
none ends in a traceback, hangs or takes much memory. Seeded: a failure names its seed.
"""

from __future__ import annotations

import json
import random
import shutil
import struct
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.fuzzing import FUZZ_COUNT
from toolkit.errors import ToolkitError
from toolkit.testing import sae_files as write
from toolkit.testing.fakes import SilentReporter
from toolkit_saes.layouts import auto, gemma_scope, llama_scope, saelens

SHORT = 60
"""Changed inputs of each layout in the default tests."""
ROW = torch.ones(1, write.INPUTS)
ODD: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    7,
    1 << 40,
    1 << 200,
    0.5,
    -0.0,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "relu",
    "x" * 5000,
    "\ud800",
    "\u202e\x1b[31m",
    "../../etc",
    "blocks.99999999999999999999.hook_resid_post",
    "blocks.3.hook_resid_post",
    [],
    [1],
    [None, {}],
    {},
    {"in": -1},
    {"in": "a", "out": []},
    {"sae_lens_version": [6]},
)


def lens(folder: Path, architecture: str) -> None:
    write.saelens(folder / "sae", architecture)


WRITERS: dict[str, Callable[[Path], object]] = {
    "llama": lambda folder: write.llama(folder / "x-L3R-8x"),
    "openmoss-2025": lambda folder: write.openmoss(folder / "L3R", new=False),
    "openmoss-2026": lambda folder: write.openmoss(folder / "L3R"),
    "openmoss-topk": lambda folder: write.openmoss(folder / "L3R", act_fn="topk", top_k=3),
    "saelens": lambda folder: lens(folder, "standard"),
    "saelens-jumprelu": lambda folder: lens(folder, "jumprelu"),
    "saelens-topk": lambda folder: lens(folder, "topk"),
    "saelens-gated": lambda folder: lens(folder, "gated"),
    "saelens-transcoder": lambda folder: lens(folder, "jumprelu_skip_transcoder"),
    "gemma": lambda folder: write.gemma(
        folder / "layer_3" / "width_16k" / "average_l0_7" / "params.npz"
    ),
}


def use(layout: str, folder: Path) -> None:
    """Identified, detected, loaded, and run on a row."""
    silent = SilentReporter()
    if layout == "gemma":
        params: Any = gemma_scope.GemmaScope(path=str(folder))
        gemma_scope.identify(params)
        saes = gemma_scope.load(params, silent)
    elif layout.startswith("saelens"):
        params = saelens.SaeLens(path=str(folder))
        saelens.identify(params)
        saes = saelens.load(params, silent)
    else:
        params = llama_scope.LlamaScope(path=str(folder))
        llama_scope.identify(params)
        saes = llama_scope.load(params, silent)
    for sae in saes:
        sae.encode(ROW)
        sae.encoder_columns([1])
        sae.decoder_rows([0])


def changed_json(drawn: random.Random, known: Any) -> Any:
    """One value replaced, dropped, doubled or put somewhere else, at any depth."""
    places = list(_places(known))
    parent, key = drawn.choice(places)
    way = drawn.randrange(4)
    if way == 0 and isinstance(parent, dict):
        del parent[key]
    elif way == 1:
        other, name = drawn.choice(places)
        parent[key] = json.loads(json.dumps(other[name]))
    elif way == 2 and type(parent[key]) in (int, float):
        parent[key] = drawn.choice([-1, 2, 0, 1e30, 0.5]) * parent[key] + drawn.choice([0, 1, -8])
    else:
        parent[key] = drawn.choice(ODD)
    return known


def _places(known: Any) -> Any:
    entries = known.items() if isinstance(known, dict) else enumerate(known)
    for key, value in entries:
        yield known, key
        if isinstance(value, dict | list):
            yield from _places(value)


def broken_text(drawn: random.Random, text: bytes) -> bytes:
    """Bytes of JSON cut off, flipped, nested deeply, or with a number of 5,000 digits."""
    way, index = drawn.randrange(5), drawn.randrange(max(1, len(text)))
    if way == 0:
        return text[:index]
    if way == 1:
        return text[:index] + bytes([drawn.randrange(256)]) + text[index + 1 :]
    if way == 2:
        return b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    if way == 3:
        return text.replace(b":", b": " + b"9" * 5000 + b"e", 1)
    return b"[" * 200_000


def change_config(drawn: random.Random, file: Path) -> None:
    if drawn.random() < 0.15:
        file.write_bytes(broken_text(drawn, file.read_bytes()))
        return
    known = json.loads(file.read_text())
    for _ in range(drawn.choice([1, 1, 1, 2, 4])):
        if known:
            known = changed_json(drawn, known)
    file.write_text(json.dumps(known))


def change_safetensors(drawn: random.Random, file: Path) -> None:
    """Its header, changed as JSON or as bytes, with the right length in front or a wrong one."""
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    text, data = content[8 : 8 + length], content[8 + length :]
    if drawn.random() < 0.25:
        text = broken_text(drawn, text)
    else:
        known = json.loads(text)
        for _ in range(drawn.choice([1, 1, 2])):
            if known:
                known = changed_json(drawn, known)
        text = json.dumps(known).encode()
    length = len(text)
    if drawn.random() < 0.1:
        length = drawn.choice([0, 1, length + 1, 1 << 20, (1 << 63) - 1, (1 << 64) - 1])
    file.write_bytes(struct.pack("<Q", length) + text + data)


def change_bytes(drawn: random.Random, file: Path) -> None:
    """A few bytes near the ends, where archives keep their directory and headers."""
    content = bytearray(file.read_bytes())
    for _ in range(drawn.choice([1, 2, 8])):
        ends = [
            drawn.randrange(min(300, len(content))),
            -1 - drawn.randrange(min(600, len(content))),
        ]
        content[drawn.choice(ends)] = drawn.randrange(256)
    if drawn.random() < 0.2:
        content = content[: drawn.randrange(len(content))]
    file.write_bytes(bytes(content))


def change(drawn: random.Random, folder: Path) -> None:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    file = drawn.choice(files)
    if file.suffix == ".json":
        change_config(drawn, file)
    elif file.suffix == ".safetensors" and drawn.random() < 0.9:
        change_safetensors(drawn, file)
    else:
        change_bytes(drawn, file)


def attack(layout: str, whole: Path, folder: Path, count: int) -> Counter[str]:
    """What became of so many changed copies of a whole SAE."""
    outcomes: Counter[str] = Counter()
    for seed in range(count):
        drawn = random.Random(f"{layout} {seed}")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        change(drawn, folder)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for name, call in (("used", use), ("detected", detect)):
                try:
                    call(layout, folder)
                    outcomes[name] += 1
                except ToolkitError as error:
                    message = str(error)
                    assert "\n" not in message, (layout, seed, message)
                    assert len(message) < 7000, (layout, seed, message[:200])
                    outcomes["refused"] += 1
                except Exception as error:
                    raise AssertionError(f"{layout}, seed {seed}: {error!r}") from error
    return outcomes


def detect(_: str, folder: Path) -> None:
    auto.identify(auto.Auto(path=str(folder)))


def run(layout: str, root: Path, count: int) -> None:
    whole = root / "whole"
    WRITERS[layout](whole)
    use(layout, whole)
    outcomes = attack(layout, whole, root / "changed", count)
    print(f"{layout}: {count} changed inputs, {dict(outcomes)}, no traceback")
    assert outcomes["refused"] > count / 3
    assert outcomes["used"] + outcomes["detected"] + outcomes["refused"] == 2 * count


@pytest.mark.parametrize("layout", WRITERS)
def test_changed_files_are_read_or_refused(layout: str, tmp_path: Path) -> None:
    run(layout, tmp_path, SHORT)


@pytest.mark.slow
@pytest.mark.fuzz
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("layout", WRITERS)
def test_many_changed_files_are_read_or_refused(
    layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with capsys.disabled():
        run(layout, tmp_path, FUZZ_COUNT // len(WRITERS))
