"""A worker in a container, reached through the engine's socket."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from io import BufferedReader, RawIOBase
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from toolkit.executors.interface import WorkerEnd, WorkerRequest, translate_paths
from toolkit.executors.protocol import WorkerEvent, read_events
from toolkit.secrets import NONE, HidingFile, Secrets

from ._failures import ending

if TYPE_CHECKING:
    from docker import DockerClient

STDOUT = 1
HEADER = 8
STOP_SECONDS = 10


class ContainerWorker:
    """Implements `toolkit.executors.interface.Worker` for one container."""

    def __init__(
        self,
        client: DockerClient,
        container: Any,
        request: WorkerRequest,
        folders: Mapping[Path, PurePosixPath],
    ) -> None:
        self.name, self._executor = request.name, request.executor
        self._client, self._container = client, container
        self._folders = dict(folders)
        self._log = request.folder / f"{request.name}.log"
        self._secrets = NONE
        self._sending = threading.Lock()
        self._attached: Any = None
        self._socket: socket.socket | None = None

    def attach(self) -> None:
        """Open the pipes. Called before the container starts, so that no output is missed."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        streams = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
        attached = self._client.api.attach_socket(self._container.id, params=streams)
        self._attached = attached
        self._socket = getattr(attached, "_sock", attached)
        self._socket.settimeout(None)

    def send(self, message: Mapping[str, Any]) -> None:
        """Write one JSON line. If the worker is dead, the reader of its events notices."""
        if message["type"] == "open":
            self._secrets = Secrets(message.get("secrets", {}))
        text = json.dumps(translate_paths(message, self._folders))
        with self._sending, contextlib.suppress(OSError):
            if self._socket is not None:
                self._socket.sendall(f"{text}\n".encode())

    def events(self) -> Iterator[WorkerEvent]:
        """Yield events until the container or the engine ends."""
        assert self._socket is not None
        with contextlib.closing(HidingFile(self._log.open("ab"))) as log:
            log.secrets = self._secrets
            output = BufferedReader(_Stdout(self._socket, log))
            yield from read_events(output, log)

    def stop(self, *, now: bool = False) -> WorkerEnd:
        """Close the worker's stdin, or kill the container with `now`; returns how it ended."""
        from docker.errors import APIError, DockerException, NotFound
        from requests.exceptions import RequestException

        try:
            if now:
                with contextlib.suppress(APIError):
                    self._container.kill()
            else:
                self._close_stdin()
            return self._wait_and_remove()
        except NotFound:
            return WorkerEnd("its container was removed")
        except (DockerException, RequestException, OSError):
            return WorkerEnd("the container engine ended")
        finally:
            self.close()

    def _close_stdin(self) -> None:
        with contextlib.suppress(OSError):
            if self._socket is not None:
                self._socket.shutdown(socket.SHUT_WR)

    def _wait_and_remove(self) -> WorkerEnd:
        from docker.errors import APIError
        from requests.exceptions import RequestException

        try:
            self._container.wait(timeout=STOP_SECONDS)
        except RequestException:
            with contextlib.suppress(APIError):
                self._container.kill()
            self._container.wait(timeout=STOP_SECONDS)
        self._container.reload()
        state = self._container.attrs["State"]
        limit = int(self._container.attrs["HostConfig"].get("Memory") or 0)
        self._container.remove(force=True)
        return ending(
            int(state.get("ExitCode") or 0),
            out_of_memory=bool(state.get("OOMKilled")),
            limit=limit,
            executor=self._executor,
        )

    def close(self) -> None:
        """Close the pipes and the connection to the engine."""
        for stream in (self._attached, self._socket):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()
        self._client.close()


class _Stdout(RawIOBase):
    """The worker's stdout, taken from the engine's frames; its stderr goes to the log."""

    def __init__(self, source: socket.socket, log: HidingFile) -> None:
        super().__init__()
        self._source, self._log = source, log
        self._remaining, self._stream = 0, STDOUT

    def readable(self) -> bool:
        """Always true."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read bytes of stdout; returns 0 at the end."""
        while True:
            if not self._remaining and not self._next_frame():
                return 0
            data = self._receive(min(self._remaining, len(buffer)))
            if not data:
                return 0
            self._remaining -= len(data)
            if self._stream == STDOUT:
                buffer[: len(data)] = data
                return len(data)
            self._log.write(data)

    def _next_frame(self) -> bool:
        """Read a frame's header: its stream and its length. False at the end."""
        header = b""
        while len(header) < HEADER:
            data = self._receive(HEADER - len(header))
            if not data:
                return False
            header += data
        self._stream, self._remaining = header[0], int.from_bytes(header[4:], "big")
        return True

    def _receive(self, count: int) -> bytes:
        try:
            return self._source.recv(count)
        except OSError:
            return b""
