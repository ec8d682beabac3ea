"""`toolkit cluster render` writes a RayJob with the fields that KubeRay's types require."""

from __future__ import annotations

import pytest
import yaml

REQUIRED = {
    "spec.rayClusterSpec": ("headGroupSpec",),
    "spec.rayClusterSpec.headGroupSpec": ("rayStartParams", "template"),
    "spec.rayClusterSpec.workerGroupSpecs.0": (
        "groupName",
        "minReplicas",
        "maxReplicas",
        "rayStartParams",
        "template",
    ),
    "spec.rayClusterSpec.headGroupSpec.template.spec.containers.0": ("name", "image"),
    "spec.rayClusterSpec.workerGroupSpecs.0.template.spec.containers.0": ("name", "image"),
}
"""Fields without `omitempty` in ray-operator/apis/ray/v1, and those that a container needs."""


def at(data, path: str):
    for step in path.split("."):
        data = data[int(step)] if step.isdigit() else data[step]
    return data


def test_a_ray_job_has_what_is_required(toolkit, toy):
    spec = toy()
    settings = "executors: {ray: {workers: 3, gpus: 0.5, threads: 4}}\n"
    spec.write_text(spec.read_text() + settings)
    options = ("--kind", "kuberay", "--image", "image@sha256:00", "--claim", "disk")
    done = toolkit.run("cluster", "render", spec, *options)
    assert done.returncode == 0, done.stderr
    config, job = yaml.safe_load_all(done.stdout)
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    for path, fields in REQUIRED.items():
        assert set(fields) <= set(at(job, path)), path
    workers = at(job, "spec.rayClusterSpec.workerGroupSpecs.0")
    assert workers["replicas"] == workers["minReplicas"] == workers["maxReplicas"] == 3
    limits = at(workers, "template.spec.containers.0.resources.limits")
    assert limits == {"cpu": "4", "nvidia.com/gpu": "1"}
    assert yaml.safe_load(config["data"]["spec.yaml"]) == yaml.safe_load(spec.read_text())
    mounted = at(workers, "template.spec.containers.0.volumeMounts")
    assert [mount["name"] for mount in mounted] == ["spec", "store"]
    assert config["metadata"]["name"] == job["metadata"]["name"] == "toolkit-toy"


def test_the_store_is_said_once(toolkit, toy):
    options = ("--kind", "kuberay", "--image", "image")
    for more in ((), ("--claim", "disk", "--store", "s3://bucket/store")):
        done = toolkit.run("cluster", "render", toy(), *options, *more)
        assert done.returncode == 2
        assert "either --claim NAME or --store URI" in done.stderr


@pytest.mark.parametrize(
    ("image", "store", "message"),
    [
        ("", ("--claim", "disk"), "--image '': write the name of an image"),
        ("my image", ("--claim", "disk"), "--image 'my image': write"),
        ("image", ("--claim", "My_Disk"), "--claim 'My_Disk': Kubernetes names claims"),
        ("image", ("--claim", ""), "--claim '': Kubernetes names claims"),
        ("image", ("--store", "/disk"), "a folder of a pod ends with it"),
        ("image", ("--store", "file:///disk"), "a folder of a pod ends with it"),
        ("image", ("--store", "s3://KEY:word@bucket/store"), "holds credentials"),
        ("image", ("--store", "s3://bucket/a store"), "without blanks"),
    ],
)
def test_what_a_cluster_would_refuse_or_lose_is_not_rendered(image, store, message, toolkit, toy):
    done = toolkit.run("cluster", "render", toy(), "--kind", "kuberay", "--image", image, *store)
    assert done.returncode == 2
    assert message in done.stderr
    assert "KEY:word" not in done.stdout + done.stderr


@pytest.mark.parametrize("name", ["nowhere", "slurm", "big"])
def test_a_stage_on_an_executor_that_pods_do_not_have_is_refused(name, toolkit, toy):
    spec = toy()
    text = spec.read_text().replace("- id: groups\n", f"- id: groups\n  on: {name}\n")
    spec.write_text(text + "executors: {big: {uses: slurm}, small: {uses: ray}}\n")
    options = ("--kind", "kuberay", "--image", "image", "--claim", "disk")
    done = toolkit.run("cluster", "render", spec, *options)
    assert done.returncode == 2
    assert f"stages.1.on: The pods have no executor '{name}'" in done.stderr
    assert "local, ray, small" in done.stderr
    spec.write_text(spec.read_text().replace(f"on: {name}", "on: small"))
    assert toolkit.run("cluster", "render", spec, *options).returncode == 0


def test_each_executor_that_uses_ray_has_a_group_of_workers(toolkit, toy):
    spec = toy()
    small = "Small_1: {uses: ray, with: {workers: 2, threads: 1}}"
    entries = f"ray: {{with: {{workers: 3, gpus: 1}}}}, {small}, slim: {{uses: docker}}"
    spec.write_text(spec.read_text() + f"executors: {{{entries}}}\n")
    options = ("--kind", "kuberay", "--image", "image", "--claim", "disk")
    done = toolkit.run("cluster", "render", spec, *options)
    assert done.returncode == 0, done.stderr
    groups = at(list(yaml.safe_load_all(done.stdout))[1], "spec.rayClusterSpec.workerGroupSpecs")
    assert [(group["groupName"], group["replicas"]) for group in groups] == [
        ("workers", 3),
        ("small-1", 2),
    ]
    limits = [at(group, "template.spec.containers.0.resources.limits") for group in groups]
    assert limits == [{"cpu": "1", "nvidia.com/gpu": "1"}, {"cpu": "1"}]
