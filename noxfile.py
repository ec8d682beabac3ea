"""Every check of this repository, one session each. `nox` runs the tests; `nox --list` says what
else there is.

Most sessions need the same two gigabytes (torch), so they share one environment in `.nox/shared`
instead of one each: they run without a virtual environment of nox's own (`venv_backend="none"`) and
call that one's programs. It is filled again when pyproject.toml or constraints.txt change. Two that
need further packages have an environment that only adds those. The *built wheel* is what is
installed, never the checkout, and `PYTHONSAFEPATH` keeps the working folder off the path of every
process that a test starts.
"""

import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nox

nox.needs_version = ">=2025.2"
nox.options.sessions = ["tests"]
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_external_run = True

ROOT = Path(__file__).parent.resolve()
SHARED = ROOT / ".nox" / "shared"
BIN = SHARED / "bin"
CONSTRAINTS = ROOT / "constraints.txt"
PROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
ENV = {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONSAFEPATH": "1",
    "COLUMNS": "100",
}
PEERS = ["datasets==5.2.0", "sae-lens==6.54.12", "statsmodels==0.15.0"]
TRACKERS = ["alembic==1.20.1", "mlflow-skinny==3.17.2", "sqlalchemy==2.1.9", "wandb==0.30.0"]
INTERP_ENGINE = "interp-engine==1.14.2"
RAY = "ray==2.60.0"
OBJECT_STORAGE = "moto[server]==5.2.5"
TORCH_PIN = next(
    line for line in CONSTRAINTS.read_text().splitlines() if line.startswith("torch==")
)


def _group(*names: str) -> list[str]:
    return list(nox.project.dependency_groups(PROJECT, *names))


