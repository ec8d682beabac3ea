"""Which Parquet files of a dataset repository are which configuration and split: as its card names
them, else by folders (`CONFIG/SPLIT/0000.parquet`, as the hub converts), else by words in their
paths (`data/test-00000-of-00001.parquet`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from toolkit.errors import BadInput, choices, nearest

DEFAULT, TRAIN = "default", "train"
WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""Words in a path that name a split."""
_NUMBERED = re.compile(r"data/([^/]+)-\d{5}-of-\d{5}[^/]*\.parquet")
_CONVERTED = re.compile(r"([^/]+)/([^/]+)/\d{4}\.parquet")

Splits = dict[str, list[str]]
"""Split -> its files, in order."""


@dataclass(frozen=True)
class Configurations:
    """The configurations of a dataset; `default` is the one that is meant where none is named."""

    splits: Mapping[str, Splits]
    default: str | None


def configurations_of(paths: Sequence[str], card: str, where: str) -> Configurations:
    """The configurations of a repository with these files and this card."""
    files = sorted(path for path in paths if path.endswith(".parquet"))
    if not files:
        raise BadInput(
            f"{where} has no Parquet files. Name the commit of the hub's own conversion (branch "
            "refs/convert/parquet of the repository), or save the data as a file and read it with "
            "`csv`, `jsonl` or `parquet`."
        )
    entries = _entries(card, where)
    named = {str(entry.get("config_name") or DEFAULT): _named(entry, files) for entry in entries}
    named = {name: splits for name, splits in named.items() if splits}
    if named:
        marked = [str(entry.get("config_name")) for entry in entries if entry.get("default")]
        return Configurations(named, marked[0] if marked else _only(named))
    converted = [match for match in map(_CONVERTED.fullmatch, files) if match]
    if len(converted) == len(files):
        configs: dict[str, Splits] = {}
        for match in converted:
            configs.setdefault(match[1], {}).setdefault(match[2], []).append(match[0])
        return Configurations(configs, _only(configs))
    return Configurations({DEFAULT: _by_words(files)}, DEFAULT)


def _only(configs: Mapping[str, Splits]) -> str | None:
    if DEFAULT in configs:
        return DEFAULT
    return next(iter(configs)) if len(configs) == 1 else None


def files_of(
    configurations: Configurations, config: str | None, split: str, where: str
) -> Sequence[str]:
    """The files of a split."""
    configs, name = configurations.splits, config or configurations.default
    if name is None:
        raise BadInput(f"{where}: config: choose one. Configurations: {choices(configs)}.")
    if name not in configs:
        raise BadInput(
            f"{where}: config: there is no '{name}'.{nearest(name, configs)} Configurations: "
            f"{choices(configs)}."
        )
    splits = configs[name]
    if split not in splits:
        raise BadInput(
            f"{where}: split: there is no '{split}'.{nearest(split, splits)} Splits: "
            f"{choices(splits)}."
        )
    return splits[split]


def _by_words(files: Sequence[str]) -> Splits:
    """Splits by numbered files, else by words in folders, else by words in file names; files that
    name no split are `train`. As the library `datasets` does, the first way that fits any file is
    used for all, and files that it does not fit are left out.
    """
    for names_of in (_numbered, _words_of_folders, _words_of_file):
        splits: Splits = {}
        for path in files:
            for split in names_of(path):
                splits.setdefault(split, []).append(path)
        if splits:
            return splits
    return {TRAIN: list(files)}


def _numbered(path: str) -> list[str]:
    match = _NUMBERED.fullmatch(path)
    return [match[1]] if match else []


def _words_of_folders(path: str) -> list[str]:
    return _splits_named(PurePosixPath(path).parts[:-1])


def _words_of_file(path: str) -> list[str]:
    return _splits_named([PurePosixPath(path).stem])


def _splits_named(names: Sequence[str]) -> list[str]:
    """The splits that have a word in one of these names."""
    words = {word for name in names for word in re.split(r"[-._ 0-9]+", name)}
    return [split for split, keywords in WORDS.items() if not words.isdisjoint(keywords)]


# --- what the card names --------------------------------------------------------------------------


def _named(entry: Mapping[str, Any], files: Sequence[str]) -> Splits:
    """The splits of an entry: by its patterns, or by words in the paths below its folder."""
    folder = PurePosixPath(str(entry.get("data_dir") or ""))
    if not entry.get("data_files"):
        below = [path for path in files if PurePosixPath(path).is_relative_to(folder)]
        return _by_words(below)
    splits: Splits = {}
    for split, patterns in _patterns(entry["data_files"]):
        globs = [folder / pattern for pattern in patterns]
        chosen = [path for path in files if any(_matches(path, glob) for glob in globs)]
        if chosen:
            splits[split] = sorted({*splits.get(split, ()), *chosen})
    return splits


def _entries(card: str, where: str) -> list[Mapping[str, Any]]:
    """The entries `configs` of the card's head."""
    import yaml

    head = re.match(r"---\s*\n(.*?)\n---", card, re.DOTALL)
    try:
        content = yaml.safe_load(head[1]) if head else None
    except yaml.YAMLError as error:
        reason = str(error).splitlines()[0]
        raise BadInput(f"{where}: the head of its README.md cannot be read: {reason}.") from None
    listed = content.get("configs") if isinstance(content, Mapping) else None
    return [entry for entry in listed or () if isinstance(entry, Mapping)]


def _patterns(data_files: Any) -> Iterator[tuple[str, list[str]]]:
    """Each split with its patterns, in every form that a card may have."""
    if isinstance(data_files, str):
        yield TRAIN, [data_files]
    elif isinstance(data_files, Mapping):
        for split, paths in data_files.items():
            yield str(split), [paths] if isinstance(paths, str) else list(paths)
    elif isinstance(data_files, list):
        plain = [entry for entry in data_files if isinstance(entry, str)]
        if plain:
            yield TRAIN, plain
        for entry in data_files:
            if isinstance(entry, Mapping):
                paths = entry.get("path") or []
                split = str(entry.get("split") or TRAIN)
                yield split, [paths] if isinstance(paths, str) else list(paths)


def _matches(path: str, pattern: PurePosixPath) -> bool:
    """Whether a glob pattern means a path; `**/` means any folders, also none."""
    tokens = re.split(r"(\*\*/|\*|\?|\[[^]/]+\])", str(pattern))
    forms = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    expression = "".join(
        token if token.startswith("[") else forms.get(token, re.escape(token)) for token in tokens
    )
    return re.fullmatch(expression, path) is not None
