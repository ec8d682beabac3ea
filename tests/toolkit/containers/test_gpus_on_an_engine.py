"""GPUs of containers: asked for by UUID; refused with a sentence where the engine has none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from toolkit.errors import BadInput
from toolkit.executors.gpus import Gpu
from toolkit.executors.interface import WorkerRequest
from toolkit_docker._params import Docker
from toolkit_docker._start import start

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

CARD = Gpu(
    index=5,
    uuid="GPU-5e5e5e5e-0000-0000-0000-000000000005",
    pci="00000000:5E:00.0",
    name="a card",
    driver="1",
    total_bytes=80 << 30,
    free_bytes=80 << 30,
)


def request_of(folder: Path, *gpus: Gpu) -> WorkerRequest:
    return WorkerRequest(
        name="docker-1",
        executor="docker",
        folder=folder / "workers",
        jobs=folder / "jobs",
        inputs=folder / "inputs",
        gpus=gpus,
    )


def test_an_engine_without_the_runtime_refuses_with_the_fix(
    engine: Any, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOOLKIT_IMAGES", str(image))
    with pytest.raises(BadInput, match=r"could not select device driver.*NVIDIA Container Toolkit"):
        start(Docker(image="cpu"), request_of(tmp_path, CARD))
    assert engine.containers.list(all=True) == []


def test_cdi_names_reach_the_engine_and_the_record(
    engine_with_gpus: Any,
    image_on_engine_with_gpus: Path,
    toolkit: Any,
    toy: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Debian's engine is older than CDI: what it refuses is the device that the spec names."""
    monkeypatch.setenv("TOOLKIT_IMAGES", str(image_on_engine_with_gpus))
    spec = toy()
    spec.write_text(spec.read_text() + "executors: {docker: {image: cpu, cdi: [x.org/gpu=5]}}\n")
    result = toolkit.run("run", spec, "--on", "docker")
    assert result.returncode == 2
    assert "the engine knows no such CDI device" in result.stderr
    assert "from version 25 on" in result.stderr
    (manifest,) = (toolkit.store / "runs").glob("*/manifest.json")
    (pool,) = json.loads(manifest.read_text())["executors"]
    assert pool["cdi"] == ["x.org/gpu=5"]
    assert engine_with_gpus.containers.list(all=True) == []


def test_the_container_is_given_the_card_by_its_uuid(
    engine_with_gpus: Any, image_on_engine_with_gpus: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("TOOLKIT_IMAGES", str(image_on_engine_with_gpus))
    worker = start(Docker(image="cpu"), request_of(tmp_path, CARD))
    try:
        container = engine_with_gpus.containers.list()[0]
        devices = container.attrs["HostConfig"]["DeviceRequests"]
        assert [request["DeviceIDs"] for request in devices] == [[CARD.uuid]]
        _, output = container.exec_run(["sh", "-c", "cat /proc/1/environ"])
        environment = output.decode().split("\0")
        assert f"NVIDIA_VISIBLE_DEVICES={CARD.uuid}" in environment
        assert not [line for line in environment if line.startswith("CUDA_VISIBLE_DEVICES")]
    finally:
        worker.stop(now=True)
    assert engine_with_gpus.containers.list(all=True) == []


def test_a_worker_that_sees_another_card_stops_the_run(
    engine_with_gpus: Any,
    image_on_engine_with_gpus: Path,
    toolkit: Any,
    toy: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The host has the card; the container, whose hook is a stand-in, sees none."""
    tools = tmp_path / "bin"
    tools.mkdir()
    fields = [CARD.index, CARD.uuid, CARD.pci, CARD.name, CARD.driver, 81920, 81920]
    line = ", ".join(map(str, fields))
    (tools / "nvidia-smi").write_text(f"#!/bin/sh\necho '{line}'\n")
    (tools / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.setenv("TOOLKIT_IMAGES", str(image_on_engine_with_gpus))
    spec = toy()
    spec.write_text(spec.read_text() + "executors: {docker: {image: cpu, gpus: [5]}}\n")
    result = toolkit.run("run", spec, "--on", "docker")
    assert result.returncode == 2
    assert CARD.uuid in result.stderr
    assert "no GPU" in result.stderr