def _shared(session: nox.Session) -> dict[str, str]:
    """Fill the shared environment, install today's wheel in it, and return the variables to run
    with.
    """
    stamp = SHARED / "stamp"
    wanted = hashlib.sha256(
        (ROOT / "pyproject.toml").read_bytes() + CONSTRAINTS.read_bytes() + sys.version.encode()
    ).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        needs = PROJECT["project"]["dependencies"] + _group(
            "test", "pictures", "types", "docs", "wheel"
        )
        _run(session, sys.executable, "-m", "venv", "--clear", str(SHARED))
        python = str(BIN / "python")
        _run(session, python, "-m", "pip", "install", "-q", "-c", str(CONSTRAINTS), *needs)
        stamp.write_text(wanted)
    wheel = _installed_wheel(session)
    return {**ENV, "TOOLKIT_WHEEL": str(wheel), "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}


_built: list[Path] = []


def _installed_wheel(session: nox.Session) -> Path:
    """Build the wheel, once in each call of nox, and install it if it is not the one that is
    installed: another session may be using that.
    """
    if not _built:
        folder, installed = ROOT / ".nox" / "wheel", SHARED / "wheel.sha256"
        python = str(BIN / "python")
        with tempfile.TemporaryDirectory() as scratch:
            build = ("-m", "build", "--no-isolation", "--wheel", "--outdir", scratch)
            _run(session, python, *build)
            (made,) = Path(scratch).glob("*.whl")
            digest = hashlib.sha256(made.read_bytes()).hexdigest()
            if not installed.exists() or installed.read_text() != digest:
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
                forced = ("--no-deps", "--force-reinstall", str(shutil.copy(made, folder)))
                _run(session, python, "-m", "pip", "install", "-q", *forced)
                installed.write_text(digest)
        _built.extend(folder.glob("*.whl"))
    return _built[0]


def _run(session: nox.Session, *words: str) -> None:
    """Run a program from outside of the session's own environment, if it has one."""
    session.run(*words, external=True, silent=True)


def _pytest(session: nox.Session, *args: str, **env: str) -> None:
    # The program `pytest`, not `python -m pytest`: the latter puts the checkout on the path.
    program = str(BIN / "pytest")
    given = {**_shared(session), **env}
    session.run(program, *_pytest_options(session), *args, *session.posargs, env=given)


def _pytest_options(session: nox.Session) -> list[str]:
    """Options of every session. Each remembers its failed tests by itself, since some sessions run
    at the same time.
    """
    return ["--import-mode=importlib", "-o", f"cache_dir={ROOT / '.nox' / 'cache' / session.name}"]


def _extend_shared(session: nox.Session) -> None:
    """Let the session's own environment find all that the shared one has. What it installs comes
    first, and the shared one stays as it is.
    """
    _shared(session)
    (shared,) = SHARED.glob("lib/python*/site-packages")
    (own,) = Path(session.virtualenv.location).glob("lib/python*/site-packages")
    (own / "shared.pth").write_text(f"{shared}\n")


def _extended_pytest(session: nox.Session, *args: str) -> None:
    # PYTHONSAFEPATH in ENV keeps the checkout off the path here.
    words = ("python", "-m", "pytest", *_pytest_options(session))
    session.run(*words, *args, *session.posargs, env=ENV)


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """Test the built wheel: no network, no GPU, a few minutes."""
    _pytest(session, "-n", "2")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, formatting and spelling."""
    session.install("-c", str(CONSTRAINTS), *_group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("codespell")


@nox.session(venv_backend="none")
def types(session: nox.Session) -> None:
    """Check types with mypy, strict, in the checkout."""
    _shared(session)
    session.run(str(BIN / "mypy"), *session.posargs)


@nox.session(venv_backend="none")
def docs(session: nox.Session) -> None:
    """Check that the written reference is what the code says, and that links lead somewhere. `nox
    -s docs -- -r` rewrites it.
    """
    env = _shared(session)
    files = [
        "README.md",
        *(
            str(path.relative_to(ROOT))
            for path in sorted((ROOT / "docs" / "reference").glob("*.md"))
        ),
    ]
    mode = session.posargs or ["--check", "--diff"]
    session.run(str(BIN / "python"), "-m", "cogapp", "-I", "docs", *mode, *files, env=env)
    session.run(str(BIN / "python"), "docs/check_links.py", env=env)


@nox.session
def site(session: nox.Session) -> None:
    """Build the documentation site into out/site, strictly and offline, and check its links."""
    session.install("-c", str(CONSTRAINTS), *_group("site"))
    session.run("mkdocs", "build", "--quiet", "--strict", env={"NO_MKDOCS_2_WARNING": "1"})
    session.run("python", "docs/check_site.py", "out/site")


@nox.session(venv_backend="none")
def pictures(session: nox.Session) -> None:
    """Take the screenshots of docs/images again, on the packaged model (ten minutes)."""
    env = {**_shared(session), "TOOLKIT_CHROMIUM": _chromium(session)}
    session.run(str(BIN / "python"), "docs/pictures.py", *session.posargs, env=env)


@nox.session(venv_backend="none")
def wheel(session: nox.Session) -> None:
    """Build the sdist, the wheel from it, and pin what both hold."""
    _shared(session)
    folder = ROOT / "dist"
    shutil.rmtree(folder, ignore_errors=True)
    session.run(
        str(BIN / "python"), "-m", "build", "--no-isolation", "--outdir", str(folder), silent=True
    )
    built = {
        "TOOLKIT_WHEEL": str(next(folder.glob("*.whl"))),
        "TOOLKIT_SDIST": str(next(folder.glob("*.tar.gz"))),
    }
    _pytest(session, "tests/test_wheel.py", **built)


@nox.session(venv_backend="none")
def chaos(session: nox.Session) -> None:
    """Kill runs at random moments, and damage stores. TOOLKIT_CHAOS_KILLS says how many kills (100
    of a toy run, at most 50 of the quickstart), TOOLKIT_CHAOS_DAMAGES how many damages.
    """
    counts = {"TOOLKIT_CHAOS_KILLS": "100", "TOOLKIT_CHAOS_DAMAGES": "339"}
    given = {name: os.environ.get(name, count) for name, count in counts.items()}
    files = ("tests/toolkit/test_chaos.py", "tests/store")
    _pytest(session, *files, "-m", "slow", "-k", "chaos or no_damage", "-n", "2", **given)


@nox.session(venv_backend="none")
def fuzz(session: nox.Session) -> None:
    """Give specs, imports, SAE files, queries and lines of workers nonsense, and print how many of
    each were read or refused: 10,000 in all. TOOLKIT_FUZZ_COUNT says how many each gets.
    """
    count = os.environ.get("TOOLKIT_FUZZ_COUNT", "2000")
    _pytest(session, "-m", "fuzz", TOOLKIT_FUZZ_COUNT=count)


@nox.session(venv_backend="none")
def slow(session: nox.Session) -> None:
    """Run the tests that take seconds each, most of them whole runs. Chaos (with the damages) and
    fuzz have sessions of their own.
    """
    selected = "not chaos and not no_damage"
    _pytest(session, "-m", "slow and not fuzz", "-k", selected, "-n", "2", "--durations=20")


@nox.session(venv_backend="none")
def browser(session: nox.Session) -> None:
    """Look at reports in headless Chromium; root on Debian or Ubuntu has it installed."""
    _pytest(session, "-m", "browser", TOOLKIT_CHROMIUM=_chromium(session))


def _chromium(session: nox.Session) -> str:
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("TOOLKIT_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        session.run("apt-get", "update", "-qq", external=True, env=quiet)
        session.run(
            "apt-get",
            "install",
            "-y",
            "-qq",
            "--no-install-recommends",
            "chromium",
            external=True,
            env=quiet,
            silent=True,
        )
        found = shutil.which("chromium")
    if found is None:
        session.error(
            "There is no Chromium. Install it (apt-get install chromium), or set TOOLKIT_CHROMIUM "
            "to its program."
        )
    return found


@nox.session(venv_backend="none")
def containers(session: nox.Session) -> None:
    """Run stages in containers on engines of the session's own, and from an Apptainer file where
    Debian's package of Apptainer can be had, also on a Slurm cluster (root on Debian or Ubuntu).
    """
    engines = {"TOOLKIT_TEST_ENGINE": "cpu", "TOOLKIT_TEST_ENGINE_GPU": "gpu"}
    script = str(ROOT / "containers" / "engine.sh")
    with tempfile.TemporaryDirectory(prefix="tk-", ignore_cleanup_errors=True) as scratch:
        folders = {name: Path(scratch) / kind for name, kind in engines.items()}
        try:
            for name, kind in engines.items():
                session.run("bash", script, "up", str(folders[name]), kind, external=True)
            hosts = {name: f"unix://{folder}/docker.sock" for name, folder in folders.items()}
            given = {**hosts, **_apptainer(session, Path(scratch) / "apptainer")}
            wheels = str(ROOT / ".nox" / "wheelhouse")
            with _slurm_cluster(session) as conf:
                settings = {**given, "SLURM_CONF": conf, "TOOLKIT_TEST_WHEELHOUSE": wheels}
                _pytest(session, "tests/toolkit/containers", "-m", "docker", **settings)
        finally:
            for folder in folders.values():
                session.run("bash", script, "down", str(folder), external=True)


def _apptainer(session: nox.Session, folder: Path) -> dict[str, str]:
    """Install Apptainer for the tests; without it those that need it are skipped, and say so."""
    script = str(ROOT / "containers" / "apptainer.sh")
    session.run("bash", script, str(folder), external=True, success_codes=range(256))
    if (folder / "apptainer").exists():
        return {"TOOLKIT_TEST_APPTAINER": str(folder)}
    session.warn("Apptainer cannot be installed here: its tests are skipped.")
    return {}


@nox.session(venv_backend="none")
def slurm(session: nox.Session) -> None:
    """Run on a Slurm cluster of the session's own, of one machine (root on Debian or Ubuntu)."""
    with _slurm_cluster(session) as conf:
        _pytest(session, "tests/toolkit/slurm", "-m", "slurm", SLURM_CONF=conf)


@contextmanager
def _slurm_cluster(session: nox.Session) -> Iterator[str]:
    """Start a Slurm cluster of one machine; the path of its configuration."""
    script = str(ROOT / "tests" / "toolkit" / "slurm" / "cluster.sh")
    with tempfile.TemporaryDirectory(prefix="tk-", ignore_cleanup_errors=True) as scratch:
        try:
            session.run("bash", script, "up", scratch, external=True)
            yield f"{scratch}/slurm.conf"
        finally:
            session.run("bash", script, "down", scratch, external=True)


@nox.session
def ray(session: nox.Session) -> None:
    """Run on a Ray cluster of three nodes with GPUs that are not there, all on loopback."""
    _extend_shared(session)
    session.install("-c", str(CONSTRAINTS), RAY)
    _extended_pytest(session, "tests/toolkit/ray", "-m", "ray")


@nox.session
def image_pins(session: nox.Session) -> None:
    """Resolve the requirements of both images again, and write them down with their hashes."""
    session.install("-c", str(CONSTRAINTS), "pip")
    session.run("python", "containers/write_pins.py", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Run the benchmarks against their peers (SAELens, DuckDB): `nox -s bench`, or `nox -s bench --
    tokens` for one. What begins with a dash is passed on: `nox -s bench -- tokens --tiny`.
    """
    session.install(
        "-c", str(CONSTRAINTS), *PROJECT["project"]["dependencies"], *_group("bench"), *PEERS
    )
    session.install("-c", str(CONSTRAINTS), *PROJECT["project"]["optional-dependencies"]["figures"])
    session.install("--no-deps", "--force-reinstall", ".")
    start = next((i for i, text in enumerate(session.posargs) if text.startswith("-")), None)
    every = sorted(path.stem for path in (ROOT / "benchmarks").glob("[!_]*.py"))
    for name in session.posargs[:start] or every:
        options = session.posargs[start:] if start is not None else []
        session.run(
            "python", f"benchmarks/{name}.py", *options, env={**ENV, "PYTHONSAFEPATH": ""}
        )  # they share a module of their folder


@nox.session
def minimums(session: nox.Session) -> None:
    """Run the tests with the lowest versions that pyproject.toml allows, torch kept at its pin."""
    session.install(*_lowest(PROJECT["project"]["dependencies"]), *_group("test"))
    session.install("--no-deps", ".")
    session.run("pytest", *_pytest_options(session), "-n", "2", *session.posargs, env=ENV)


def _lowest(requirements: list[str]) -> list[str]:
    """Turn `name>=1.2,<2` into `name==1.2`; torch keeps the pin of constraints.txt."""
    return [TORCH_PIN if text.startswith("torch>") else _lowest_of(text) for text in requirements]


def _lowest_of(requirement: str) -> str:
    found = re.fullmatch(r"([A-Za-z0-9._-]+)>=([0-9.]+)(,<[0-9.]+)?", requirement)
    if found is None:
        raise ValueError(
            f"pyproject.toml: '{requirement}' should read name>=LOWEST or name>=LOWEST,<NEXT"
        )
    return f"{found[1]}=={found[2]}"


@nox.session(venv_backend="none")
def lab(session: nox.Session) -> None:
    """Make the lab's model and SAEs again, from nothing (about half an hour on a core), and
    compare; first a small one.
    """
    _pytest(session, "-m", "slow", "-k", "retrain")
    env = _shared(session)
    session.run(
        str(BIN / "python"), "-m", "toolkit_lab.training", "--compare", *session.posargs, env=env
    )


@nox.session
def peer(session: nox.Session) -> None:
    """Compare with other tools, each at the version that was compared with: SAELens (files),
    statsmodels (tests), interp-engine (hookpoints), DuckDB (joins), moto (S3), wandb and MLflow
    (their offline files), datasets (rows of a dataset of the hub).
    """
    _extend_shared(session)
    session.install("-c", str(CONSTRAINTS), *_group("bench"), *PEERS, INTERP_ENGINE)
    session.install("-c", str(CONSTRAINTS), *TRACKERS)
    session.install(
        OBJECT_STORAGE
    )  # it needs an older python-dateutil than the rest was tested with
    folders = ("tests/peers", "tests/plugins", "tests/store")
    _extended_pytest(session, *folders, "-m", "peer")
