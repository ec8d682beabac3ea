"""A base image from this machine's Python: the interpreter, its standard library, the shared
libraries that they and torch load, and a shell.

It stands in for a published base image when no registry can be reached. The same interpreter gives
the same bytes, and so the same image ID, on every build.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from toolkit._images.archive import LayerWriter, image_archive
from toolkit.errors import BadInput

LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")
FOR_TORCH = (
    "libstdc++.so.6",
    "libgcc_s.so.1",
    "libgomp.so.1",
    "librt.so.1",
    "libdl.so.2",
    "libpthread.so.0",
    "libutil.so.1",
)
"""Libraries that wheels load but no file of the interpreter links to."""
EXCLUDED = {
    "test",
    "site-packages",
    "idlelib",
    "tkinter",
    "turtledemo",
    "ensurepip",
    "lib2to3",
    "__pycache__",
}
APPLETS = ("sh", "cat", "ls", "sleep", "id", "env", "true", "false", "ps", "rm", "touch", "find")
FOLDERS = ("usr/bin", "usr/lib", "usr/lib64", "etc", "tmp", "proc", "sys", "dev", "run", "root")
USER = "toolkit"
UID = 10001


def write_base(path: Path, tag: str) -> str:
    """Write a loadable archive of the base image to `path`; returns the image's ID."""
    busybox = shutil.which("busybox")
    if busybox is None:
        raise BadInput(
            "The base image needs a shell: install busybox (`apt-get install busybox-static`), "
            "or name a published base with `--base REPOSITORY@sha256:DIGEST`."
        )
    layer = BytesIO()
    with tarfile.open(fileobj=layer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        _write_layer(LayerWriter(tar), Path(busybox))
    config = {"Env": ["PATH=/usr/bin:/bin", "LANG=C.UTF-8"], "Cmd": ["python3"]}
    layer.seek(0)
    return image_archive(path, tag, [layer], config).id


def _write_layer(writer: LayerWriter, busybox: Path) -> None:
    interpreter = Path(os.path.realpath(sys.executable))
    for folder in (*FOLDERS, str(interpreter.parent)):
        writer.folder(folder, mode=0o1777 if folder == "tmp" else 0o755)
    for name in ("bin", "lib", "lib64"):
        writer.link(name, f"usr/{name}")
    for applet in APPLETS:
        writer.link(f"usr/bin/{applet}", "busybox")
    for name in ("python3", "python"):
        if interpreter != Path("/usr/bin") / name:
            writer.link(f"usr/bin/{name}", str(interpreter))
        alias = interpreter.parent / name
        if alias != interpreter and alias.parent != Path("/usr/bin"):
            writer.link(str(alias), interpreter.name)
    writer.file("etc/passwd", _passwd())
    writer.file("etc/group", f"root:x:0:\n{USER}:x:{UID}:\n".encode())
    files = {**_python_files(interpreter), "/usr/bin/busybox": busybox}
    for inside, outside in sorted(files.items()):
        executable = outside.stat().st_mode & 0o100
        writer.file(inside, outside.read_bytes(), mode=0o755 if executable else 0o644)


def _passwd() -> bytes:
    root = "root:x:0:0::/root:/bin/sh"
    return f"{root}\n{USER}:x:{UID}:{UID}::/tmp:/bin/sh\n".encode()


def _python_files(interpreter: Path) -> dict[str, Path]:
    """Path in the image -> file on this machine, for the interpreter, its library and what they
    load.
    """
    library = Path(sysconfig.get_path("stdlib"))
    files = {str(path): path for path in _library_files(library)}
    files[str(interpreter)] = interpreter
    binaries = [interpreter, *(path for path in files.values() if path.suffix == ".so")]
    shared = {name for binary in binaries for name in _loaded_by(binary)}
    shared |= {str(LIBRARIES / name) for name in FOR_TORCH if (LIBRARIES / name).exists()}
    for name in shared:
        inside = f"/usr{name}" if name.startswith(("/lib/", "/lib64/")) else name
        files[inside] = Path(os.path.realpath(name))
    return files


def _library_files(library: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(library):
        folders[:] = sorted(
            name for name in folders if name not in EXCLUDED and not name.startswith("config-")
        )
        for name in sorted(names):
            if not name.startswith("_tkinter"):
                yield Path(folder) / name


def _loaded_by(binary: Path) -> set[str]:
    """The shared libraries that the dynamic loader finds for a binary."""
    result = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False)
    return set(re.findall(r"(/\S+) \(0x", result.stdout))
