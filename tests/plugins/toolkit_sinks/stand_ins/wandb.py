"""Stands in for wandb: keeps what is logged, and writes the file of the run only when it is torn
down, as wandb does. FAILS makes `init` raise.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FAILS: Exception | None = None
run: Any = None
runs: list[Any] = []


class Settings:
    def __init__(self, **values: Any) -> None:
        self.values = values


class Table:
    def __init__(
        self, columns: list[str], data: list[list[Any]], allow_mixed_types: bool = False
    ) -> None:
        self.columns, self.data = columns, data
        assert all(len(row) == len(columns) for row in data)


class Html:
    def __init__(self, text: str, inject: bool) -> None:
        self.text, self.inject = text, inject


class Run:
    def __init__(self, **settings: Any) -> None:
        self.arguments, self.logged, self.summary = settings, {}, {}
        self.exit_code: int | None = None
        self.torn_down = False

    def log(self, data: dict[str, Any]) -> None:
        self.logged.update(data)

    def finish(self, exit_code: int = 0) -> None:
        self.exit_code = exit_code


def init(**settings: Any) -> Run:
    if FAILS is not None:
        raise FAILS
    runs.append(Run(**settings))
    return runs[-1]


def teardown() -> None:
    last = runs[-1]
    last.torn_down = True
    if last.arguments["mode"] == "offline":
        name = last.arguments["id"]
        folder = Path(last.arguments["dir"]) / "wandb" / f"offline-run-20990101_000000-{name}"
        (folder / "files" / "media").mkdir(parents=True)
        (folder / "logs").mkdir()
        (folder / "logs" / "debug.log").write_text("host and paths")
        (folder / f"run-{name}.wandb.syncstate").write_text("")
        (folder / "files" / "media" / "table.json").write_text("{}")
        (folder / f"run-{name}.wandb").write_text(json.dumps(sorted(last.logged)))
