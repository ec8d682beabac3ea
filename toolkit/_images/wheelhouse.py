"""The folder of wheels from which an image is built, so that the build needs no package index."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from toolkit.errors import BadInput

CHECKOUT = Path(__file__).parents[2]
"""The checkout from which this toolkit runs, if it runs from one."""


def fill_wheelhouse(folder: Path, requirements: Path) -> None:
    """Download the wheels of a requirements file with hashes, unless they are in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    _pip("download", "--require-hashes", "--no-deps", "-d", str(folder), "-r", str(requirements))
    if not list(folder.glob("pip-*.whl")):
        _pip("download", "--no-deps", "-d", str(folder), "pip")


def toolkit_wheel(folder: Path) -> Path:
    """Build the wheel of the checkout from which this toolkit runs."""
    if not (CHECKOUT / "pyproject.toml").exists():
        raise BadInput(
            "This toolkit is not a checkout, so its wheel cannot be built here. Name the wheel it "
            "was installed from: `toolkit images build --wheel sae_toolkit-VERSION.whl`."
        )
    folder.mkdir(parents=True, exist_ok=True)
    _pip("wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(CHECKOUT))
    return next(folder.glob("sae_toolkit-*.whl"))


def check_plugins(packages: Sequence[str]) -> None:
    """Refuse a wheel or a folder that does not exist, before anything is downloaded."""
    for package in packages:
        is_path = package.endswith(".whl") or package.startswith((".", "/"))
        if is_path and not Path(package).exists():
            raise BadInput(f"--with {package}: there is no such file or folder.")


def plugin_wheels(folder: Path, packages: Sequence[str]) -> list[Path]:
    """Wheels of a user's plugins: folders, wheel files, or names in the package index."""
    if not packages:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    for package in packages:
        if package.endswith(".whl") and Path(package).exists():
            shutil.copy(package, folder)
        else:
            _pip("wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), package)
    return sorted(folder.glob("*.whl"))


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _pip(*words: str) -> None:
    command = [sys.executable, "-m", "pip", *words, "-q", "--disable-pip-version-check"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        lines = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
        reason = " ".join(lines) or result.stderr.strip()[-500:]
        raise BadInput(f"`pip {words[0]}` failed: {reason}")
