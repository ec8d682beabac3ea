"""Who may import whom, read from the sources: the rules that keep plugins strangers and light
commands light.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping, Set
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PUBLIC: dict[str, tuple[str, ...]] = {
    "version": (),
    "errors": (),
    "terminal": (),
    "identity": (),
    "params": (),
    "hookpoints": (),
    "tables": (),
    "costs": (),
    "ledger": (),
    "figures": (),
    "secrets": (),
    "statistics": ("arrays", "corrections", "halves", "randomness"),
    "files": ("archives", "hub", "json_lines", "local"),
    "executors": ("gpus", "interface", "processes", "protocol"),
    "containers": ("apptainer", "engines", "images", "mounts"),
    "work": (),
    "saes": (),
    "edits": (),
    "models": (
        *("encoders", "families", "readout", "sessions", "streams"),
        *("token_sampling", "whole_pass_sessions"),
    ),
    "samples": ("games", "rows", "selectors"),
    "features": ("addresses", "agreement", "comparisons", "labels", "neuronpedia"),
    "activations": ("dense_layouts", "kept_positions", "matrix", "observed", "rows"),
    "parts": (),
    "hookspecs": (),
    "testing": (),
}
"""What is public in `toolkit/`, in order: each imports only those before it. Of a folder, the
modules that others import. Other modules of a folder are used through the folder, which re-exports
what is public of them. `toolkit.testing` is public as a whole.
"""
HEAVY = {"torch", "transformers", "lancedb"}
HOST = sorted((ROOT / "toolkit").rglob("*.py"))
PLUGINS = sorted((ROOT / "plugins").rglob("*.py"))
STORE = sorted((ROOT / "store").rglob("*.py"))


def imports(path: Path, *, top_level: bool = False) -> Iterator[str]:
    """Modules that a file imports, as written; with `top_level`, only those that importing the file
    imports.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in _executed(tree.body) if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name for name in names if node.module == "toolkit" or name in MODULES)


