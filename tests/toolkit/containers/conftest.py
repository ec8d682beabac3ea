"""An engine of the session's own, and the image that its tests run in.

`nox -s containers` starts two engines and names them: one that has no GPUs, and one with a
stand-in for NVIDIA's hook, which accepts requests for GPUs.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ENGINE, WITH_GPUS = "TOOLKIT_TEST_ENGINE", "TOOLKIT_TEST_ENGINE_GPU"
WHEELHOUSE = "TOOLKIT_TEST_WHEELHOUSE"
APPTAINER = "TOOLKIT_TEST_APPTAINER"
QUICKLY = "-Xcompression-level 1"


def _engine(variable: str) -> str:
    if variable not in os.environ:
        pytest.skip(f"no engine of the tests' own ({variable}); `nox -s containers` starts one")
    return os.environ[variable]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of the engine without GPUs."""
    monkeypatch.setenv("DOCKER_HOST", _engine(ENGINE))
    from toolkit.containers.engines import connect

    client = connect()
    yield client
    client.close()


@pytest.fixture
def engine_with_gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of the engine that accepts requests for GPUs."""
    monkeypatch.setenv("DOCKER_HOST", _engine(WITH_GPUS))
    from toolkit.containers.engines import connect

    client = connect()
    yield client
    client.close()


@pytest.fixture(scope="session")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where wheels are kept between builds."""
    named = os.environ.get(WHEELHOUSE)
    return Path(named) if named else tmp_path_factory.mktemp("wheels")


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory, wheelhouse: Path) -> Path:
    """The CPU image, built once on the engine without GPUs; the path of the lock that pins it."""
    from toolkit._images.build import build_image, write_lock
    from toolkit.containers.engines import connect
    from toolkit.containers.images import read_recipes

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", _engine(ENGINE))
        patch.setenv("PYTHONSAFEPATH", "")
        client = connect()
        wheel = os.environ.get("TOOLKIT_WHEEL")
        pinned = build_image(
            client,
            "cpu",
            read_recipes()["cpu"],
            say=lambda text: None,
            wheelhouse=wheelhouse,
            wheel=Path(wheel) if wheel else None,
        )
        client.close()
    lock = tmp_path_factory.mktemp("lock") / "images.yaml"
    write_lock("cpu", pinned, lock)
    return lock


@pytest.fixture(scope="session")
def image_on_engine_with_gpus(image: Path) -> Path:
    """The same image on the engine with GPUs, by way of a file as for a machine without a network;
    the path of the lock that pins it.
    """
    from toolkit._images.export import export_image
    from toolkit.containers.engines import connect
    from toolkit.containers.images import read_lock

    pinned = read_lock(image)["cpu"]
    archive = image.parent / "cpu.tar"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", _engine(ENGINE))
        export_image("cpu", pinned, archive)
        patch.setenv("DOCKER_HOST", _engine(WITH_GPUS))
        target = connect()
        with archive.open("rb") as file:
            target.images.load(file)
        archive.unlink()
        assert target.images.get(pinned.image).id == pinned.image
        target.close()
    return image


@pytest.fixture
def apptainer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real program, first on the PATH."""
    if APPTAINER not in os.environ:
        pytest.skip(
            f"no Apptainer of the tests' own ({APPTAINER}); `nox -s containers` installs one"
        )
    monkeypatch.setenv("PATH", f"{os.environ[APPTAINER]}:{os.environ['PATH']}")
    assert shutil.which("apptainer") == f"{os.environ[APPTAINER]}/apptainer"


@pytest.fixture(scope="session")
def locks_with_files() -> dict[Path, Path]:
    """Locks whose image has been exported: writing a file takes a minute or two."""
    return {}


@pytest.fixture
def exported(
    apptainer: None,
    engine: Any,
    image: Path,
    tmp_path_factory: pytest.TempPathFactory,
    toolkit: Any,
    locks_with_files: dict[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """The CPU image as a file, which the lock names from then on; the lock."""
    if image not in locks_with_files:
        folder = tmp_path_factory.mktemp("sif")
        lock = Path(shutil.copy(image, folder))
        settings = {"TOOLKIT_IMAGES": str(lock), "APPTAINER_MKSQUASHFS_ARGS": QUICKLY}
        result = toolkit.run("images", "export", "cpu", folder / "cpu.sif", **settings)
        assert result.returncode == 0, result.stderr
        assert sorted(path.name for path in folder.iterdir()) == ["cpu.sif", "images.yaml"]
        locks_with_files[image] = lock
    monkeypatch.setenv("TOOLKIT_IMAGES", str(locks_with_files[image]))
    return locks_with_files[image]
