"""The repository itself: pins fit ranges, sessions have docstrings, nothing is left half done,
links lead somewhere, and every class has its own name.
"""

from __future__ import annotations

import ast
import re
import runpy
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LEFTOVER = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "X" * 3]) + r")\b")


def tracked() -> list[Path]:
    """Files that git tracks or would track, without a virtual environment under any name."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    environments = [path.parent for path in ROOT.glob("*/pyvenv.cfg")]
    files = [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]
    return [path for path in files if not any(map(path.is_relative_to, environments))]


def pins() -> dict[str, Version]:
    lines = [
        line
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    split = [line.split("==") for line in lines]
    assert all(len(parts) == 2 for parts in split), "constraints.txt holds exact pins only"
    return {canonicalize_name(name): Version(version) for name, version in split}


def required() -> list[Requirement]:
    groups = [
        item
        for group in PROJECT["dependency-groups"].values()
        for item in group
        if isinstance(item, str)
    ]
    return [
        Requirement(text)
        for text in [
            *PROJECT["project"]["dependencies"],
            *PROJECT["build-system"]["requires"],
            *groups,
        ]
    ]


@pytest.mark.parametrize("requirement", required(), ids=str)
def test_every_requirement_has_a_pin_inside_its_range(requirement: Requirement) -> None:
    pinned = pins()
    assert canonicalize_name(requirement.name) in pinned
    assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)])


def test_torch_is_pinned_without_a_build_tag() -> None:
    assert str(pins()["torch"]) == "2.13.0"


def test_every_nox_session_says_what_it_does() -> None:
    tree = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    sessions = [
        node
        for node in functions
        if any("session" in ast.unparse(mark) for mark in node.decorator_list)
    ]
    assert {"tests", "lint", "types", "docs", "wheel", "bench", "chaos", "minimums"} <= {
        node.name for node in sessions
    }
    assert [node.name for node in sessions if not ast.get_docstring(node)] == []


def folders_of(session: str) -> list[str]:
    """The files and folders of tests that a session of the noxfile names."""
    tree = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    (function,) = (
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == session
    )
    values = [node.value for node in ast.walk(function) if isinstance(node, ast.Constant)]
    return [text for text in values if isinstance(text, str) and text.startswith("tests/")]


@pytest.mark.parametrize(
    ("session", "sign"),
    [
        ("containers", r"mark\.docker"),
        ("slurm", r"mark\.slurm"),
        ("ray", r"mark\.ray"),
        ("peer", r"mark\.peer"),
        ("chaos", r"def test_\w*(chaos|no_damage)"),
    ],
)
def test_a_session_that_collects_some_folders_finds_all_tests_of_its_kind(
    session: str, sign: str
) -> None:
    folders = folders_of(session)
    kind = [
        path
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if re.search(sign, path.read_text(encoding="utf-8"))
    ]
    outside = [
        path for path in kind if not any(map(path.is_relative_to, map(ROOT.joinpath, folders)))
    ]
    assert kind
    assert outside == []


def test_nothing_is_left_to_do_in_tracked_sources() -> None:
    kinds = {".py", ".md", ".toml", ".yaml", ".yml", ".js", ".css", ".html"}
    results = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in tracked()
        if path.suffix in kinds
        for number, line in enumerate(
            path.read_text(encoding="utf-8", errors="replace").splitlines(), 1
        )
        if LEFTOVER.search(line)
    ]
    assert results == []


def test_every_package_folder_ships_and_is_typed() -> None:
    folders = {
        str(path.parent.relative_to(ROOT))
        for home in ("plugins", "store")
        for path in (ROOT / home).glob("toolkit_*/__init__.py")
    }
    assert set(PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) == {
        "toolkit",
        *folders,
    }
    assert set(PROJECT["tool"]["mypy"]["packages"]) == {
        "toolkit",
        *(Path(folder).name for folder in folders),
    }


def test_every_module_opens_with_what_it_holds() -> None:
    modules = [
        path
        for home in ("toolkit", "plugins", "store", "tests", "benchmarks")
        for path in (ROOT / home).rglob("*.py")
    ]
    assert [
        str(path.relative_to(ROOT))
        for path in modules
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ] == []


def test_no_function_is_longer_than_a_screen() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for home in ("toolkit", "plugins", "store")
        for path in sorted((ROOT / home).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > 50
    ]
    assert long == []


CODE_BLOCK = re.compile(r"^ *(```|~~~).*?^ *\1 *$", re.MULTILINE | re.DOTALL)


def test_prose_of_pages_fits_in_100_columns() -> None:
    """Code blocks, tables, and lines that cannot be broken because of a link are left out."""
    long = [
        f"{page.relative_to(ROOT)}: {line}"
        for page in tracked()
        if page.suffix == ".md" and page.name != "CHANGELOG.md"
        for line in CODE_BLOCK.sub("", page.read_text(encoding="utf-8")).splitlines()
        if len(line) > 100 and "](" not in line and not line.lstrip().startswith(("|", "http"))
    ]
    assert long == []


def test_relative_links_of_the_docs_exist() -> None:
    broken = runpy.run_path(str(ROOT / "docs" / "check_links.py"))["broken_links"]
    assert broken(ROOT) == []


def test_the_license_is_the_one_named() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert PROJECT["project"]["license"] == "Apache-2.0"
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_citation_names_this_version_and_license() -> None:
    import yaml

    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    version = runpy.run_path(str(ROOT / "toolkit" / "__init__.py"))["__version__"]
    assert cited["version"] == version
    assert cited["license"] == PROJECT["project"]["license"]
    assert cited["title"].startswith(PROJECT["project"]["name"])
    assert cited["cff-version"] == "1.2.0"
    assert {"message", "authors", "type"} <= cited.keys()
