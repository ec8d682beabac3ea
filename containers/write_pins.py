"""Resolve pyproject.toml under constraints.txt for each image; write names, versions and hashes.

    python containers/write_pins.py

The CUDA image takes torch from the package index, whose Linux wheels bring CUDA; the CPU image
takes the CPU build that pip's configuration (an extra index or a folder of wheels) offers.
Downloads nothing: pip reads the metadata of wheels only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
HEADS = {
    "cpu": "CPU stages: torch is the CPU build",
    "cuda": "CUDA stages: torch and the CUDA libraries that it needs",
}


def resolve(kind: str) -> list[dict[str, Any]]:
    """What pip would install."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    with tempfile.TemporaryDirectory() as scratch:
        wanted, report = Path(scratch) / "requirements.txt", Path(scratch) / "report.json"
        wanted.write_text("\n".join(project["dependencies"]) + "\n")
        options = ["--dry-run", "--ignore-installed", "-q", "--report", str(report)]
        constraints = ["-c", str(ROOT / "constraints.txt"), "-r", str(wanted)]
        command = [sys.executable, "-m", "pip", "install", *options, *constraints]
        subprocess.run(command, check=True, env=environment(kind))
        installed: list[dict[str, Any]] = json.loads(report.read_text())["install"]
    return installed


def environment(kind: str) -> dict[str, str]:
    """Without extra places for wheels when torch has to be the index's own, with CUDA."""
    changed = {"PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull} if kind == "cuda" else {}
    return {**os.environ, **changed}


def lines_of(kind: str) -> list[str]:
    """The requirement file's lines."""
    rows = []
    for item in resolve(kind):
        name = item["metadata"]["name"].lower().replace("_", "-")
        digest = item["download_info"]["archive_info"]["hashes"]["sha256"]
        rows.append(f"{name}=={item['metadata']['version']} \\\\\n    --hash=sha256:{digest}")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    head = f"# {HEADS[kind]}. Written by `nox -s image_pins`; Linux x86_64, Python {version}."
    return [head, *sorted(rows)]


if __name__ == "__main__":
    for kind in HEADS:
        path = ROOT / "containers" / f"requirements-{kind}.txt"
        path.write_text("\n".join(lines_of(kind)) + "\n")
        print(path.relative_to(ROOT))
