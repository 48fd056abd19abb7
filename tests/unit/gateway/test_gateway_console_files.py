"""The files of the web console, and the cookie of browsers."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from penstock_gateway.console import sessions
from penstock_gateway.console.files import ConsoleFiles

TOKEN = "JsVv4iNOyIgS57jdTjX9-_z.e30.x"


@pytest.fixture
def built(tmp_path: Path) -> ConsoleFiles:
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_text("<!doctype html>" + "x" * 1000)
    (tmp_path / "assets" / "main-1.js").write_text("let a = 1;" * 100)
    return ConsoleFiles(tmp_path)


def test_files_are_found_by_name_and_compressed(built: ConsoleFiles) -> None:
    page, script = built.page(), built.get("assets/main-1.js")
    assert page.is_page
    assert page.media_type == "text/html; charset=utf-8"
    assert script is not None and script.media_type == "text/javascript; charset=utf-8"
    assert gzip.decompress(script.compressed) == script.content and not script.is_page


@pytest.mark.parametrize("name", ["", "assets", "../index.html", "/etc/passwd", "assets/../../x", "assets/main-2.js"])
def test_nothing_else_is_found(built: ConsoleFiles, name: str) -> None:
    assert built.get(name) is None


def test_without_a_build_the_page_says_how_to_get_it(tmp_path: Path) -> None:
    missing = ConsoleFiles(tmp_path / "nothing")
    assert b"make console" in missing.page().content


def test_a_console_that_is_built_again_is_served_at_once(built: ConsoleFiles, tmp_path: Path) -> None:
    built.page()
    (tmp_path / "assets" / "main-1.js").rename(tmp_path / "assets" / "main-2.js")
    (tmp_path / "index.html").write_text("<script src=main-2.js>")
    assert b"main-2.js" in built.page().content
    assert built.get("assets/main-2.js") is not None


def test_the_cookie_is_for_this_site_and_no_script() -> None:
    header = sessions.cookie(TOKEN, "https")
    assert header == f"penstock-session={TOKEN}; Path=/; HttpOnly; SameSite=Strict; Secure"
    assert "Secure" not in sessions.cookie(TOKEN, "http")
    assert sessions.cookie("", "http").endswith("; Max-Age=0")
    assert sessions.token_of({b"cookie": b"a=b; " + header.partition(";")[0].encode()}) == TOKEN


@pytest.mark.parametrize(
    "cookie", [b"", b"a=b", b"penstock-session", b"penstock-session=", b"\xff=\xfe", b"x" * 100_000]
)
def test_other_cookies_have_no_token(cookie: bytes) -> None:
    assert sessions.token_of({b"cookie": cookie}) == ""


@pytest.mark.parametrize(
    ("method", "headers", "own"),
    [
        ("GET", {}, True),
        ("POST", {}, False),
        ("POST", {b"sec-fetch-site": b"same-origin"}, True),
        ("POST", {b"sec-fetch-site": b"same-site"}, False),
        ("DELETE", {b"sec-fetch-site": b"cross-site", b"origin": b"http://a:1", b"host": b"a:1"}, False),
        ("POST", {b"origin": b"http://a:1", b"host": b"a:1"}, True),
        ("POST", {b"origin": b"http://a:2", b"host": b"a:1"}, False),
        ("POST", {b"origin": b"null", b"host": b"a:1"}, False),
    ],
)
def test_only_pages_of_this_origin_may_change_something(method: str, headers: dict[bytes, bytes], own: bool) -> None:
    assert sessions.is_own_page(method, headers) is own


def test_tokens_that_could_break_out_of_the_cookie_are_refused() -> None:
    assert sessions.fits(TOKEN)
    assert not any(map(sessions.fits, ["", "a;b", "a\r\nb", 'a"b', "a b", "x" * 5000]))
