"""Exporting an image for machines without a network: an archive, or a file for Apptainer."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

from toolkit._images.build import write_lock
from toolkit.containers.apptainer import PROGRAMS, installed_program
from toolkit.containers.engines import connect, explained
from toolkit.containers.images import PinnedImage
from toolkit.errors import BadInput


def export_image(name: str, pinned: PinnedImage, path: Path) -> None:
    """Write an image as `.tar` (`docker load` reads it) or `.sif` (`apptainer exec` runs it)."""
    if path.suffix not in (".tar", ".sif"):
        raise BadInput(f"{path}: name a file that ends in .tar (Docker) or .sif (Apptainer).")
    if not path.parent.is_dir():
        raise BadInput(f"{path}: there is no folder {path.parent}. Create it first.")
    try:
        if path.suffix == ".tar":
            _save(name, pinned, path)
        else:
            _write_sif(name, pinned, path)
    except OSError as error:
        raise BadInput(f"{path}: cannot be written: {error.strerror or error}.") from None


def _save(name: str, pinned: PinnedImage, path: Path) -> None:
    from docker.errors import ImageNotFound

    partial = path.with_name(f".{path.name}.partial")
    with contextlib.closing(connect()) as client, explained():
        try:
            image = client.images.get(pinned.image)
        except ImageNotFound:
            raise BadInput(
                f"image {pinned.image} is not on this engine. Build it again: `toolkit images "
                f"build {name}`, or set DOCKER_HOST to the engine that has it."
            ) from None
        try:
            with partial.open("wb") as file:
                for piece in image.save(named=True):
                    file.write(piece)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def _write_sif(name: str, pinned: PinnedImage, path: Path) -> None:
    program = installed_program()
    if program is None:
        raise BadInput(
            f"{path}: writing a .sif file needs Apptainer, which is not installed here. Export "
            f"a .tar (`toolkit images export {name} {path.with_suffix('.tar')}`), and build the "
            f"file where Apptainer is: `apptainer build {path.name} docker-archive://"
            f"{path.with_suffix('.tar').name}`."
        )
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        archive = Path(scratch) / "image.tar"
        _save(name, pinned, archive)
        command = [program, "build", "--force", str(path), f"docker-archive://{archive}"]
        result = subprocess.run(
            command, env=_scratch_only(scratch), capture_output=True, text=True, check=False
        )
    if result.returncode:
        raise BadInput(f"{path}: `{program} build` failed: {result.stderr.strip()[-500:]}")
    write_lock(name, replace(pinned, sif=str(path.resolve())))


def _scratch_only(scratch: str) -> dict[str, str]:
    """The environment in which Apptainer unpacks next to the file that it writes, and keeps no copy
    of the image in the user's home.
    """
    settings = {"TMPDIR": scratch, "CACHEDIR": scratch}
    names = (program.upper() for program in PROGRAMS)
    of_programs = {f"{name}_{key}": value for name in names for key, value in settings.items()}
    return {**os.environ, **of_programs}
