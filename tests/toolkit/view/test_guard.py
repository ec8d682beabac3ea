"""Who may read the pages: DNS rebinding, other hosts, tokens, policies."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.toolkit.view.conftest import Get, asked
from toolkit._cli import main
from toolkit._view import server
from toolkit._view.app import make_app
from toolkit._view.guard import HEADERS, LOOPBACK_HOSTS, POLICY, host_name, is_loopback
from toolkit._view.library import Library
from toolkit._view.page import static_folder

TOKEN = "0123456789abcdef"


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost", "LOCALHOST:1", "[::1]:9000"])
def test_loopback_names_are_answered_at_any_port(get: Get, host: str) -> None:
    assert get("/", host=host).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:8765",
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "localhost:8765.evil.example",
        "localhost:evil",
        "evil.example@localhost",
        "127.0.0.1 evil",
        "[::1].evil.example",
        "[::1]evil",
        "127.1",
        "0.0.0.0",
        "0x7f000001",
        "localhost.",
        "",
    ],
)
def test_a_rebound_name_is_refused_whatever_its_origin(get: Get, host: str) -> None:
    """The attack: a page at evil.example rebinds its name to 127.0.0.1, so that its requests are
    same-origin and `Origin` equals `Host`.
    """
    paths = ("/", "/run/full-1", "/run/full-1/progress.json", f"{static_folder()}/view.js", "/nix")
    for path in paths:
        answer = asked_with(get, path, host)
        assert answer.status == 403, path
        assert "full-1" not in answer.text
        assert answer.headers["content-security-policy"] == POLICY


def asked_with(get: Get, path: str, host: str):
    return get(path, host=host, origin=f"http://{host}", referer=f"http://{host}/")


def test_forwarded_headers_do_not_stand_for_the_host(get: Get) -> None:
    for name in ("x_forwarded_host", "x_host", "forwarded"):
        assert get("/", host="evil.example", **{name: "localhost"}).status == 403


@given(st.sampled_from(sorted(LOOPBACK_HOSTS)), st.text(min_size=1, max_size=12))
def test_only_a_port_may_follow_a_name_of_the_list(name: str, rest: str) -> None:
    port = rest.startswith(":") and (rest == ":" or (rest[1:].isdecimal() and rest.isascii()))
    assert host_name(name + rest) not in LOOPBACK_HOSTS or port


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_nothing_is_written(get: Get, method: str) -> None:
    answer = get("/", method=method)
    assert answer.status == 405
    assert answer.headers["allow"] == "GET, HEAD"


def test_every_answer_has_the_headers(get: Get) -> None:
    for path in ("/", "/nix", "/run/full-1/features", "/run/full-1?table=stages&as=csv"):
        answer = get(path)
        for name, value in HEADERS.items():
            assert answer.headers[name.lower()] == value, path
        assert "access-control-allow-origin" not in answer.headers
    assert "unsafe" not in POLICY


@pytest.mark.parametrize("name", ["view.css", "view.js"])
def test_a_browser_keeps_the_style_sheet_and_the_script_but_no_page(get: Get, name: str) -> None:
    """Their address changes with them, so that what is kept is never old."""
    address = f"{static_folder()}/{name}"
    assert address in get("/").text
    kept = get(address)
    assert kept.status == 200
    assert kept.headers["cache-control"] == "private, max-age=31536000, immutable"
    others = {header: value for header, value in HEADERS.items() if header != "Cache-Control"}
    assert others.items() <= {header: kept.headers[header.lower()] for header in others}.items()
    assert get(f"/static/0123456789abcdef/{name}").status == 404


# --- other hosts ---


@pytest.fixture
def guarded(seen_store: Path) -> object:
    return make_app(Library(seen_store), TOKEN)


def test_other_hosts_need_the_token_and_loopback_names_too(guarded: object) -> None:
    """A name proves nothing where other machines can connect."""
    for host in ("box.example:8765", "localhost", "127.0.0.1"):
        for cookie in ("", "toolkit_view=", "toolkit_view=wrong", f"other={TOKEN}"):
            answer = asked(guarded, "/", host=host, cookie=cookie)
            assert answer.status == 401
            assert "full-1" not in answer.text
    assert asked(guarded, "/?token=wrong").status == 401


def test_the_token_of_the_address_becomes_a_cookie(guarded: object) -> None:
    answer = asked(guarded, f"/search?q=a+b&token={TOKEN}", host="box.example")
    assert (answer.status, answer.headers["location"]) == (303, "/search?q=a+b")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    page = asked(guarded, "/", host="box.example", cookie=f"toolkit_view={TOKEN}")
    assert "full-1" in page.text


def test_the_redirect_stays_on_this_host(guarded: object) -> None:
    for path in ("//evil.example", "/\\evil.example", "///evil.example/x"):
        location = asked(guarded, f"{path}?token={TOKEN}").headers["location"]
        assert location.startswith("/")
        assert not location.startswith(("//", "/\\"))


def test_a_host_beyond_loopback_gets_a_token_made(
    seen_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import uvicorn

    tokens = {}
    for host in ("0.0.0.0", "127.0.0.1"):
        monkeypatch.setattr(
            uvicorn.Server,
            "run",
            lambda self, sockets, host=host: (
                tokens.__setitem__(host, self.config.app.token)
                or [each.close() for each in sockets]
            ),
        )
        shown: list[str] = []
        server.serve(seen_store, host, 0, None, shown.append)
        assert (tokens[host] or "none") in (shown[0] + " none")
    assert tokens["127.0.0.1"] is None
    assert len(tokens["0.0.0.0"]) == 32


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.5", False),
        ("box", False),
        ("localhost.example", False),
    ],
)
def test_which_hosts_are_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_a_bad_token_or_a_taken_port_is_refused_in_words(
    seen_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = server._listen("127.0.0.1", 0)
    taken.listen()
    port = str(taken.getsockname()[1])
    for args, message in (
        (["--token", "short"], "give at least 16 letters"),
        (["--host", ""], "--host is empty"),
        (["--port", port], "cannot listen at"),
    ):
        with pytest.raises(SystemExit) as done:
            main(["view", str(seen_store), *args])
        assert done.value.code == 2
        assert message in capsys.readouterr().err
    taken.close()


def test_a_store_that_is_not_there_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as done:
        main(["view", str(tmp_path / "nix")])
    assert done.value.code == 2
    assert "nix" in capsys.readouterr().err
