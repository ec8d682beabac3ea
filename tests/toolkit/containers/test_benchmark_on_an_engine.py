"""`benchmarks/containers.py --tiny` goes through every step; its figures say nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]


def test_tiny_prints_both_and_what_a_warm_container_adds(
    engine: Any, image: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOOLKIT_IMAGES", str(image))
    command = [sys.executable, str(root / "benchmarks" / "containers.py"), "--tiny"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    heads, local, docker, added = done.stdout.splitlines()
    assert heads.split() == ["executor", "worker", "ready,", "s", "a", "step,", "ms"]
    assert re.fullmatch(r"local +\d+\.\d\d +\d+\.\d", local)
    assert re.fullmatch(r"docker +\d+\.\d\d +\d+\.\d", docker)
    assert re.match(r"a warm container adds -?\d+\.\d ms a step", added)
    assert engine.containers.list(all=True) == []
