"""What tests of tutorials share: a tutorial's text, the package next to it, and a run with that
package installed.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

INDENTS = ("", "    ", "        ")
TUTORIALS = Path(__file__).parents[2] / "docs" / "tutorial"


@dataclass(frozen=True)
class Tutorial:
    """A text and the package of the same name."""

    name: str

    @property
    def package(self) -> Path:
        return TUTORIALS / self.name

    @property
    def text(self) -> str:
        return (TUTORIALS / f"{self.name}.md").read_text(encoding="utf-8")

    def module(self, file: str) -> ModuleType:
        """A module of the package, under a name that its tests import it by."""
        path = self.package / file
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[path.stem] = result = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(result)
        return result

    def blocks(self, language: str) -> list[str]:
        """The fenced blocks of one language in the text."""
        return re.findall(rf"^```{language}\n(.*?)^```", self.text, re.MULTILINE | re.DOTALL)

    def check_quotes(self, language: str, files: tuple[str, ...]) -> None:
        """Word for word; only how far a block is indented is its own, and `...` stands for what is
        left out.
        """
        contents = [(self.package / file).read_text(encoding="utf-8") for file in files]
        assert self.blocks(language)
        for block in self.blocks(language):
            quotes = [
                part.strip("\n") for part in re.split(r"^ *\.\.\.\n", block, flags=re.MULTILINE)
            ]
            results = [
                quote
                for quote in quotes
                if any(textwrap.indent(quote, by) in text for text in contents for by in INDENTS)
            ]
            assert results == quotes

    def check_length(self, file: str) -> None:
        """The module is as short as the text says."""
        lines = (self.package / file).read_text(encoding="utf-8").splitlines()
        (limit,) = re.findall(r"under (\d+) lines", self.text)
        assert int(limit) - 10 <= len(lines) < int(limit)

    def run(self, spec: Path) -> None:
        """`toolkit run` with the package installed by pip, into a folder of its own next to the
        spec.
        """
        site = spec.parent / "site"
        pip = (
            "pip install -q --no-deps --no-index --no-build-isolation --no-cache-dir "
            "--target".split()
        )
        subprocess.run(
            [sys.executable, "-m", *pip, str(site), str(self.package)], check=True, timeout=120
        )
        done = subprocess.run(
            [sys.executable, "-m", "toolkit", "run", str(spec)],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(
                    filter(None, (str(site), os.environ.get("PYTHONPATH")))
                ),
            },
            cwd=spec.parent,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr
