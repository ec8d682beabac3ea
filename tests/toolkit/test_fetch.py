"""`toolkit fetch` against a hub made up of functions: what is fetched, tried again, found damaged,
and said.
"""

from __future__ import annotations

import io
import itertools
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import constants

from toolkit._plan.fetch import WAITS, DownloadDisplay, Fetched, fetch_all, size
from toolkit.errors import BadInput, DataError
from toolkit.files import hub
from toolkit.files.hub import Download, HubFile, Snapshot

COMMIT = "c" * 40
WANTED = Snapshot("org/model", COMMIT, None)
HEADER = json.dumps({"weight": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
WEIGHTS = len(HEADER).to_bytes(8, "little") + HEADER + bytes(16)
FILES = {"config.json": b"{}", "model.safetensors": WEIGHTS, "README.md": b"A model."}
ALL = Download(WANTED, ("*.json", "*.safetensors"))


def npz() -> bytes:
    """A small npz file."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("W_enc.npy", b"numbers")
    return file.getvalue()


class Hub:
    """Repositories in memory that are fetched into a cache. `troubles` are raised, or put in place
    of a file, one a try.
    """

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.repositories: dict[str, dict[str, bytes]] = {"org/model": dict(FILES)}
        self.troubles: Iterator[Exception | bytes] = iter(())
        self.asked: list[tuple[str, bool]] = []

    def files(self, expected: Snapshot, patterns: Any) -> list[HubFile]:
        repository = self.repositories[expected.name].items()
        return [
            HubFile(path, len(content))
            for path, content in repository
            if hub._matches(path, patterns)
        ]

    def fetch(
        self, expected: Snapshot, path: str, tell: Callable[[int], None], *, restart: bool = False
    ) -> Path:
        self.asked.append((path, restart))
        trouble = next(self.troubles, None)
        if isinstance(trouble, Exception):
            raise trouble
        content = self.repositories[expected.name][path] if trouble is None else trouble
        file = hub.snapshot_folder(expected) / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        tell(len(content) // 2)
        tell(len(content))
        return file


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A hub that can be reached; no network is touched."""
    cache = tmp_path / "cache"
    cache.mkdir()
    result = Hub(cache)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(hub, "repository_files", result.files)
    monkeypatch.setattr(hub, "fetch_file", result.fetch)
    monkeypatch.setattr(hub, "_commit", lambda _name, _revision, _kind: COMMIT)
    return result


def fetched(*downloads: Download) -> tuple[list[Fetched], str, list[float]]:
    """What came, what was shown, and how long each pause was to be."""
    stream, pauses = io.StringIO(), list[float]()
    results = list(fetch_all(downloads, DownloadDisplay(stream), pauses.append))
    return results, stream.getvalue(), pauses


# --- what is fetched ------------------------------------------------------------------------------


def test_files_that_match_are_fetched_and_counted(fake: Hub) -> None:
    (result,), shown, pauses = fetched(ALL)
    assert fake.asked == [("config.json", False), ("model.safetensors", False)]
    assert (result.came, result.came_bytes, result.there) == (2, 2 + len(WEIGHTS), 0)
    assert result.folder == fake.cache / "models--org--model" / "snapshots" / COMMIT
    assert (result.folder / "model.safetensors").read_bytes() == WEIGHTS
    assert result.sentence().startswith(f"org/model@{COMMIT}: 2 files, {len(WEIGHTS) + 2} B, ")
    assert result.sentence().endswith(f"/s. {result.folder}")
    assert [line.split(",")[0] for line in shown.splitlines()] == [
        "config.json: 2 B",
        f"model.safetensors: {len(WEIGHTS)} B",
    ]
    assert pauses == []


def test_what_is_there_is_not_fetched_again(fake: Hub) -> None:
    fetched(ALL)
    fake.asked.clear()
    (result,), shown, _ = fetched(ALL)
    assert (fake.asked, shown, result.came, result.there) == ([], "", 0, 2)
    message = (
        f"org/model@{COMMIT}: 2 files, {len(WEIGHTS) + 2} B, already cached; nothing to fetch. "
        f"{result.folder}"
    )
    assert result.sentence() == message


def test_only_what_lacks_is_fetched(fake: Hub) -> None:
    (result,), _, _ = fetched(ALL)
    (result.folder / "config.json").unlink()
    fake.asked.clear()
    (result,), _, _ = fetched(ALL)
    assert fake.asked == [("config.json", False)]
    assert (result.came, result.came_bytes, result.there, result.there_bytes) == (
        1,
        2,
        1,
        len(WEIGHTS),
    )
    assert ", 1 were cached." in result.sentence()


@pytest.mark.parametrize("damaged", [WEIGHTS[:-1], b"\xff" * len(WEIGHTS)])
def test_a_damaged_file_is_fetched_again(fake: Hub, damaged: bytes) -> None:
    (result,), _, _ = fetched(ALL)
    (result.folder / "model.safetensors").write_bytes(damaged)
    fake.asked.clear()
    fetched(ALL)
    assert fake.asked == [("model.safetensors", True)]
    assert (result.folder / "model.safetensors").read_bytes() == WEIGHTS


def test_a_repository_without_such_files(fake: Hub) -> None:
    with pytest.raises(
        BadInput,
        match=rf"'org/model' at revision '{COMMIT}' has no file that matches \*\.npz\. Look at the",
    ):
        fetched(Download(WANTED, ("*.npz",)))


def test_what_does_not_fit_the_disk_is_not_begun(
    fake: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 50}))
    with pytest.raises(BadInput) as caught:
        fetched(ALL)
    message = (
        f"'org/model' needs {len(WEIGHTS) + 2} B more at {fake.cache}, where 50 B are free. Make "
        "room, or set HF_HUB_CACHE to"
    )
    assert str(caught.value).startswith(message)
    assert fake.asked == []


