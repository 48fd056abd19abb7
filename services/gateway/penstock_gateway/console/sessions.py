"""Browsers send their token in a cookie, which only the gateway can read.

A page of another site can make a browser send requests here. `SameSite=Strict` keeps the cookie out of them; as a
second protection, a request that may change something must come from a page of this origin, as browsers say in
`Sec-Fetch-Site` and `Origin`, which pages cannot set.
"""

from __future__ import annotations

from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie

COOKIE = "penstock-session"
_LIMIT = 4000
_READS = frozenset({"GET", "HEAD", "OPTIONS"})


def cookie(token: str, scheme: str) -> str:
    """Return the header that sets the cookie, or deletes it if the token is empty."""
    life = "" if token else "; Max-Age=0"
    secure = "; Secure" if scheme == "https" else ""
    return f"{COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict{secure}{life}"


def token_of(headers: Mapping[bytes, bytes]) -> str:
    """Return the token in the header `Cookie`; empty if there is none."""
    sent = headers.get(b"cookie", b"")
    if COOKIE.encode() not in sent:
        return ""
    try:
        found = SimpleCookie(sent.decode("latin-1")).get(COOKIE)
    except CookieError:
        return ""
    return found.value[:_LIMIT] if found is not None else ""


def fits(token: str) -> bool:
    """Whether a token can be sent in a cookie."""
    return 0 < len(token) <= _LIMIT and all(char.isalnum() or char in "._-~+/=" for char in token)


def is_own_page(method: str, headers: Mapping[bytes, bytes]) -> bool:
    """Whether a request with a cookie comes from a page of this origin, or cannot change anything."""
    if method in _READS:
        return True
    site = headers.get(b"sec-fetch-site")
    if site is not None:
        return site == b"same-origin"
    origin = headers.get(b"origin", b"")
    return origin.partition(b"://")[2] == headers.get(b"host", b"-")