def _executed(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from _executed(node.orelse)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
            for field in ("body", "orelse", "finalbody"):
                yield from _executed(getattr(node, field, []))
            for handler in getattr(node, "handlers", []):
                yield from _executed(handler.body)


def label(path: Path) -> str:
    return str(path.relative_to(ROOT))


def package(module: str) -> str:
    return module.split(".")[0]


def is_public(module: str) -> bool:
    """`toolkit` and the names that it re-exports, and what `PUBLIC` lists."""
    _, *names = module.split(".")
    if not names or _is_exported(module):
        return True
    if any(name.startswith("_") for name in names) or names[0] not in PUBLIC:
        return False
    return names[0] == "testing" or ".".join(names[1:]) in ("", *PUBLIC[names[0]])


def _is_exported(module: str) -> bool:
    import toolkit

    return module.count(".") == 1 and module.split(".")[1] in toolkit.__all__


@pytest.mark.parametrize(
    "module", ["toolkit", "toolkit.load", "toolkit.models", "toolkit.models.families"]
)
def test_public(module: str) -> None:
    assert is_public(module)


@pytest.mark.parametrize(
    "module",
    ["toolkit.worker", "toolkit._plan", "toolkit.models.model", "toolkit.parts.records"],
)
def test_not_public(module: str) -> None:
    assert not is_public(module)


def test_there_is_something_to_read() -> None:
    assert HOST
    assert PLUGINS
    assert STORE


@pytest.mark.parametrize("path", PLUGINS, ids=label)
def test_plugins_import_only_the_public_api_and_never_each_other(path: Path) -> None:
    plugin = path.relative_to(ROOT / "plugins").parts[0]
    ours = [
        module
        for module in imports(path)
        if package(module).startswith("toolkit") and package(module) != plugin
    ]
    assert [module for module in ours if not is_public(module)] == []


@pytest.mark.parametrize("path", [*HOST, *PLUGINS], ids=label)
def test_only_the_store_imports_lancedb(path: Path) -> None:
    assert [module for module in imports(path) if package(module) in {"lancedb", "lance"}] == []


@pytest.mark.parametrize("path", [*HOST, *STORE], ids=label)
def test_host_and_store_import_nothing_heavy_at_module_level(path: Path) -> None:
    assert [module for module in imports(path, top_level=True) if package(module) in HEAVY] == []


@pytest.mark.parametrize(
    "path",
    [
        path
        for path in PLUGINS
        if path.name == "__init__.py" and len(path.relative_to(ROOT).parts) == 3
    ],
    ids=label,
)
def test_importing_a_plugin_imports_nothing_heavy(path: Path) -> None:
    """Plugins are imported by every command, so their own module-level imports are followed."""
    seen: set[Path] = set()
    todo = [path]
    while todo:
        current = todo.pop()
        seen.add(current)
        assert [
            module for module in imports(current, top_level=True) if package(module) in HEAVY
        ] == [], label(current)
        todo.extend(result for result in _siblings(current) if result not in seen)


def _siblings(path: Path) -> Iterator[Path]:
    """Files of the same plugin that importing this one imports."""
    home = ROOT / "plugins"
    for node in _executed(ast.parse(path.read_text(encoding="utf-8")).body):
        if isinstance(node, ast.ImportFrom):
            base = path.parents[node.level - 1] if node.level else home
            folder = base.joinpath(*(node.module or "").split("."))
            results = [folder, *(folder / alias.name for alias in node.names)]
        elif isinstance(node, ast.Import):
            results = [home.joinpath(*alias.name.split(".")) for alias in node.names]
        else:
            results = []
        yield from (
            file
            for name in results
            for file in (name.with_suffix(".py"), name / "__init__.py")
            if file.exists()
        )


@pytest.mark.parametrize("path", HOST, ids=label)
def test_the_host_knows_no_plugin(path: Path) -> None:
    named = {result.name for result in (ROOT / "plugins").iterdir()}
    assert [module for module in imports(path) if package(module) in named] == []


@pytest.mark.parametrize("path", HOST, ids=label)
def test_no_text_of_the_host_names_a_plugin(path: Path) -> None:
    """Docstrings may: they are examples. A part's attributes are fields, so none is looked up by
    name either.
    """
    plugins = "|".join(sorted(folder.name for folder in (ROOT / "plugins").glob("toolkit_*")))
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert [text for text in _texts(tree) if re.search(rf"\b({plugins})\b", text)] == []
    looked_up = [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "getattr" and node.args
    ]
    assert [call for call in looked_up if re.search(r"\b(part|stage\.part)\b", call)] == []


@pytest.mark.parametrize("path", HOST, ids=label)
def test_the_host_decides_nothing_by_the_name_of_an_executor(path: Path) -> None:
    """What it needs of one is a field of `ExecutorPart`."""
    within = path.relative_to(ROOT / "toolkit").parts
    program = ("containers", "apptainer.py")  # it has the program's name
    if {"templates", "testing"} & set(within) or within == program:
        return
    executors = {"ray", "docker", "slurm", "apptainer"}
    if within != ("_spec", "defaults.py"):
        executors.add("local")
    assert executors & set(_texts(ast.parse(path.read_text(encoding="utf-8")))) == set()


def _texts(tree: ast.AST) -> list[str]:
    """The texts in a module, but for docstrings."""
    docstrings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings
    ]


def test_no_package_marker_directly_in_the_folders() -> None:
    assert [
        folder
        for folder in ("plugins", "store", "tests")
        if (ROOT / folder / "__init__.py").exists()
    ] == []


FLOW = (
    *("_spec", "_plugins", "_plan", "_run", "_report", "_images", "_flow", "_query", "_share"),
    *("_experiment", "_results", "_view", "_cli"),
)
"""The folders of the host in the order of the flow: each imports only those before it."""


def test_every_private_folder_has_its_place_in_the_flow() -> None:
    names = {path.relative_to(ROOT / "toolkit").parts[0].removesuffix(".py") for path in HOST}
    private = {name for name in names if name.startswith("_") and not name.startswith("__")}
    assert private == set(FLOW)


