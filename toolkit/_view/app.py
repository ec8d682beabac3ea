"""The explorer's addresses: which function makes which page.

Pages are made one at a time, off the event loop, but for what a run found, which may take seconds.
An address that names what is not there is a page that says so.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from toolkit._report.page import report_resource
from toolkit._run.run_folder import REPORT, run_folder
from toolkit._view import evidence, pages
from toolkit._view.grid import FORMATS
from toolkit._view.guard import Guard
from toolkit._view.library import Library
from toolkit._view.page import Page, resource
from toolkit._view.request import Query
from toolkit.errors import BadInput, ToolkitError

Maker = Callable[..., Page]
PAGES: dict[str, Maker] = {
    "/": pages.runs,
    "/search": pages.search,
    "/compare": pages.compare,
    "/run/{name}": pages.run,
    "/run/{name}/findings": pages.findings,
    "/run/{name}/features": pages.features,
    "/run/{name}/feature": evidence.feature,
    "/run/{name}/samples": pages.samples,
    "/run/{name}/sample": evidence.sample,
    "/run/{name}/games": pages.games,
    "/run/{name}/game": pages.game,
    "/run/{name}/comparison": evidence.comparison,
}
REPORT_POLICY = (
    "sandbox allow-scripts allow-popups; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
)
"""A report is a page of its own with a policy of its own, which names its script by hash. Here it
is an origin of its own besides: it can read nothing of these pages.
"""


def make_app(library: Library, token: str | None = None) -> Guard:
    """The application. With `token`, only requests that have it are answered."""
    app = Explorer(library)
    routes = [Route(path, app.page(maker), methods=["GET"]) for path, maker in PAGES.items()]
    routes += [
        Route("/run/{name}/progress.json", app.progress, methods=["GET"]),
        Route("/run/{name}/report", app.report, methods=["GET"]),
        *(
            Route(f"/static/{name}", app.static(text, kind), methods=["GET"])
            for name, (text, kind) in _static().items()
        ),
    ]
    handlers = {404: app.missing, 500: app.failed}
    return Guard(Starlette(routes=routes, exception_handlers=handlers), token)


def _static() -> dict[str, tuple[str, str]]:
    return {
        "report.css": (report_resource("report.css"), "text/css"),
        "sort.js": (report_resource("report.js"), "text/javascript"),
        "view.css": (resource("view.css"), "text/css"),
        "view.js": (resource("view.js"), "text/javascript"),
    }


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
            with nullcontext() if maker is pages.findings else self.library.turn:
                page = maker(self.library, query, **request.path_params)
                return self._download(page, query) or self._html(page, request)
        except ToolkitError as error:
            return self._error(404 if isinstance(error, BadInput) else 500, str(error), request)

    def _html(self, page: Page, request: Request, status: int = 200) -> Response:
        def taken(table: str, form: str) -> str:
            return str(request.url.include_query_params(table=table, **{"as": form}).query)

        path = request.url.path
        states = [row.run for row in self.library.states()] if page.run is None else []
        common = {"path": path, "taken": taken, "runs": states, "q": request.query_params.get("q")}
        return HTMLResponse(page.html(**common), status)

    def _download(self, page: Page, query: Query) -> Response | None:
        """A table of the page, where one is taken away."""
        form, table = query.text("as"), query.text("table")
        if form is None:
            return None
        grids = {grid.name: grid for grid in page.grids}
        if form not in FORMATS or table not in grids:
            raise BadInput("Tables are taken away as ?table=NAME&as=csv or as=parquet.")
        write, kind = FORMATS[form]
        name = f'attachment; filename="{table}.{form}"'
        return Response(write(grids[table]), media_type=kind, headers={"Content-Disposition": name})

    def _error(self, status: int, message: str, request: Request) -> Response:
        page = Page("error.html", "Not there" if status == 404 else "Failed", {"message": message})
        return self._html(page, request, status)

    def missing(self, request: Request, error: Exception) -> Response:
        """The page of an address that there is not."""
        return self._error(404, "There is no such page.", request)

    def failed(self, request: Request, error: Exception) -> Response:
        """The page of an unexpected error; its traceback is in the terminal."""
        message = f"{type(error).__name__}: {error}. The traceback is where toolkit view runs."
        return self._error(500, message, request)

    async def progress(self, request: Request) -> Response:
        """How far a run is, for the script."""
        return await run_in_threadpool(self._progress, request.path_params["name"])

    def _progress(self, name: str) -> Response:
        try:
            with self.library.turn:
                return JSONResponse(pages.progress_facts(self.library, name))
        except ToolkitError as error:
            return JSONResponse({"error": str(error)}, 404)

    async def report(self, request: Request) -> Response:
        """The report of a run, as it stands in its folder."""
        return await run_in_threadpool(self._report, request)

    def _report(self, request: Request) -> Response:
        try:
            with self.library.turn:
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
            return Response(text, media_type=f"{kind}; charset=utf-8")

        return answer
