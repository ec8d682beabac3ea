"""An engine that ends, refuses or loses containers while it is in use: a stand-in that answers
HTTP on a socket, as engines do.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from docker.errors import ImageNotFound, NotFound
from requests.exceptions import ConnectionError as ConnectionLost

from toolkit._images import build, diagnose, export
from toolkit._images.build import _load
from toolkit.containers.engines import connect, explained
from toolkit.containers.images import PinnedImage
from toolkit.errors import BadInput
from toolkit.executors.interface import WorkerRequest
from toolkit_docker._leftovers import HOST, WORKER, remove_leftovers
from toolkit_docker._worker import ContainerWorker

PIN = "sha256:" + "a" * 64
Answer = tuple[int, Any] | None
"""Status and JSON, or None: the connection is cut, as when the engine is killed."""


class _Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True
    answers: dict[str, Answer]


class _Handler(BaseHTTPRequestHandler):
    def address_string(self) -> str:
        return "a socket"

    def log_message(self, *words: Any) -> None:
        return

    def do_GET(self) -> None:
        path = "/" + self.path.partition("?")[0].lstrip("/").partition("/")[2]
        if self.path.startswith("/version"):
            path = "/version"
        assert isinstance(self.server, _Server)
        answer = self.server.answers.get(path)
        if answer is None:
            return
        status, content = answer
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Starts the stand-in at DOCKER_HOST: it answers these paths, and is gone for all others."""
    with tempfile.TemporaryDirectory(prefix="tk-") as short:
        servers: list[_Server] = []

        def start(answers: dict[str, Answer]) -> None:
            server = _Server(f"{short}/s", _Handler)
            server.answers = {"/version": (200, {"ApiVersion": "1.41"}), **answers}
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            servers.append(server)
            monkeypatch.setenv("DOCKER_HOST", f"unix://{short}/s")

        yield start
        for server in servers:
            server.shutdown()
            server.server_close()


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lock that pins the CPU image only."""
    image = {"image": PIN, "toolkit": "0.1.0", "requirements": "b", "base": PIN, "packages": PIN}
    path = tmp_path / "images.yaml"
    path.write_text(yaml.safe_dump({"cpu": image}))
    monkeypatch.setenv("TOOLKIT_IMAGES", str(path))
    return path


PINNED = PinnedImage(image=PIN, toolkit="0.1.0", requirements="b", base=PIN, packages=PIN)


@pytest.mark.parametrize(
    "answers", [{}, {"/containers/json": (200, [])}], ids=["at leftovers", "at create"]
)
def test_an_engine_that_ends_while_a_container_is_made_is_not_trouble_with_the_store(
    answers: dict[str, Answer], engine: Any, lock: Path, toolkit: Any, toy: Any
) -> None:
    engine(answers)
    result = toolkit.run("run", toy(), "--on", "docker")
    assert result.returncode == 2
    assert "No container engine answers at unix://" in result.stderr
    assert "`--on local`" in result.stderr
    assert "repair the folder" not in result.stderr


def test_an_engine_that_refuses_is_quoted(engine: Any, lock: Path, toolkit: Any, toy: Any) -> None:
    engine({"/containers/json": (500, {"message": "the database is locked"})})
    result = toolkit.run("run", toy(), "--on", "docker")
    assert result.returncode == 2
    assert "refused: the database is locked" in result.stderr


@pytest.mark.parametrize(
    "words",
    [("images", "verify"), ("images", "export", "cpu", "cpu.tar")],
    ids=["verify", "export"],
)
def test_commands_about_images_say_that_the_engine_ended(
    words: tuple[str, ...], engine: Any, lock: Path, toolkit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(lock.parent)
    engine({})
    result = toolkit.run(*words)
    assert result.returncode == 2
    assert "No container engine answers at unix://" in result.stderr
    assert not list(lock.parent.glob(".*.partial"))


def test_a_build_says_that_the_engine_ended(
    engine: Any, lock: Path, toolkit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(client: Any, *words: Any, **options: Any) -> None:
        client.images.get(PIN)

    monkeypatch.setattr(build, "build_image", ask)
    engine({})
    result = toolkit.run("images", "build", "cpu")
    assert result.returncode == 2
    assert "No container engine answers at unix://" in result.stderr


def test_doctor_says_that_the_engine_ended(engine: Any, lock: Path) -> None:
    engine({})
    facts = {fact.subject: fact.text for fact in diagnose.examine_containers()}
    assert facts["container engine"].startswith("no container engine answers at unix://")


def test_a_container_that_another_run_removes_meanwhile_is_no_leftover(engine: Any) -> None:
    listed = [{"Id": "c1", "Names": [], "Labels": {WORKER: "x", HOST: "elsewhere"}}]
    missing = {"message": "No such container: c1"}
    engine({"/containers/json": (200, listed), "/containers/c1/json": (404, missing)})
    client = connect()
    try:
        assert remove_leftovers(client) == []
    finally:
        client.close()


def worker(folder: Path, ask: Callable[..., Any]) -> ContainerWorker:
    """The worker of a container whose engine answers every call with `ask`."""
    request = WorkerRequest(
        name="docker-0", executor="docker", folder=folder, jobs=folder, inputs=folder
    )
    container: Any = SimpleNamespace(id="c1", kill=ask, wait=ask, reload=ask, remove=ask)
    client: Any = SimpleNamespace(close=lambda: None)
    return ContainerWorker(client, container, request, {})


@pytest.mark.parametrize("now", [True, False])
@pytest.mark.parametrize(
    ("error", "text"),
    [
        (NotFound("No such container: c1"), "its container was removed"),
        (ConnectionLost("refused"), "the container engine ended"),
    ],
)
def test_a_removed_container_is_told_from_an_engine_that_ended(
    error: Exception, text: str, now: bool, tmp_path: Path
) -> None:
    def ask(**options: Any) -> None:
        raise error

    assert worker(tmp_path, ask).stop(now=now).text == text


def test_an_error_that_is_not_the_engines_is_left_alone() -> None:
    with pytest.raises(FileNotFoundError), explained():
        raise FileNotFoundError(2, "No such file")


def no_image(name: str) -> None:
    raise ImageNotFound(f"No such image: {name}")


def test_an_image_that_the_engine_lacks_is_not_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = SimpleNamespace(images=SimpleNamespace(get=no_image), close=lambda: None)
    monkeypatch.setattr(export, "connect", lambda: client)
    with pytest.raises(BadInput, match=r"not on this engine.*`toolkit images build cpu`"):
        export.export_image("cpu", PINNED, tmp_path / "cpu.tar")
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_fails_midway_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pieces(named: bool) -> Iterator[bytes]:
        yield b"the first piece"
        raise OSError(28, "No space left on device")

    image = SimpleNamespace(save=pieces)
    client = SimpleNamespace(images=SimpleNamespace(get=lambda id: image), close=lambda: None)
    monkeypatch.setattr(export, "connect", lambda: client)
    with pytest.raises(BadInput, match=r"cpu\.tar: cannot be written: No space left on device"):
        export.export_image("cpu", PINNED, tmp_path / "cpu.tar")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["cpu.tar", "cpu.sif"])
def test_exporting_to_a_folder_that_is_not_there_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"there is no folder .*/none\. Create it first"):
        export.export_image("cpu", PINNED, tmp_path / "none" / name)


def test_an_engine_that_names_images_otherwise_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    archive.write_bytes(b"an image")
    images = SimpleNamespace(load=lambda file: [], get=no_image)
    client: Any = SimpleNamespace(images=images)
    with pytest.raises(BadInput, match=r"under another ID than sha256:a+.*containerd-snapshotter"):
        _load(client, archive, PIN)


@pytest.mark.parametrize("command", ["verify", "export"])
@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("cuda", "image 'cuda' has not been built: "),
        ("cudaa", "There is no image 'cudaa'. Did you mean 'cuda'? Images: cpu, cuda."),
    ],
)
def test_an_image_that_was_not_built_is_told_from_one_that_is_unknown(
    name: str, sentence: str, command: str, lock: Path, toolkit: Any
) -> None:
    file = [lock.parent / "x.tar"] if command == "export" else []
    result = toolkit.run("images", command, name, *file)
    assert result.returncode == 2
    assert sentence in result.stderr
    assert ("`toolkit images build cuda`" in result.stderr) == (name == "cuda")


@pytest.mark.parametrize(
    ("words", "epoch", "sentence"),
    [
        (["--wheel", "/not/here.whl"], "0", "'/not/here.whl' does not exist"),
        (["--with", "/not/here.whl"], "0", "--with /not/here.whl: there is no such file"),
        (["--with", "./not-here"], "0", "--with ./not-here: there is no such file"),
        ([], "abc", "SOURCE_DATE_EPOCH=abc: must be seconds since 1970"),
        ([], "-1", "SOURCE_DATE_EPOCH=-1: must be seconds since 1970"),
    ],
)
def test_a_build_checks_what_it_was_given_before_it_downloads(
    words: list[str],
    epoch: str,
    sentence: str,
    engine: Any,
    toolkit: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def download(*words: Any, **options: Any) -> None:
        raise AssertionError("something was made or downloaded")

    monkeypatch.setattr(build, "_base", download)
    monkeypatch.setattr(build, "fill_wheelhouse", download)
    engine({})
    result = toolkit.run("images", "build", "cpu", *words, SOURCE_DATE_EPOCH=epoch)
    assert result.returncode == 2
    assert sentence in result.stderr


def test_a_build_ended_by_sigterm_removes_its_files(
    engine: Any, toolkit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch: list[Path] = []

    def end(client: Any, base: str, folder: Path, say: Any) -> str:
        (folder / "base.tar").write_bytes(b"gigabytes")
        scratch.append(folder)
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("SIGTERM was ignored")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(build, "_base", end)
    engine({})
    before = signal.getsignal(signal.SIGTERM)
    result = toolkit.run("images", "build", "cpu")
    assert (result.returncode, result.stderr.strip()) == (130, "Interrupted.")
    assert scratch[0].name.startswith("toolkit-image-")
    assert not scratch[0].exists()
    assert signal.getsignal(signal.SIGTERM) == before
