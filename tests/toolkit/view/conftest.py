"""The explorer over a small store, asked without a network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.toolkit.view.seen import make
from toolkit._view.app import make_app
from toolkit._view.library import Library


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


Get = Callable[..., Answer]


def asked(app: object, path: str, method: str = "GET", **headers: str) -> Answer:
    """One request to an ASGI application; header names are written with `_`."""
    place, _, query = path.partition("?")
    params = {"host": "127.0.0.1:8765"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "path": unquote(place),
        "raw_path": place.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "scheme": "http",
        "server": ("127.0.0.1", 8765),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in params.items()],
    }
    sent: list[dict[str, object]] = []

    requests = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> dict[str, object]:
        request: dict[str, object] | None = next(requests, None)
        if request is None:
            await asyncio.Event().wait()  # the client stays and says nothing more
        assert request is not None
        return request

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))  # type: ignore[operator]
    head = {
        name.decode(): value.decode("latin-1")
        for name, value in sent[0]["headers"]  # type: ignore[union-attr, attr-defined]
    }
    body = b"".join(part.get("body", b"") for part in sent[1:])  # type: ignore[misc]
    return Answer(int(sent[0]["status"]), head, body)  # type: ignore[call-overload]


@pytest.fixture(scope="session")
def seen_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("view") / "store")


@pytest.fixture(scope="session")
def app(seen_store: Path) -> object:
    return make_app(Library(seen_store))


@pytest.fixture
def get(app: object) -> Get:
    return lambda path, method="GET", **headers: asked(app, path, method, **headers)
