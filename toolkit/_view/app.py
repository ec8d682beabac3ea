"""The explorer's URLs: which function makes which page.

Pages are made one at a time, off the event loop, except for parts that are loaded later, which may
take seconds. A URL of something that does not exist gives a page that says so.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from toolkit._report.figures import chart_file
from toolkit._run.run_folder import REPORT, run_folder
from toolkit._view.grid import FORMATS, WRITERS, Grid
from toolkit._view.guard import Guard
from toolkit._view.library import Library
from toolkit._view.page import Page, static_files, static_folder
from toolkit._view.pages import (
    compare,
    comparison,
    feature,
    features,
    games,
    runs,
    sample,
    search,
)
from toolkit._view.request import Query
from toolkit.errors import BadInput, ToolkitError

Maker = Callable[..., Page]
PAGES: dict[str, Maker] = {
    "/": runs.runs,
    "/search": search.search,
    "/compare": compare.compare,
    "/run/{name}": runs.run,
    "/run/{name}/findings": runs.findings,
    "/run/{name}/features": features.features,
    "/run/{name}/ranking": features.ranking,
    "/run/{name}/feature": feature.feature,
    "/run/{name}/neighbours": feature.neighbours,
    "/run/{name}/samples": sample.samples,
    "/run/{name}/sample": sample.sample,
    "/run/{name}/games": games.games,
    "/run/{name}/game": games.game,
    "/run/{name}/comparison": comparison.comparison,
    "/run/{name}/tested": comparison.tested,
}
READ_BY_ALL = ("table", "as")
READ: dict[Maker, Sequence[str]] = {
    search.search: ("q",),
    compare.compare: ("a", "b"),
    features.features: ("layer", "stage", "by", "significant"),
    features.ranking: ("layer", "stage", "by", "significant"),
    feature.feature: ("address",),
    feature.neighbours: ("address",),
    sample.samples: ("offset",),
    sample.sample: ("sample", "position", "space", "part"),
    games.games: ("outcome", "offset"),
    games.game: ("game",),
    comparison.comparison: ("comparison", "low", "high", "q", "q_low"),
    comparison.tested: ("comparison", "low", "high", "q", "q_low"),
}
"""The names in the query of an address that a page reads."""
LOADED_LATER = (runs.findings, features.ranking, feature.neighbours, comparison.tested)
"""Parts of other pages, which take longer: other pages do not wait for them."""
REPORT_POLICY = (
    "sandbox allow-scripts allow-popups; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
)
"""A report is a separate page with its own policy, which names its script by hash. Served here, it
is sandboxed as well, as a separate origin that cannot read these pages.
"""

FOR_GOOD = "private, max-age=31536000, immutable"
"""How a browser keeps the style sheet and the script; it keeps no page."""


def make_app(library: Library, token: str | None = None) -> Guard:
    """The application. With `token`, only requests that have it are answered."""
    app = Explorer(library)
    routes = [Route(path, app.page(maker), methods=["GET"]) for path, maker in PAGES.items()]
    routes += [
        Route("/run/{name}/progress.json", app.progress, methods=["GET"]),
        Route("/run/{name}/report", app.report, methods=["GET"]),
        *(
            Route(f"{static_folder()}/{name}", app.static(text, kind), methods=["GET"])
            for name, (text, kind) in static_files().items()
        ),
    ]
    handlers = {404: app.missing, 500: app.failed}
    return Guard(Starlette(routes=routes, exception_handlers=handlers), token)


class Explorer:
    """Answers requests from a library."""

    def __init__(self, library: Library) -> None:
        self.library = library

    def page(self, maker: Maker) -> Callable[[Request], Any]:
        """The endpoint of a page."""

        async def answer(request: Request) -> Response:
            return await run_in_threadpool(self._answer, maker, request)

        return answer

    def _answer(self, maker: Maker, request: Request) -> Response:
        query = Query(dict(request.query_params))
        try:
            query.check_names(READ.get(maker, ()), READ_BY_ALL)
            with nullcontext() if maker in LOADED_LATER else self.library.lock:
                page = maker(self.library, query, **request.path_params)
                if not query.downloads:
                    return self._html(page, request)
            return self._download(page, query)
        except ToolkitError as error:
            return self._error(404 if isinstance(error, BadInput) else 500, str(error), request)

    def _html(self, page: Page, request: Request, status: int = 200) -> Response:
        def download_query(table: str, file_format: str) -> str:
            return str(request.url.include_query_params(table=table, **{"as": file_format}).query)

        path = request.url.path
        states = [row.run for row in self.library.states()] if page.run is None else []
        common = {
            "path": path,
            "download_query": download_query,
            "runs": states,
        }
        return HTMLResponse(page.html(**common), status)

    def _download(self, page: Page, query: Query) -> Response:
        """The download of a table or of a chart."""
        file_format, table = query.text("as") or "", query.text("table")
        if file_format == "svg" and table in page.charts:
            headers = {"Content-Disposition": f'attachment; filename="{table}.svg"'}
            drawn = chart_file(page.charts[table])
            return Response(drawn, media_type="image/svg+xml", headers=headers)
        grids = {grid.name: grid for grid in page.grids}
        if file_format not in FORMATS or table not in grids:
            raise BadInput(
                "Download a table with ?table=NAME&as=csv or as=parquet, a chart with as=svg."
            )
        write, kind = FORMATS[file_format]
        headers = {"Content-Disposition": f'attachment; filename="{table}.{file_format}"'}
        if grids[table].parts is None:
            return Response(write(grids[table]), media_type=kind, headers=headers)
        path = self._written(grids[table], file_format)
        remove = BackgroundTask(os.unlink, path)
        return FileResponse(path, media_type=kind, headers=headers, background=remove)

    def _written(self, grid: Grid, file_format: str) -> Path:
        """A temporary file with all rows of a table. Meanwhile pages are made; another file
        waits.
        """
        handle, name = tempfile.mkstemp(prefix="toolkit-view-", suffix=f".{file_format}")
        os.close(handle)
        try:
            assert grid.parts is not None
            with self.library.download_lock:
                WRITERS[file_format](grid.parts(), Path(name))
        except BaseException:
            os.unlink(name)
            raise
        return Path(name)

    def _error(self, status: int, message: str, request: Request) -> Response:
        page = Page("error.html", "Not found" if status == 404 else "Failed", {"message": message})
        return self._html(page, request, status)

    def missing(self, request: Request, error: Exception) -> Response:
        """The page for an unknown address."""
        return self._error(
            404, "There is no such page. Choose a run from the first page, or search.", request
        )

    def failed(self, request: Request, error: Exception) -> Response:
        """The page for an unexpected error, whose traceback is in the terminal."""
        message = f"{type(error).__name__}: {error}. `toolkit view` has printed the traceback."
        return self._error(500, message, request)

    async def progress(self, request: Request) -> Response:
        """The progress of a run, for the page's script."""
        return await run_in_threadpool(self._progress, request.path_params["name"])

    def _progress(self, name: str) -> Response:
        try:
            with self.library.lock:
                return JSONResponse(runs.progress_facts(self.library, name))
        except ToolkitError as error:
            return JSONResponse({"error": str(error)}, 404)

    async def report(self, request: Request) -> Response:
        """The report of a run, from its folder."""
        return await run_in_threadpool(self._report, request)

    def _report(self, request: Request) -> Response:
        try:
            with self.library.lock:
                run = self.library.run(request.path_params["name"])
            text = (run_folder(self.library.folder, run.id) / REPORT).read_text("utf-8")
        except BadInput as error:
            return self._error(404, str(error), request)
        except OSError:
            message = f"Run {run.id} has no report yet. To write it: toolkit report {run.id}"
            return self._error(404, message, request)
        return HTMLResponse(text, headers={"Content-Security-Policy": REPORT_POLICY})

    def static(self, text: str, kind: str) -> Callable[[Request], Any]:
        """The endpoint of a file of this package."""

        async def answer(request: Request) -> Response:
            return Response(
                text, media_type=f"{kind}; charset=utf-8", headers={"Cache-Control": FOR_GOOD}
            )

        return answer