@pytest.mark.parametrize("path", HOST, ids=label)
def test_no_folder_of_the_flow_imports_a_later_one(path: Path) -> None:
    """Also for types only: a later folder that is needed for its types is in the wrong order."""
    here = path.relative_to(ROOT / "toolkit").parts[0].removesuffix(".py")
    if not here.startswith("_") or here.startswith("__"):
        return
    later = {f"toolkit.{name}" for name in FLOW[FLOW.index(here) + 1 :]}
    assert [name for name in _from_toolkit(path) if name in later] == []


def test_what_is_public_is_listed() -> None:
    names = {path.relative_to(ROOT / "toolkit").parts[0].removesuffix(".py") for path in HOST}
    public = {name for name in names if not name.startswith("_")}
    assert public == {*PUBLIC, "worker"}  # a program: others start it and import nothing of it


@pytest.mark.parametrize("name", [name for name in PUBLIC if (ROOT / "toolkit" / name).is_dir()])
def test_a_module_of_a_public_folder_is_listed_or_behind_the_folder(name: str) -> None:
    """A folder that re-exports nothing has only listed ones. One module is not worth a folder."""
    modules = {module for module in MODULES if module.startswith(f"toolkit.{name}.")}
    behind = modules & set(imports(MODULES[f"toolkit.{name}"]))
    listed = {f"toolkit.{name}.{module}" for module in PUBLIC[name]}
    assert behind.isdisjoint(listed)
    assert name == "testing" or modules == behind | listed
    assert len(modules) > 1


@pytest.mark.parametrize("path", HOST, ids=label)
def test_what_is_public_imports_only_what_is_listed_before_it(path: Path) -> None:
    """Also for types only."""
    here = path.relative_to(ROOT / "toolkit").parts[0].removesuffix(".py")
    if here in PUBLIC:
        later = {f"toolkit.{name}" for name in list(PUBLIC)[list(PUBLIC).index(here) + 1 :]}
        assert [name for name in _from_toolkit(path) if name in later] == []


@pytest.mark.parametrize("path", [*HOST, *STORE], ids=label)
def test_what_is_behind_a_folder_is_used_through_the_folder(path: Path) -> None:
    """The host and the store keep to the public modules of a public folder, as plugins do."""
    here = ".".join(_module_of(path).split(".")[:2])
    shared = [name for name in imports(path) if re.match(r"toolkit\.(?!_)", name)]
    others = [name for name in shared if not name.startswith(f"{here}.")]
    assert [name for name in others if not is_public(name)] == []


@pytest.mark.parametrize("path", HOST, ids=label)
def test_public_modules_import_no_private_one(path: Path) -> None:
    """But for the program's two doors, and the contract tests, which use the loader's rules."""
    parts = path.relative_to(ROOT / "toolkit").parts
    doors = ("__main__.py", "worker.py", "testing")
    if parts[0].startswith("_") or parts[0] in doors:
        return
    assert [name for name in _from_toolkit(path) if name.startswith("toolkit._")] == []


def _from_toolkit(path: Path) -> set[str]:
    """What a file imports of the host, as `toolkit.NAME`."""
    ours = (name.split(".") for name in imports(path) if package(name) == "toolkit")
    return {".".join(parts[:2]) for parts in ours if len(parts) > 1}


def test_the_plan_is_pure() -> None:
    """It opens no store and imports no torch, not even inside a function."""
    for path in sorted((ROOT / "toolkit" / "_plan").rglob("*.py")):
        heavy = {"toolkit_store", *HEAVY}
        assert [name for name in imports(path) if package(name) in heavy] == [], label(path)


def test_no_two_classes_share_a_name() -> None:
    """A reader who meets a class's name anywhere knows which class it is. An underscore before it
    makes no other name.
    """
    files: dict[str, list[str]] = {}
    for path in [*HOST, *PLUGINS, *STORE]:
        if "templates" in path.parts:  # a scaffold becomes another package
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                files.setdefault(node.name.strip("_"), []).append(label(path))
    assert {name: paths for name, paths in files.items() if len(paths) > 1} == {}


def _module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    name = parts if parts[0] == "toolkit" else parts[1:]
    return ".".join(name[:-1] if name[-1] == "__init__" else name)


