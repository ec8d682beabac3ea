"""The container checks of `toolkit doctor` where no engine answers, or too little is there."""

from __future__ import annotations

import shutil
from collections import namedtuple
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from toolkit._images import diagnose

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def _no_pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_IMAGES", str(tmp_path / "images.yaml"))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    monkeypatch.setenv("PATH", str(tmp_path))


def facts() -> dict[str, diagnose.ContainerFact]:
    return {fact.subject: fact for fact in diagnose.examine_containers()}


def test_without_an_engine_doctor_says_where_it_looked_and_finds_no_problem(
    tmp_path: Path,
) -> None:
    found = facts()
    assert found.keys() == {"container engine", "apptainer"}
    text = found["container engine"].text
    assert text.startswith(f"no container engine answers at unix://{tmp_path}/none.sock. Start one")
    assert "`--on local`" in text
    assert found["apptainer"].text == "not on the PATH"
    assert not any(fact.cure for fact in found.values())


def test_an_engine_that_this_user_may_not_use_is_told_from_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(name: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("toolkit.containers.engines._try_socket", refuse)
    text = facts()["container engine"].text
    assert "does not accept this user" in text
    assert "the group `docker`" in text


def engine(info: Mapping[str, Any]) -> Any:
    """An engine that says this of itself."""
    return SimpleNamespace(
        info=lambda: dict(info),
        version=lambda: {"Components": [{"Name": "Engine"}]},
        close=lambda: None,
    )


@pytest.mark.parametrize(("gib", "cure"), [(40, ""), (3, "Make room: `docker system df`")])
def test_an_engine_with_cdi_and_its_room(
    gib: int, cure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "apptainer").touch(mode=0o755)
    info = {
        "ServerVersion": "28.2.2",
        "Runtimes": {"runc": {}, "nvidia": {}},
        "CDISpecDirs": ["/etc/cdi", "/var/run/cdi"],
        "DockerRootDir": str(tmp_path),
    }
    monkeypatch.setattr(diagnose, "connect", lambda timeout: engine(info))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, gib << 30))
    found = facts()
    assert found["container engine"].text == f"Docker 28.2.2 at unix://{tmp_path}/none.sock"
    assert found["container runtimes"].text == "nvidia, runc"
    assert found["CDI"].text == "/etc/cdi, /var/run/cdi"
    assert found["room for images"].text.startswith(f"{gib}.0 GiB free in {tmp_path} ")
    assert found["room for images"].cure.startswith(cure)
    assert bool(found["room for images"].cure) == bool(cure)
    assert found["apptainer"].text == str(tmp_path / "apptainer")


def test_an_engine_without_cdi_whose_disk_is_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    info = {"ServerVersion": "20.10.24", "Runtimes": {}, "DockerRootDir": "/not/here"}
    monkeypatch.setattr(diagnose, "connect", lambda timeout: engine(info))
    found = facts()
    assert found["CDI"].text == "off"
    assert found["room for images"].text == "/not/here cannot be read from here"
    assert not found["room for images"].cure
