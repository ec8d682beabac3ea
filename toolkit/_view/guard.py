"""Who may read the pages, and what a page may do.

A page on another site can make a browser send requests to this machine, and by rebinding its own
name to 127.0.0.1 it can make them same-origin. Comparing `Origin` with `Host` does not help: both
then have the attacker's name. So `Host` must be one of a fixed list of loopback names; any
port is allowed, since ports are forwarded. If the server listens to other machines, a host name
proves nothing, and every request needs the token.
"""

from __future__ import annotations

import ipaddress
import secrets
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})
COOKIE = "toolkit_view"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""The content security policy: nothing inline, nothing from other hosts."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def is_loopback(host: str) -> bool:
    """Whether a server that listens at `host` can be reached only from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def host_name(header: str) -> str:
    """The name in a `Host` header, without its port; empty if the header is malformed."""
    if header.startswith("["):
        name, bracket, rest = header.partition("]")
        return f"{name}]" if bracket and _is_port(rest) else ""
    name, colon, port = header.partition(":")
    return name.lower() if _is_port(f"{colon}{port}") else ""


def _is_port(text: str) -> bool:
    return not text or (text.startswith(":") and text[1:].isdigit() and text.isascii())


class Guard:
    """Refuses requests that may not read the pages, and adds the headers to every answer."""

    def __init__(self, app: ASGIApp, token: str | None = None) -> None:
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = self._refusal(scope)
        await (answer or self.app)(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if scope["method"] not in ("GET", "HEAD"):
            return PlainTextResponse("These pages are read-only.", 405, {"Allow": "GET, HEAD"})
        if self.token is None:
            hosts = headers.getlist("host")
            if len(hosts) == 1 and host_name(hosts[0]) in LOOPBACK_HOSTS:
                return None
            return PlainTextResponse(
                "This server answers at 127.0.0.1 and localhost only. To open it to other hosts: "
                "toolkit view --host HOST, which asks for a token.",
                403,
            )
        return self._check_token(scope, headers, self.token)

    def _check_token(self, scope: Scope, headers: Headers, token: str) -> Response | None:
        """The answer to a request without the token's cookie. If the token is in the address, it is
        set as a cookie and the request is redirected to the address without it.
        """
        cookie_token = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
        if secrets.compare_digest(cookie_token.encode(), token.encode()):
            return None
        pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        address_token = dict(pairs).get("token", "")
        if not secrets.compare_digest(address_token.encode(), token.encode()):
            return PlainTextResponse("Open the address with the token that was printed.", 401)
        rest = urlencode([pair for pair in pairs if pair[0] != "token"])
        path = "/" + scope["path"].lstrip("/\\")
        answer = RedirectResponse(f"{path}?{rest}" if rest else path, 303)
        answer.set_cookie(COOKIE, token, httponly=True, samesite="strict")
        return answer