MODULES = {
    _module_of(path): path for path in [*HOST, *PLUGINS, *STORE] if "templates" not in path.parts
}
PACKAGES = sorted({package(name) for name in MODULES} - {"toolkit"})
"""The store and the plugins; the folders of the host have an order of their own."""


@pytest.mark.parametrize("name", ["toolkit", *PACKAGES])
def test_no_modules_of_a_package_import_each_other(name: str) -> None:
    """Also through others, for types only, and inside functions. The host and the store, which know
    each other, are looked at together.
    """
    group = {name, "toolkit_store"} if name == "toolkit" else {name}
    modules = {module: path for module, path in MODULES.items() if package(module) in group}
    assert name in modules
    graph = {module: _imported_with_packages(path) for module, path in modules.items()}
    assert _in_circles(graph) == {}


@pytest.mark.parametrize("name", PACKAGES)
def test_no_folders_of_a_package_import_each_other(name: str) -> None:
    """Also for types only: what two folders share is a module next to them, or in the lower one."""
    graph: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        if package(module) == name and module != name:
            targets = {target for target in _imported_modules(path) if package(target) == name}
            graph.setdefault(_folder(module), set()).update(map(_folder, targets - {name}))
    if name == "toolkit_store":
        assert {"write", "index", "query", "upkeep", "interchange"} <= graph.keys()
    assert _in_circles(graph) == {}


def test_circles_are_seen() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}, "e": {"e"}}
    assert _in_circles(graph) == {"b": {"c"}, "c": {"b"}}


def test_relative_imports_are_resolved() -> None:
    path = ROOT / "plugins" / "toolkit_patch" / "costs.py"
    assert "toolkit_patch.screen.params" in _imported_modules(path)


def test_mathematics_needs_numpy_and_scipy_only() -> None:
    """The formulas of the statistics know no table, no step, and no message."""
    folder = ROOT / "plugins" / "toolkit_stats" / "math"
    paths = sorted(folder.rglob("*.py"))
    assert len(paths) > 10
    known = {"numpy", "scipy", *sys.stdlib_module_names}
    own = ("toolkit.statistics.arrays", "toolkit_stats.math")
    for path in [*paths, ROOT / "toolkit" / "statistics" / "arrays.py"]:
        other = [name for name in _imported_modules(path) if package(name) not in known]
        assert [name for name in other if not name.startswith(own)] == [], label(path)


def _folder(module: str) -> str:
    """The folder of a module in its package, or the module's own name if it is in none."""
    return module.split(".")[1]


def _in_circles(graph: Mapping[str, Set[str]]) -> dict[str, set[str]]:
    """Of a graph, the part whose members reach each other; a member that names itself does not
    count.
    """
    rest = {name: {one for one in targets if one != name} for name, targets in graph.items()}
    while True:
        targets = {one for name in rest for one in rest[name]}
        kept = {name for name in rest if name in targets and rest[name] & rest.keys()}
        if kept == rest.keys():
            return rest
        rest = {name: rest[name] & kept for name in kept}


def _imported_modules(path: Path) -> set[str]:
    """The modules that a file imports, wherever it does: of `from package import module`, the
    module.
    """
    module, results = _module_of(path), set()
    parts = module.split(".")
    home = parts if path.name == "__init__.py" else parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            results |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = home[: len(home) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names = {f"{base}.{alias.name}" for alias in node.names}
            results |= {name if name in MODULES else base for name in names}
    return results


def _imported_with_packages(path: Path) -> set[str]:
    """The modules that a file imports, and the packages that they are in: importing a module runs
    these first. Those that the file itself is in are running already.
    """
    module, results = _module_of(path), _imported_modules(path)
    packages = {one for name in results for one in _packages_of(name)}
    return results | {name for name in packages if not f"{module}.".startswith(f"{name}.")}


def _packages_of(module: str) -> Iterator[str]:
    """The packages that a module is in, but for the outermost, such as `toolkit`: it stands for
    all of its modules.
    """
    parts = module.split(".")
    return (".".join(parts[:count]) for count in range(2, len(parts)))
