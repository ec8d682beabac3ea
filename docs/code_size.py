"""Print the size of the code as `docs/explanation/architecture.md` states it.

python docs/code_size.py            this checkout
python docs/code_size.py FOLDER     another one, such as an older version
"""

from __future__ import annotations

import ast
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("toolkit", "plugins", "store")
COLUMNS = 100
VAGUE = frozenset(
    "again alone asked at divided found foretold given heard held here instead kept laid look "
    "look_up most one owing own place said settle tell told wanted warmth what wishes".split()
)
"""Names that say too little about what they stand for."""


def main(root: Path) -> None:
    """Print one figure per line."""
    files = [path for name in PACKAGES for path in sorted((root / name).rglob("*.py"))]
    files = [path for path in files if "templates" not in path.parts]
    texts = {path: path.read_text(encoding="utf-8") for path in files}
    trees = {path: ast.parse(text) for path, text in texts.items()}
    lines = [line for text in texts.values() for line in text.splitlines()]
    entries = [path for path in (root / "toolkit").iterdir() if not path.name.startswith("__")]
    private = [path for path in entries if path.name.startswith("_") and path.suffix == ".py"]
    public = [path for path in entries if not path.name.startswith("_")]
    functions = [length for tree in trees.values() for length in _function_lengths(tree)]
    print(f"modules: {len(files)}")
    print(f"private modules directly in toolkit/: {len(private)}")
    modules = [path for path in public if path.suffix == ".py"]
    print(f"public modules directly in toolkit/: {len(modules)}")
    print(f"public folders directly in toolkit/: {sum(path.is_dir() for path in public)}")
    print(f"lines: {len(lines):,}")
    print(f"lines over {COLUMNS} columns: {sum(len(line) > COLUMNS for line in lines):,}")
    print(f"median and longest function: {statistics.median(functions):g}, {max(functions)} lines")
    host = {path: tree for path, tree in trees.items() if (root / "toolkit") in path.parents}
    arrows = {arrow for path, tree in host.items() for arrow in _arrows(root, path, tree)}
    print(f"arrows between private units of toolkit/: {len(arrows)}")
    print(f"vague names bound: {sum(1 for tree in trees.values() for _ in _vague_names(tree)):,}")


def _function_lengths(tree: ast.Module) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            yield (node.end_lineno or node.lineno) - node.lineno + 1


def _arrows(root: Path, path: Path, tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Imports from one private folder or module of the host into another."""
    source = path.relative_to(root / "toolkit").parts[0].removesuffix(".py")
    if not source.startswith("_"):
        return
    for node in ast.walk(tree):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        for module in modules:
            parts = module.split(".")
            if len(parts) > 1 and parts[0] == "toolkit" and parts[1].startswith("_"):
                if parts[1] != source and not parts[1].startswith("__"):
                    yield source, parts[1]


def _vague_names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        name = None
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            name = node.name
        elif isinstance(node, ast.arg):
            name = node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            name = node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            name = node.attr
        if name is not None and name.strip("_") in VAGUE:
            yield name


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1])
