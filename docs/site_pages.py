"""Pages of the documentation site that are no file in docs/: the notebooks, the specs and other
files of the repository that a page links to. mkdocs calls the functions `on_...`.

Pages link to files where the repository has them, so that they can be read there as well; on the
site these links lead to its own pages.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.structure.files import Files

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(\[[^\]]*\]\()([^)\s]+)(\))")
FENCE = re.compile(r"(^`{3,}.*?^`{3,}[ ]*$)", re.MULTILINE | re.DOTALL)
SOURCE = "source"
"""The site's folder for files of the repository outside docs/."""
LANGUAGES = {".yaml": "yaml", ".py": "python", ".toml": "toml", ".csv": "text", ".txt": "text"}


def on_files(files: Files, *, config: Any) -> Files:
    """Add a page for each notebook and each linked file outside docs/."""
    from mkdocs.structure.files import File

    for file in list(files):
        if file.src_uri.endswith(".ipynb"):
            content = notebook_page(json.loads(file.content_string))
            files.remove(file)
            files.append(File.generated(config, site_path(f"docs/{file.src_uri}"), content=content))
    pages = [repository_path(file.src_uri) for file in files if file.src_uri.endswith(".md")]
    for path in linked_outside(pages):
        files.append(File.generated(config, site_path(path), content=source_page(path)))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Turn links to files of the repository into links to pages of the site."""
    return site_links(markdown, page.file.src_uri)


def linked_outside(pages: list[str]) -> list[str]:
    """Files outside docs/ that the pages, or Markdown files found on the way, link to."""
    outside: list[str] = []
    unread = list(pages)
    while unread:
        origin = unread.pop()
        path = ROOT / origin
        if path.suffix != ".md" or not path.is_file():
            continue
        for link in _links(path.read_text(encoding="utf-8")):
            target = _target(origin, link)
            if not target.startswith("docs/") and (ROOT / target).is_file():
                if target not in outside:
                    outside.append(target)
                    unread.append(target)
    return outside


def site_links(markdown: str, uri: str) -> str:
    """The Markdown with its relative links as the site needs them."""
    origin = repository_path(uri)

    def replaced(match: re.Match[str]) -> str:
        name, hash_mark, heading = match[2].partition("#")
        if not name or re.match(r"[a-z]+:", name):
            return match[0]
        target = site_path(_target(origin, name))
        relative = posixpath.relpath(target, posixpath.dirname(uri) or ".")
        return f"{match[1]}{relative}{hash_mark}{heading}{match[3]}"

    parts = FENCE.split(markdown)
    parts[::2] = [LINK.sub(replaced, part) for part in parts[::2]]
    return "".join(parts)


def site_path(path: str) -> str:
    """The site's source path of a file of the repository."""
    if path.startswith("docs/"):
        inner = path.removeprefix("docs/")
        return re.sub(r"\.ipynb$", ".md", inner)
    return f"{SOURCE}/{path}" if path.endswith(".md") else f"{SOURCE}/{path}.md"


def repository_path(uri: str) -> str:
    """The file of the repository that a page of the site shows."""
    if not uri.startswith(f"{SOURCE}/"):
        return f"docs/{uri}"
    path = uri.removeprefix(f"{SOURCE}/")
    return path if (ROOT / path).is_file() else path.removesuffix(".md")


def _links(markdown: str) -> Iterator[str]:
    for part in FENCE.split(markdown)[::2]:
        for match in LINK.finditer(part):
            name = match[2].partition("#")[0]
            if name and not re.match(r"[a-z]+:", name):
                yield name


def _target(origin: str, link: str) -> str:
    return posixpath.normpath(str(PurePosixPath(origin).parent / link))


def source_page(path: str) -> str:
    """A file of the repository as a page; Markdown as it is."""
    text = (ROOT / path).read_text(encoding="utf-8")
    if path.endswith(".md"):
        return text
    language = LANGUAGES.get(PurePosixPath(path).suffix, "text")
    return f"# {PurePosixPath(path).name}\n\n`{path}`\n\n````{language}\n{text.rstrip()}\n````\n"


def notebook_page(notebook: dict[str, Any]) -> str:
    """A notebook with its outputs as Markdown."""
    return "\n\n".join(part for cell in notebook["cells"] for part in _cell(cell)) + "\n"


def _cell(cell: dict[str, Any]) -> Iterator[str]:
    source = "".join(cell["source"]).strip()
    if cell["cell_type"] == "markdown":
        yield source
    elif cell["cell_type"] == "code" and source:
        yield f"````python\n{source}\n````"
        for output in cell["outputs"]:
            yield _output(output)


def _output(output: dict[str, Any]) -> str:
    data = output.get("data", {})
    if "text/html" in data:
        lines = "".join(data["text/html"]).splitlines()
        html = "\n".join(line for line in lines if line.strip())
        return f'<div class="output">\n{html}\n</div>'
    text = "".join(output.get("text") or data.get("text/plain", ""))
    return f"````text\n{text.rstrip()}\n````"
