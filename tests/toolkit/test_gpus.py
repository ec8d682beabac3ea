"""A GPU is chosen by physical index or UUID, among those that CUDA_VISIBLE_DEVICES leaves."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from toolkit._run.workers import WorkerPool, _check_gpus
from toolkit.errors import BadInput
from toolkit.executors.gpus import Gpu, choose_gpus, installed_gpus, unresolved_gpus, visible_gpus
from toolkit.executors.interface import GpuCount, WorkerLimits, gpu_request


def gpu(index: int) -> Gpu:
    return Gpu(
        index=index,
        uuid=f"GPU-{index}a",
        pci=f"0:{index}",
        name="H200",
        driver="9",
        total_bytes=2,
        free_bytes=1,
    )


GPUS = [gpu(index) for index in (0, 4, 5, 6)]


@pytest.mark.parametrize(
    ("request_", "visible", "expected"),
    [
        ("5", None, [5]),
        ("5,0", None, [5, 0]),
        ("GPU-4a", None, [4]),
        ("GPU-4", None, [4]),
        ("5", "4,5,6", [5]),
        ("6,4", "GPU-4a,GPU-6a", [6, 4]),
        ("all", None, [0, 4, 5, 6]),
        ("all", "6,4", [6, 4]),
        ("count:2", "6,4,5", [6, 4]),
        ("none", None, []),
        ("none", "4", []),
    ],
)
def test_gpus_are_chosen(request_, visible, expected):
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert [gpu.index for gpu in choose_gpus(request_, GPUS, environ)] == expected


@pytest.mark.parametrize(
    ("request_", "environ", "message"),
    [
        ("one", {}, "write physical indices or UUIDs, such as `--gpu 5`"),
        ("-1", {}, "write physical indices"),
        ("", {}, "--gpu '': write physical indices"),
        ("5,", {}, "write physical indices"),
        ("²", {}, "write physical indices"),
        ("count:abc", {}, "write physical indices"),
        ("count:0", {}, "write physical indices"),
        ("count:-1", {}, "write physical indices"),
        ("4,4", {}, "name each GPU once"),
        ("4,GPU-4a", {}, "name each GPU once"),
        ("7", {}, "there is no such GPU. Available GPUs: 0 (H200, GPU-0a), 4 (H200"),
        ("GPU-9", {}, "there is no such GPU"),
        (
            "0",
            {"CUDA_VISIBLE_DEVICES": "4,5"},
            "CUDA_VISIBLE_DEVICES='4,5' hides it. Available GPUs",
        ),
        ("4", {"CUDA_VISIBLE_DEVICES": ""}, "offers no GPU"),
        ("all", {"CUDA_VISIBLE_DEVICES": ""}, "offers no GPU"),
        ("count:3", {"CUDA_VISIBLE_DEVICES": "4,5"}, "Available GPUs: 4 (H200"),
    ],
)
def test_what_cannot_be_is_refused(request_, environ, message):
    with pytest.raises(BadInput, match="--gpu") as error:
        choose_gpus(request_, GPUS, environ)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("request_", "uuids"),
    [("5", ["5"]), ("2,GPU-a", ["2", "GPU-a"]), ("count:2", ["0", "1"]), ("none", [])],
)
def test_a_rendered_line_names_gpus_that_are_elsewhere(request_, uuids):
    assert [gpu.uuid for gpu in unresolved_gpus(request_)] == uuids


def test_a_request_on_a_machine_without_gpus_is_refused():
    with pytest.raises(BadInput, match="Use `--gpu none` for the CPU"):
        choose_gpus("0", [], {})


def test_what_the_drivers_tool_says_is_read(nvidia_smi, monkeypatch):
    monkeypatch.setenv("PATH", nvidia_smi(2))
    first, second = installed_gpus()
    assert (first.index, second.uuid, second.driver) == (0, "GPU-uuid-1", "999.1")
    assert (first.total_bytes, first.free_bytes) == (81920 << 20, 81000 << 20)
    assert visible_gpus([first, second], {"CUDA_VISIBLE_DEVICES": "1,7"}) == [second]


@pytest.mark.parametrize(
    ("answer", "number", "version"), [(0, 13000, "13.0"), (0, 12040, "12.4"), (999, 0, "")]
)
def test_the_drivers_cuda_version_is_asked_of_the_driver(
    answer: int, number: int, version: str, nvidia_smi, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(target: Any) -> int:
        target._obj.value = number
        return answer

    libraries: list[str] = []

    def load(name: str) -> SimpleNamespace:
        libraries.append(name)
        return SimpleNamespace(cuDriverGetVersion=ask)

    monkeypatch.setattr("toolkit.executors.gpus.ctypes.CDLL", load)
    monkeypatch.setenv("PATH", nvidia_smi(2))
    assert [gpu.cuda for gpu in installed_gpus()] == [version, version]
    assert libraries == ["libcuda.so.1"]


def test_without_a_cuda_driver_its_version_is_left_empty(
    nvidia_smi, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr("toolkit.executors.gpus.ctypes.CDLL", load)
    monkeypatch.setenv("PATH", nvidia_smi(1))
    assert [gpu.cuda for gpu in installed_gpus()] == [""]


@pytest.mark.parametrize("field", ["uuid", "pci", "name"])
def test_a_worker_whose_card_differs_in_one_thing_is_refused(field: str) -> None:
    other = replace(gpu(4), **{field: "another"})
    with pytest.raises(BadInput, match=r"docker-0 should have 4 .*, but sees 4 .*Nothing was run"):
        _check_gpus("docker-0", [gpu(4)], [other])
    _check_gpus("docker-0", [gpu(4)], [replace(gpu(4), index=0, free_bytes=0)])


@pytest.mark.parametrize("output", ["echo No devices were found", "exit 9", "echo a, b, c"])
def test_a_tool_that_lists_nothing_means_no_gpu(output, tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{output}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert installed_gpus() == []


def test_a_params_field_is_written_as_the_option():
    choices = ([2, "GPU-5"], "all", "none", GpuCount(count=2), None)
    assert [*map(gpu_request, choices)] == ["2,GPU-5", "all", "none", "count:2", None]


def test_free_memory_is_that_of_the_fullest_gpu_of_a_worker_or_its_share_of_the_machine() -> None:
    """At most its limit: a container sees the memory of the whole machine."""
    pool = SimpleNamespace(_requests=["r1", "r2"])

    def free(*gpu_bytes: int, on_cpu: bool = False, limit: int | None = None) -> tuple[str, int]:
        gpus = [SimpleNamespace(free_bytes=count) for count in gpu_bytes]
        request = SimpleNamespace(limits=WorkerLimits(memory_bytes=limit))
        hello = SimpleNamespace(gpus=gpus, free_bytes=1000)
        slot = SimpleNamespace(hello=hello, request=request)
        return WorkerPool.free_memory(pool, slot, on_cpu=on_cpu)  # type: ignore[arg-type]

    assert free(70, 50) == ("cuda", 50)
    assert free(70, on_cpu=True) == ("cpu", 500)
    assert free() == ("cpu", 500)
    assert free(limit=24) == ("cpu", 24)
    assert free(limit=2000) == ("cpu", 500)
    assert free(70, limit=24) == ("cuda", 70)


@pytest.mark.parametrize("request_", ["", "count:abc", "count:0", "count:-1", "0,0", "one"])
def test_a_request_is_checked_alike_where_gpus_are_and_where_a_line_is_rendered(
    request_: str,
) -> None:
    for choose in (lambda: choose_gpus(request_, GPUS, {}), lambda: unresolved_gpus(request_)):
        with pytest.raises(BadInput, match=r"^--gpu .*(write physical indices|name each GPU once)"):
            choose()


@pytest.mark.parametrize("words", [[], ["--dry-run"], ["--on", "docker", "--dry-run"]])
@pytest.mark.parametrize("request_", ["", "count:0"])
def test_a_request_that_names_no_gpu_does_not_run_on_the_cpu(
    request_: str, words: list[str], toolkit: Any, toy: Any
) -> None:
    result = toolkit.run("run", toy(), "--gpu", request_, *words)
    assert result.returncode == 2
    assert "write physical indices or UUIDs" in result.stderr
