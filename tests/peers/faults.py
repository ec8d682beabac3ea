"""A proxy before an S3 server that fails on purpose: one request in so many is refused, cut off,
left without an answer until the client gives up, or carried out and then answered with an error.
"""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

FAULTS = ("refused", "reset", "cut", "timeout", "lost answer")
TIMEOUT_SECONDS = 4.0
"""How long the client of the tests waits for an answer."""
EVERY_TIMEOUT = 40
"""One fault in so many is a request without an answer: each takes its time."""
LIST = "list-type=2"
"""Part of the address of every request for a list of files."""
SKIPPED = {"connection", "transfer-encoding", "content-length", "keep-alive"}


class FaultyProxy:
    """Passes requests on to a server, and injects faults while `share` is above zero."""

    def __init__(self, server: str, seed: int) -> None:
        self.server, self.share = urlsplit(server).netloc, 0.0
        self.injected: Counter[str] = Counter()
        self.cut_lists = 0
        """One list of files in so many is cut off, if this is above zero."""
        self._lists = 0
        self.bytes_sent = self.requests = 0
        """Bytes of the bodies of all answers, and how many answers there were."""
        self._draw, self._turn = random.Random(seed), threading.Lock()

    def fault(self, method: str, path: str) -> str | None:
        """The fault of the next request, if it has one. Only a write can lose its answer."""
        with self._turn:
            if self.cut_lists and LIST in path:
                self._lists += 1
                if self._lists % self.cut_lists == 0:
                    self.injected["cut"] += 1
                    return "cut"
            if self._draw.random() >= self.share:
                return None
            writes = method in ("PUT", "POST", "DELETE")
            kind = self._draw.choices(FAULTS, (1, 1, 1, 0, 6 if writes else 0))[0]
            if sum(self.injected.values()) % EVERY_TIMEOUT == EVERY_TIMEOUT // 2:
                kind = "timeout"
            self.injected[kind] += 1
            return kind

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Serve on a free port of loopback; gives the address."""
        proxy = self

        class Handler(_Handler):
            faults = proxy

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}"
            server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    faults: FaultyProxy
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Stay silent."""

    def _serve(self) -> None:
        kind = self.faults.fault(self.command, self.path)
        size = int(self.headers.get("Content-Length") or 0)
        if kind == "cut" and size:
            self.rfile.read(size // 2)  # the rest of the request never arrives
            self._hang_up()
            return
        body = self.rfile.read(size)
        if kind == "timeout":
            time.sleep(1.5 * TIMEOUT_SECONDS)
        if kind in ("reset", "timeout"):
            self._hang_up()
        elif kind == "refused":
            self._answer(503, {}, b"<Error><Code>SlowDown</Code></Error>")
        else:
            status, headers, data = self._forward(body)
            if kind == "lost answer":
                self._answer(500, {}, b"<Error><Code>InternalError</Code></Error>")
            else:
                self._answer(status, headers, data, cut=kind == "cut")

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.faults.server, timeout=60)
        headers = {k: v for k, v in self.headers.items() if k.lower() != "connection"}
        connection.request(self.command, self.path, body or None, headers)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        kept = {k: v for k, v in answer.getheaders() if k.lower() not in SKIPPED}
        if self.command == "HEAD" and (length := answer.getheader("Content-Length")):
            kept["Content-Length"] = length
        return answer.status, kept, data

    def _answer(
        self, status: int, headers: dict[str, str], data: bytes, *, cut: bool = False
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.faults.requests += 1
        if self.command != "HEAD":
            self.faults.bytes_sent += len(data)
            with suppress(OSError):
                self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self._hang_up()

    def _hang_up(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(2)
