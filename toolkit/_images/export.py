"""Exporting an image for machines without a network: an archive, or a file for Apptainer."""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

from toolkit._images.build import write_lock
from toolkit.containers.apptainer import PROGRAMS, installed_program
from toolkit.containers.engines import connect
from toolkit.containers.images import PinnedImage
from toolkit.errors import BadInput


def export_image(name: str, pinned: PinnedImage, path: Path) -> None:
    """Write an image as `.tar` (`docker load` reads it) or `.sif` (`apptainer exec` runs it)."""
    if path.suffix == ".tar":
        _save(pinned, path)
    elif path.suffix == ".sif":
        _write_sif(name, pinned, path)
    else:
        raise BadInput(f"{path}: name a file that ends in .tar (Docker) or .sif (Apptainer).")


def _save(pinned: PinnedImage, path: Path) -> None:
    client = connect()
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        for piece in client.images.get(pinned.image).save(named=True):
            file.write(piece)
    partial.replace(path)


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
        _save(pinned, archive)
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
