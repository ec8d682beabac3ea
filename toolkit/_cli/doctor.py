"""`toolkit doctor`: check this machine and the store; `--clean` removes what killed runs left
behind.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolkit._cli._text import json_option, size, store_option
from toolkit.executors.gpus import installed_gpus
from toolkit.terminal import counted, echo

if TYPE_CHECKING:
    from toolkit_store import Store

_TORCH = (
    "import json, torch; c = torch.cuda; n = c.device_count() if c.is_available() else 0; facts = "
    "{'version': torch.__version__, 'cuda': torch.version.cuda, 'devices': [c.get_device_name(i) "
    "for i in range(n)]}; print(json.dumps(facts))"
)
_LOW = 2 * 2**30


@dataclass(frozen=True)
class Diagnosis:
    """The result of one check. `cure` says how to fix a problem; it is empty if there is none."""

    subject: str
    found: str
    cure: str = ""


@click.command("doctor")
@click.option(
    "--clean", is_flag=True, help="Remove orphan rows and files, and job folders of finished steps."
)
@json_option
@store_option
def command(clean: bool, as_json: bool, store: str | None) -> None:
    """Check this machine and the store. Exit code 0: no problems; 3: problems, each printed with
    its fix.
    """
    from toolkit._run.run_folder import store_folder

    folder = store_folder(store)
    removed = _clean(folder) if clean else {}
    findings = list(examine(folder))
    if as_json:
        echo(
            json.dumps(
                {"removed": removed, "findings": [asdict(finding) for finding in findings]},
                indent=1,
            )
        )
    else:
        echo(
            "\n".join(
                [
                    *(f"removed  {what}: {count}" for what, count in removed.items()),
                    *map(_line, findings),
                ]
            )
        )
    if any(finding.cure for finding in findings):
        sys.exit(3)


def _line(finding: Diagnosis) -> str:
    return f"{'PROBLEM' if finding.cure else 'ok':<7}  {finding.subject}: {finding.found}" + (
        f"\n         -> {finding.cure}" if finding.cure else ""
    )


def examine(store: Path) -> Iterator[Diagnosis]:
    """All checks to make before a long run, those of the machine first."""
    yield _python()
    yield torch_build()
    yield _gpus()
    yield from _containers()
    yield from _packages()
    yield from _disk(store)
    yield _hugging_face()
    yield from _store(store)


def _python() -> Diagnosis:
    version = ".".join(map(str, sys.version_info[:3]))
    cure = "" if (3, 11) <= sys.version_info[:2] <= (3, 13) else "Use Python 3.11, 3.12 or 3.13."
    return Diagnosis("python", version, cure)


def torch_build() -> Diagnosis:
    """The torch build, examined in a separate process so that a broken build cannot crash the
    doctor.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-c", _TORCH], capture_output=True, text=True, timeout=180
        )
        facts = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return Diagnosis(
            "torch",
            "importing it takes more than 180 s",
            "Check the disk and the GPU driver; then: nvidia-smi",
        )
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return Diagnosis(
            "torch",
            f"cannot be imported: {last}",
            "Install it again: python -m pip install --force-reinstall torch",
        )
    devices = ", ".join(facts["devices"]) or "no GPU visible"
    return Diagnosis("torch", f"{facts['version']} (CUDA {facts['cuda'] or 'none'}; {devices})")


def _gpus() -> Diagnosis:
    gpus = ", ".join(gpu.describe() for gpu in installed_gpus())
    return Diagnosis("GPUs", gpus or "none (nvidia-smi lists none)")


def _containers() -> Iterator[Diagnosis]:
    from toolkit._images.diagnose import examine_containers

    for fact in examine_containers():
        yield Diagnosis(fact.subject, fact.text, fact.cure)


