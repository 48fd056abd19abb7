"""Logins at platforms whose users come from an OpenID Connect provider: stored tokens, renewed before they expire.

They are in `$XDG_CONFIG_HOME/penstock/logins.json` (default `~/.config/penstock`), readable by their owner only.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import fcntl
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from penstock.errors import ClientError

_MARGIN = 60.0
"""Seconds before its end at which a token is renewed."""

_TIMEOUT = 10.0
_ANSWER_LIMIT = 1024 * 1024


class ProviderError(ClientError):
    """The OpenID Connect provider refused a request. `code` is its error code (RFC 6749), such as `access_denied`."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Login:
    """A login at a platform.

    Attributes:
        url: of the platform.
        token: what requests carry.
        expires_at: when it expires, in Unix seconds.
        kind: `id_token` or `access_token`: which token of the provider it is.
        client_id: of the provider's client.
        token_url: where the provider renews tokens.
        revocation_url: where it revokes them; empty if it does not.
        refresh_token: renews the token; empty if the provider issued none.
    """

    url: str
    token: str
    expires_at: float
    kind: str
    client_id: str
    token_url: str
    revocation_url: str = ""
    refresh_token: str = ""

    def __repr__(self) -> str:
        return f"Login({self.url!r})"


def login_of(answer: Mapping[str, Any], known: Login) -> Login:
    """Return a login with the tokens of the provider's answer.

    Raises:
        ProviderError: the answer lacks the token.
    """
    token = answer.get(known.kind)
    if not isinstance(token, str) or not token:
        raise ProviderError("", f"the OpenID provider issued no {known.kind}")
    return dataclasses.replace(
        known,
        token=token,
        expires_at=_expiry(token, answer),
        refresh_token=str(answer.get("refresh_token") or known.refresh_token),
    )


def current_token(url: str) -> str:
    """Return the token of the login at a platform, renewed if it is about to expire; empty without a login."""
    login = load(url)
    if login is None or time.time() < login.expires_at - _MARGIN or not login.refresh_token:
        return login.token if login is not None else ""
    with _lock():
        login = load(url)
        if login is None or time.time() < login.expires_at - _MARGIN:  # another command has renewed it
            return login.token if login is not None else ""
        fields = {"grant_type": "refresh_token", "refresh_token": login.refresh_token, "client_id": login.client_id}
        # If the provider does not renew it, the platform refuses the old token and says what to do.
        with contextlib.suppress(ProviderError):
            login = login_of(post(login.token_url, fields), login)
            _store(login)
    return login.token


def load(url: str) -> Login | None:
    """Return the login at a platform, or None."""
    found = _read().get(url)
    try:
        return Login(**cast("dict[str, Any]", found)) if isinstance(found, dict) else None
    except TypeError:  # written by another version
        return None


def save(login: Login) -> None:
    """Store a login, in place of an earlier one at that platform."""
    with _lock():
        _store(login)


def delete(url: str) -> None:
    """Remove the login at a platform, if there is one."""
    with _lock():
        kept = {known: login for known, login in _read().items() if known != url}
        _write(kept)


def file() -> Path:
    """Return where logins are stored."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "penstock" / "logins.json"


def post(url: str, fields: Mapping[str, str]) -> dict[str, Any]:
    """Post a form to the provider and return the JSON of its answer.

    Raises:
        ProviderError: it refuses, or does not answer.
    """
    return _request(urllib.request.Request(check_url(url), urllib.parse.urlencode(fields).encode()))  # noqa: S310 - checked


def get(url: str) -> dict[str, Any]:
    """Return the JSON at a URL of the provider. Raises as `post`."""
    return _request(urllib.request.Request(check_url(url)))  # noqa: S310 - checked


def check_url(url: str) -> str:
    """Return a URL that is HTTPS, or on this machine.

    Raises:
        ProviderError: it is neither.
    """
    parts = urllib.parse.urlsplit(url)
    local = parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1", "::1")
    if parts.scheme != "https" and not local:
        raise ProviderError("", f"the OpenID provider has the insecure URL {url[:200]!r}: it must begin with https://")
    return url


def _request(request: urllib.request.Request) -> dict[str, Any]:
    request.add_header("accept", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:  # noqa: S310 - checked by `check_url`
            text = response.read(_ANSWER_LIMIT)
    except urllib.error.HTTPError as error:
        raise _refusal(error) from error
    except (OSError, ValueError) as error:
        raise ProviderError("", f"the OpenID provider does not answer at {request.full_url[:200]}: {error}") from error
    if not text.strip():
        return {}
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ProviderError("", f"the answer of {request.full_url[:200]} is not JSON") from error
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _refusal(error: urllib.error.HTTPError) -> ProviderError:
    with error:
        try:
            found = json.loads(error.read(_ANSWER_LIMIT))
        except (OSError, ValueError):
            found = {}
    named = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    code = str(named.get("error") or "")
    reason = str(named.get("error_description") or code or f"status {error.code}")
    return ProviderError(code, f"the OpenID provider refused the request: {reason[:500]}")


def _expiry(token: str, answer: Mapping[str, Any]) -> float:
    """Return when a token expires: its own claim, which only the platform verifies, or what the provider says."""
    try:
        part = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        return float(claims["exp"])
    except (ValueError, LookupError, TypeError):
        given = answer.get("expires_in")
        return time.time() + (float(given) if isinstance(given, int | float) else 300.0)


@contextlib.contextmanager
def _lock() -> Generator[None]:
    folder = file().parent
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / "logins.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read() -> dict[str, Any]:
    try:
        found = json.loads(file().read_text())
    except (OSError, ValueError):
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _store(login: Login) -> None:
    _write({**_read(), login.url: dataclasses.asdict(login)})


def _write(logins: Mapping[str, Any]) -> None:
    new = file().with_name(f"logins.json.{os.getpid()}")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as written:
        json.dump(logins, written)
    new.replace(file())
