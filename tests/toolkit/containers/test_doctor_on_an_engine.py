"""What `toolkit doctor` says of a real engine."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from toolkit.containers.images import read_lock

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]


def test_doctor_reports_the_engine_and_what_a_run_in_it_needs(
    engine: Any, image: Path, toolkit: Any, nvidia_smi: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOOLKIT_IMAGES", str(image))
    result = toolkit.run("doctor", "--json", PATH=nvidia_smi(2))
    findings = {one["subject"]: one for one in json.loads(result.stdout)["findings"]}
    found = {subject: one["found"] for subject, one in findings.items()}
    info = engine.info()
    assert re.fullmatch(r"Docker \d+\.\S+ at unix://\S+/docker\.sock", found["container engine"])
    assert info["ServerVersion"] in found["container engine"]
    assert found["container runtimes"] == ", ".join(sorted(info["Runtimes"]))
    assert found["CDI"] == (", ".join(info.get("CDISpecDirs") or ()) or "off")
    assert re.match(
        rf"\d+\.\d GiB free in {re.escape(info['DockerRootDir'])} ", found["room for images"]
    )
    assert found["GPUs"] == "0 (Test GPU, GPU-uuid-0), 1 (Test GPU, GPU-uuid-1)"
    assert found["image cpu"] == "as pinned"
    assert not findings["image cpu"]["cure"]


def test_doctor_names_an_image_that_is_gone_with_the_fix(
    engine: Any, image: Path, toolkit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "images.yaml"
    pin = read_lock(image)["cpu"].image
    lock.write_text(image.read_text().replace(pin, "sha256:" + "0" * 64))
    monkeypatch.setenv("TOOLKIT_IMAGES", str(lock))
    result = toolkit.run("doctor", "--json")
    assert result.returncode == 3
    (gone,) = (
        one for one in json.loads(result.stdout)["findings"] if one["subject"] == "image cpu"
    )
    assert "is not on this engine" in gone["found"]
    assert gone["cure"] == "toolkit images build cpu"