def _packages() -> Iterator[Diagnosis]:
    import importlib.metadata as metadata

    from packaging.requirements import Requirement

    try:
        needed = [Requirement(text) for text in metadata.requires("sae-toolkit") or ()]
    except metadata.PackageNotFoundError:
        yield Diagnosis("packages", "sae-toolkit runs from a checkout; requirements not compared")
        return
    wrong = 0
    for requirement in needed:
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            version = ""
        if not version or not requirement.specifier.contains(version, prereleases=True):
            wrong += 1
            versions = f"{version or 'missing'}, needed {requirement.specifier or 'any'}"
            yield Diagnosis(requirement.name, versions, f"python -m pip install '{requirement}'")
    if not wrong:
        yield Diagnosis("packages", f"{len(needed)} requirements met")


def _disk(store: Path) -> Iterator[Diagnosis]:
    for name, folder, low in (
        ("disk of the store", _existing(store), _LOW),
        ("/dev/shm", Path("/dev/shm"), 0),
    ):
        if folder.exists():
            free = shutil.disk_usage(folder).free
            cure = "Free space, or give --store a folder on another disk." if free < low else ""
            yield Diagnosis(name, f"{size(free)} free at {folder}", cure)


def _existing(path: Path) -> Path:
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _hugging_face() -> Diagnosis:
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    folder = _existing(cache)
    cure = (
        ""
        if os.access(folder, os.W_OK)
        else "Make it writable, or point HF_HOME to a folder that is."
    )
    return Diagnosis(
        "Hugging Face cache",
        f"{cache} ({{'exists' if cache.exists() else 'does not exist yet'}}; "
        f"{size(_free(folder))} free)",
        cure,
    )


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _store(folder: Path) -> Iterator[Diagnosis]:
    from toolkit._run.run_folder import resume_command
    from toolkit.errors import ToolkitError
    from toolkit_store import open_store

    if not folder.exists():
        yield Diagnosis("store", f"none yet at {folder}; the first run creates it")
        return
    try:
        store = open_store(folder, read_only=True)
        orphans, sizes, stale = store.orphans(), store.sizes(), stale_jobs(store)
        dead = _dead(store)
    except ToolkitError as error:
        yield Diagnosis("store", "cannot be used", str(error))
        return
    yield Diagnosis(
        "store", f"{folder}: {counted(len(sizes), 'table')}, {size(sum(sizes.values()))}"
    )
    clean = "toolkit doctor --clean"
    rows = ", ".join(f"{count} in {name}" for name, count in orphans.items())
    yield Diagnosis("orphan rows", rows or "none", clean if orphans else "")
    yield Diagnosis(
        "job folders of finished steps",
        str(len(stale)) if stale else "none",
        clean if stale else "",
    )
    for run in dead:
        yield Diagnosis(
            f"run {run}",
            "was cut off; its process is gone",
            f"Continue with: {resume_command(run, folder)}",
        )


def _dead(store: Store) -> list[str]:
    from toolkit._query.run import alive

    return [row.run for row in store.run_states() if row.state == "running" and not alive(row)]


def stale_jobs(store: Store) -> list[Path]:
    """Job folders of committed steps. Those of uncommitted steps are kept, since a continued run
    may use them.
    """
    jobs = sorted(path for path in (store.folder / "runs").glob("*/jobs/*") if path.is_dir())
    committed = store.has(path.name for path in jobs)
    done = {row.run for row in store.run_states() if row.state == "done"}
    return [path for path in jobs if path.name in committed or path.parent.parent.name in done]


def _clean(folder: Path) -> dict[str, Any]:
    """Hold the lease throughout, so that no run commits meanwhile."""
    from toolkit_store import open_store

    if not folder.exists():
        return {}
    store = open_store(folder)
    with store.writer():
        stale = stale_jobs(store)
        for path in stale:
            shutil.rmtree(path, ignore_errors=True)
        report = store.clean()
    return {
        **{f"orphan rows of {name}": count for name, count in report.rows.items()},
        "job folders": len(stale),
        "store files": report.files,
        "bytes": report.bytes,
    }