# --- trying again ---------------------------------------------------------------------------------


def test_a_broken_connection_is_gone_on_with(fake: Hub) -> None:
    fake.troubles = iter([ConnectionError("reset by peer\nor so"), TimeoutError()])
    (result,), shown, pauses = fetched(Download(WANTED, ("*.safetensors",)))
    assert fake.asked == [("model.safetensors", False)] * 3
    assert pauses == list(WAITS[:2])
    assert "model.safetensors: ConnectionError: reset by peer; trying again in 1 s\n" in shown
    assert "model.safetensors: TimeoutError: no details; trying again in 4 s\n" in shown
    assert result.came == 1


@pytest.mark.parametrize("damaged", [WEIGHTS[:-3], b"\xff" * len(WEIGHTS)])
def test_a_file_that_comes_damaged_is_fetched_again(fake: Hub, damaged: bytes) -> None:
    fake.troubles = iter([damaged])
    _, shown, pauses = fetched(Download(WANTED, ("*.safetensors",)))
    assert fake.asked == [("model.safetensors", False), ("model.safetensors", True)]
    assert len(pauses) == 1
    assert "model.safetensors: DataError: " in shown


def test_an_npz_file_is_one(fake: Hub) -> None:
    fake.repositories["org/model"] = {"params.npz": npz()}
    fake.troubles = iter([bytes(len(npz()))])
    _, shown, _ = fetched(Download(WANTED, ("*.npz",)))
    assert fake.asked == [("params.npz", False), ("params.npz", True)]
    assert "is not an npz file." in shown


def test_a_hub_that_stays_away(fake: Hub) -> None:
    fake.troubles = itertools.repeat(ConnectionError("no route"))
    with pytest.raises(BadInput) as caught:
        fetched(Download(WANTED, ("*.safetensors",)))
    assert str(caught.value) == (
        "model.safetensors of 'org/model': 5 tries failed, the last with ConnectionError: no "
        "route. The bytes received so far are kept; the same command continues "
        "from there."
    )
    assert len(fake.asked) == 5


def test_what_no_try_can_mend_is_tried_once(fake: Hub) -> None:
    fake.troubles = itertools.repeat(BadInput("'org/model' is gated"))
    with pytest.raises(BadInput, match="'org/model' is gated"):
        fetched(ALL)
    assert len(fake.asked) == 1


# --- without the network --------------------------------------------------------------------------


def test_offline_what_is_there_is_checked(fake: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    (result,), _, _ = fetched(ALL)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(hub, "repository_files", None)
    fake.asked.clear()
    (again,), shown, _ = fetched(ALL)
    assert (fake.asked, shown, again.there, again.came) == ([], "", 2, 0)
    checked = "already cached; checked against their headers only, since the network is disabled"
    assert (
        again.sentence()
        == f"org/model@{COMMIT}: 2 files, {len(WEIGHTS) + 2} B, {checked}. {result.folder}"
    )
    (result.folder / "model.safetensors").write_bytes(WEIGHTS[:-1])
    with pytest.raises(
        DataError, match=r"model\.safetensors is cut off: its header promises \d+ bytes, it has \d+"
    ):
        fetched(ALL)


# --- what is shown --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (12_345, "12 kB"),
        (4_976_698_672, "5.0 GB"),
        (16.06e9, "16.1 GB"),
        (2e8, "200 MB"),
    ],
)
def test_sizes(count: float, text: str) -> None:
    assert size(count) == text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "lines"),
    [
        (io.StringIO, ["w.bin: 600 MB of 1.0 GB (60%), 83 MB/s\n", "w.bin: 1.0 GB, 100 MB/s\n"]),
        (
            Terminal,
            [
                "\r\x1b[Kw.bin: 100 MB of 1.0 GB (10%), 0 B/s",
                "\r\x1b[Kw.bin: 600 MB of 1.0 GB (60%), 83 MB/s",
                "\r\x1b[Kw.bin: 1.0 GB of 1.0 GB (100%), 100 MB/s",
                "\r\x1b[Kw.bin: 1.0 GB, 100 MB/s\n",
            ],
        ),
    ],
)
def test_progress_is_reported_with_its_speed(stream: type[io.StringIO], lines: list[str]) -> None:
    """100 MB were there before; the rest came in nine seconds. A second bar that is behind changes
    nothing.
    """
    screen, now = stream(), [0.0]
    with DownloadDisplay(screen, lambda: now[0]).file(HubFile("w.bin", 10**9)) as tell:
        for at, there in ((1.0, 10**8), (6.0, 6 * 10**8), (6.1, 3 * 10**8), (9.0, 10**9)):
            now[0] = at
            tell(there)
    assert screen.getvalue() == "".join(lines)


