"""The executor `ray` without Ray: params, the words of a dry run, what is refused."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest

from toolkit.errors import BadInput
from toolkit.executors.interface import WorkerEnd, WorkerRequest
from toolkit.executors.protocol import Done
from toolkit_ray import _connection, _start, _worker
from toolkit_ray._actor import WorkerActor, _LocalFolders
from toolkit_ray._params import RayParams


@pytest.mark.parametrize(
    ("params", "reserved"),
    [
        ({}, {"CPU": 1}),
        ({"gpus": 1}, {"GPU": 1}),
        ({"gpus": 0.5, "cpus": 2}, {"GPU": 0.5, "CPU": 2}),
        ({"cpus": 0, "resources": {"spot": 1}}, {"spot": 1}),
        ({"memory": 1000}, {"CPU": 1, "memory": 1000}),
    ],
)
def test_an_actor_reserves(params, reserved):
    assert RayParams(**params).reserved() == reserved


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"resources": {"spot": -1}}, "greater than or equal to 0"),
        ({"resources": {"GPU": 1}}, "write 'gpus' beside 'resources', not 'GPU' in it"),
        ({"resources": {"CPU": 1}}, "write 'cpus' beside"),
        ({"resources": {"memory": 1}}, "write 'memory' beside"),
        ({"labels": {"a b": "c"}}, "'a b: c' is no label"),
        ({"labels": {"zone": "in(a,b)"}}, "is no label"),
        ({"labels": {"zone": "!a"}}, "is no label"),
        ({"gpus": 1.5}, "a whole number or a fraction of one GPU, not 1.5"),
    ],
)
def test_params_that_ray_would_refuse_are_refused_at_check(params, message):
    with pytest.raises(ValueError, match=message):
        RayParams(**params)


def test_labels_of_ray_and_of_a_domain_are_taken():
    labels = {"ray.io/accelerator-type": "H200", "zone": "eu_1.a", "none": ""}
    assert RayParams(labels=labels).labels == labels


def node(alive: bool = True, labels: dict[str, str] | None = None, **resources: float):
    return {"Alive": alive, "Resources": resources, "Labels": labels or {}}


@pytest.mark.parametrize(
    "nodes",
    [
        [],
        [node(CPU=8)],
        [node(GPU=1, alive=False)],
        [node(GPU=0.5), node(GPU=0.5)],
    ],
)
def test_what_no_node_has_is_refused(nodes):
    cluster = SimpleNamespace(nodes=lambda: nodes)
    with pytest.raises(BadInput, match=r"No node of the cluster can hold.*`executors\.large`"):
        _start._check_feasible(cluster, RayParams(gpus=1), "large")


def test_what_a_node_has_is_not_refused():
    nodes = [node(CPU=1), node(GPU=2, labels={"zone": "b"})]
    cluster = SimpleNamespace(nodes=lambda: nodes)
    _start._check_feasible(cluster, RayParams(gpus=1, labels={"zone": "b"}), "ray")
    with pytest.raises(BadInput, match="zone"):
        _start._check_feasible(cluster, RayParams(gpus=1, labels={"zone": "a"}), "ray")


@pytest.mark.parametrize("error", [TypeError, ValueError])
def test_an_actor_that_ray_refuses_is_reported_with_the_executor(error, monkeypatch, tmp_path):
    def refuse(*_args: object, **_options: object) -> None:
        raise error("runtime_env['pip'] must be of type str\nor List[str]")

    cluster = SimpleNamespace(nodes=lambda: [node(CPU=1)], remote=refuse)
    monkeypatch.setattr(_start, "connect", lambda: cluster)
    folders = {name: tmp_path / name for name in ("folder", "jobs", "inputs")}
    request = WorkerRequest(name="large-0", executor="large", **folders)
    words = r"refuses the actor: runtime_env\['pip'\] must be of type str or .* `executors\.large`"
    with pytest.raises(BadInput, match=words):
        _start.start(RayParams(), request)


def test_a_refusal_does_not_hold_the_address(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.1.2.3:6379")
    message = _connection._refusal(ConnectionError("nothing listens at 10.1.2.3:6379"))
    assert "10.1.2.3" not in message
    assert "RAY_ADDRESS" in message


@pytest.mark.parametrize(
    "text",
    [
        "GCS at 192.0.2.2:1 is gone",
        "the actor is unavailable: ipv4:192.0.2.2:4567: Broken pipe",
        "Ray cluster at [fe80::1:2]:6379, ipv6:[fe80::1:2]:80",
        "ip=192.0.2.2, node id abc",
        "head.example:6379 does not answer, nor head.example",
    ],
)
def test_no_address_stays_in_a_text(monkeypatch, text):
    monkeypatch.setenv("RAY_ADDRESS", "head.example:6379")
    cleaned = _connection.without_addresses(text)
    assert "ADDRESS" in cleaned
    for secret in ("192.0.2.2", "fe80", "head.example", "4567"):
        assert secret not in cleaned
    assert _connection.without_addresses("version 2.60.0 took 1:30.") == "version 2.60.0 took 1:30"


@pytest.mark.parametrize("word", ["auto", "local", ""])
def test_a_word_in_place_of_an_address_stays_in_texts(monkeypatch, word):
    monkeypatch.setenv("RAY_ADDRESS", word)
    assert _connection.without_addresses("automatic local mode") == "automatic local mode"
    assert _connection.is_local() is (word != "auto")


def test_an_address_at_which_nothing_answers_is_refused_at_once():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        with pytest.raises(ConnectionError, match="nothing answers at RAY_ADDRESS") as caught:
            _connection._check_address(f"127.0.0.1:{port}")
        assert "127.0.0.1" not in str(caught.value)
        free.listen()
        _connection._check_address(f"127.0.0.1:{port}")
    _connection._check_address("auto")
    with pytest.raises(ValueError, match="Ray Client"):
        _connection._check_address("ray://head:10001")


def test_a_runtime_env_that_cannot_be_set_up_is_named():
    error = type("RuntimeEnvSetupError", (Exception,), {})(
        "Failed\n\nTraceback\nValueError: no conda.\n"
    )
    assert _worker._loss(error).text == "its runtime_env cannot be set up: ValueError: no conda"


@pytest.mark.slow
def test_a_dry_run_does_not_import_ray(toy):
    spec = toy()
    spec.write_text(spec.read_text() + "executors: {ray: {gpus: 0.5, labels: {zone: a}}}\n")
    code = (
        "import sys; from toolkit._cli import main\n"
        f"try: main(['run', {str(spec)!r}, '--on', 'ray', '--dry-run'])\n"
        "finally: assert 'ray' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '# ray-0: an actor with {"GPU": 0.5, "labels": {"zone": "a"}}' in done.stdout


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_the_run_says_so(toolkit, toy):
    done = toolkit.run("run", toy(), "--on", "ray")
    assert done.returncode == 2
    assert "pip install 'sae-toolkit[ray]'" in done.stderr


@pytest.mark.ray
def test_news_are_kept_until_the_host_has_them(tmp_path):
    """An answer that got lost is given again; the worker is the real one."""
    actor = WorkerActor("w", {}, {str(tmp_path / "jobs"): "jobs"}, False)
    try:
        actor.send({"type": "open", "plugins": [], "secrets": {}}, {})
        news = actor.news(0, 0, 60.0)
        again = actor.news(0, 0, 60.0)
        assert news.events[0] == again.events[0]
        assert news.events[0][1]["event"] in {"hello", "alive"}
        assert actor.news(again.events[-1][0], 0, 30.0).events[0][0] > again.events[-1][0]
        actor._worker.send({"type": "close"})
        while actor.news(1 << 40, 0, 60.0).ended is None:
            continue
        assert actor.news(1 << 40, 0, 0.0).ended == WorkerEnd("exit status 0")
    finally:
        actor.stop(True)
    assert not actor._scratch.exists()


@pytest.mark.ray
def test_results_travel_with_their_event_and_are_removed_when_the_host_has_them(
    tmp_path, monkeypatch
):
    """Small results are in the answer; larger ones are asked for; both stay until the next call."""
    (tmp_path / "jobs" / "k1").mkdir(parents=True)
    actor = WorkerActor("w", {}, {str(tmp_path / "jobs"): "jobs"}, False)
    folder = actor._scratch / "jobs" / ".k1-0"
    inputs = actor._scratch / "jobs" / "k1"
    try:
        job = {
            "type": "job",
            "job": "k1",
            "folder": str(tmp_path / "jobs" / ".k1-0"),
            "kind": "stage",
            "part": "no.such",
        }
        open_message = {"type": "open", "plugins": [], "secrets": {}}
        actor.send(open_message, {})
        actor.send(job, {str(tmp_path / "jobs" / "k1" / "input.arrow"): b"rows"})
        assert (inputs / "input.arrow").read_bytes() == b"rows"
        number = ended(actor, "failed")
        assert folder.is_dir()
        actor.news(number, 0, 0.0)
        assert not folder.exists()
        assert inputs.exists(), "the job may be tried again"

        folder.mkdir()
        (folder / "done.json").write_text("{}")
        (folder / "samples.arrow").write_bytes(b"rows")
        done = Done(job="k1", seconds=0.0, rows={})
        actor._jobs["k1"] = _LocalFolders(folder, inputs)
        monkeypatch.setattr(actor._worker, "events", lambda: iter([done]))
        monkeypatch.setattr(actor._worker, "stop", lambda **now: WorkerEnd("exit status 0"))
        actor._events.clear()
        actor._listen()
        files = {"done.json": b"{}", "samples.arrow": b"rows"}
        assert actor.news(0, 0, 0.0).results == {1: files}
        monkeypatch.setattr("toolkit_ray._actor.MAX_RESULTS", 3)
        assert actor.news(0, 0, 0.0).results == {}
        assert actor.files(1) == files
        actor.news(1, 0, 0.0)
        assert not folder.exists()
        assert not inputs.exists()
    finally:
        monkeypatch.undo()
        actor.stop(True)
    assert actor.news(1, 0, 0.0).log == b"", "a call may come after the end"


def ended(actor: WorkerActor, kind: str) -> int:
    """The number of the event of this kind, once it is there."""
    while True:
        for number, event in actor.news(0, 0, 60.0).events:
            if event["event"] == kind:
                return number