def test_a_file_that_needed_no_bytes() -> None:
    screen = io.StringIO()
    with DownloadDisplay(screen).file(HubFile("w.bin", 5)):
        pass
    assert screen.getvalue() == "w.bin: 5 B\n"


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def spec(tmp_path: Path) -> Callable[..., Path]:
    """Writes a spec whose model and SAEs are on the hub, or elsewhere."""

    def write(model: dict[str, Any], saes: dict[str, Any]) -> Path:
        path = tmp_path / "spec.yaml"
        stages = [{"id": "features", "uses": "extract.activations"}]
        samples = {"uses": "csv", "with": {"path": "texts.csv", "text": "text"}}
        (tmp_path / "texts.csv").write_text("text\none\n")
        known = {
            "version": 1,
            "name": "fetched",
            "model": model,
            "saes": saes,
            "samples": samples,
            "stages": stages,
        }
        path.write_text(yaml.safe_dump(known))
        return path

    return write


def test_the_command_fetches_model_and_saes(
    fake: Hub, spec: Callable[..., Path], toolkit: Any
) -> None:
    """Of the SAEs only the layers asked for, of the model nothing twice."""
    layer = "Llama3_1-8B-Base-L{}R-8x/{}"
    fake.repositories["org/saes"] = {
        layer.format(at, name): content
        for at in (3, 4, 5)
        for name, content in (
            ("hyperparams.json", b"{}"),
            ("checkpoints/final.safetensors", WEIGHTS),
        )
    }
    fake.repositories["org/model"] |= {"consolidated.safetensors": WEIGHTS, "tokenizer.json": b"{}"}
    path = spec(
        {"uses": "huggingface", "with": {"id": "org/model"}},
        {"uses": "llama_scope", "with": {"release": "org/saes", "layers": [3, 5]}},
    )
    done = toolkit.run("fetch", path)
    assert done.returncode == 0, done.stderr
    assert sorted(path for path, _ in fake.asked) == sorted(
        [
            *("config.json", "model.safetensors", "tokenizer.json"),
            *(
                layer.format(at, name)
                for at in (3, 5)
                for name in ("hyperparams.json", "checkpoints/final.safetensors")
            ),
        ]
    )
    assert [line.split(",")[0] for line in done.stdout.splitlines()] == [
        f"org/model@{COMMIT}: 3 files",
        f"org/saes@{COMMIT}: 4 files",
    ]
    assert f"model.safetensors: {len(WEIGHTS)} B" in done.stderr


def test_the_command_as_json(fake: Hub, spec: Callable[..., Path], toolkit: Any) -> None:
    path = spec({"uses": "huggingface", "with": {"id": "org/model"}}, {"uses": "toy"})
    (result,) = json.loads(toolkit.run("fetch", path, "--json").stdout)["downloads"]
    assert (result["name"], result["revision"], result["came"]) == ("org/model", COMMIT, 2)


def test_the_command_with_nothing_on_the_hub(
    fake: Hub, spec: Callable[..., Path], toolkit: Any
) -> None:
    path = spec({"uses": "toy"}, {"uses": "toy"})
    done = toolkit.run("fetch", path)
    assert (done.returncode, done.stdout) == (
        0,
        f"{path}: nothing to fetch; its model and SAEs are not on the hub.\n",
    )
    assert fake.asked == []


def test_the_command_offline_with_nothing_cached(
    fake: Hub, spec: Callable[..., Path], toolkit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = toolkit.run(
        "fetch", spec({"uses": "huggingface", "with": {"id": "org/model"}}, {"uses": "toy"})
    )
    assert done.returncode == 2
    assert "'org/model' at revision 'main' is not in the Hugging Face cache" in done.stderr
