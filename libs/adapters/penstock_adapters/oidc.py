"""Tokens that an OpenID Connect provider signed: JWTs, verified with the keys that the provider publishes.

`joserfc` verifies signatures and claims. The keys are cached, and read again when a token names an unknown key (the
provider has rotated them), and regularly (the provider has withdrawn one).
"""

from __future__ import annotations

import asyncio
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any, cast

import orjson
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet

from penstock_core.access import InvalidTokenError
from penstock_core.errors import PenstockError, UnavailableError

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
"""Signatures with a public key only: `none` and HMAC, whose key could be a public one, are refused."""

TOKEN_LIMIT = 16 * 1024
"""Characters of a token."""

_TYPES = frozenset({"", "jwt", "at+jwt", "application/at+jwt"})
"""Types of ID tokens and access tokens. A logout token of the same provider, for instance, is neither."""

_LEEWAY = 10
"""Seconds by which the clocks of the provider and of the gateway may differ."""

_KEYS_AGE = 600.0
"""Seconds after which keys are read again."""

_KEYS_LIMIT = 3600.0
"""Seconds for which keys are used while the provider does not answer."""

_PAUSE = 5.0
"""Seconds between two attempts to read the keys, whatever unknown keys tokens name."""

_TIMEOUT = 5.0
_DOCUMENT_LIMIT = 1024 * 1024


class OidcConfigurationError(PenstockError):
    """The issuer cannot be used: its URL is not secure."""


class OidcVerifier:
    """Verifies the tokens of one issuer for one audience.

    Args:
        issuer: its URL, exactly as in the claim `iss`. HTTPS, except on this machine.
        audience: in the claim `aud`: the client ID for ID tokens, the resource for access tokens.
        fetch: reads the JSON document at a URL.
        clock: Unix seconds.

    Raises:
        OidcConfigurationError: the URL of the issuer is not secure.
    """

    def __init__(
        self,
        issuer: str,
        audience: str,
        fetch: Callable[[str], Mapping[str, Any]] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        check_url(issuer)
        self._issuer = issuer
        self._audience = audience
        self._fetch = fetch or fetch_json
        self._clock = clock
        self._keys: KeySet | None = None
        self._read_at = self._tried_at = float("-inf")
        self._lock = asyncio.Lock()
        self._reading: asyncio.Task[None] | None = None

    async def claims(self, token: str) -> Mapping[str, Any]:
        """Return the claims of a valid token.

        Raises:
            InvalidTokenError: the signature, issuer, audience, time or type is wrong.
            UnavailableError: the provider does not answer, and its keys are unknown.
        """
        if len(token) > TOKEN_LIMIT or not token.isascii():
            raise InvalidTokenError("it is not a JWT")
        keys = await self._current_keys()
        try:
            try:
                found = jwt.decode(token, keys, algorithms=ALGORITHMS)
            except InvalidKeyIdError:
                found = jwt.decode(token, await self._current_keys(unlike=keys), algorithms=ALGORITHMS)
            self._check(found)
        except (JoseError, ValueError, TypeError, UnicodeError, RecursionError) as error:
            raise InvalidTokenError(f"{type(error).__name__}: {error}") from error
        return found.claims

    def _check(self, token: jwt.Token) -> None:
        if str(token.header.get("typ") or "").lower() not in _TYPES:
            raise InvalidTokenError("it is neither an ID token nor an access token")
        registry = jwt.JWTClaimsRegistry(
            now=int(self._clock()),
            leeway=_LEEWAY,
            iss={"essential": True, "value": self._issuer},
            aud={"essential": True, "value": self._audience},
            exp={"essential": True},
            sub={"essential": True},
        )
        registry.validate(token.claims)

    async def _current_keys(self, unlike: KeySet | None = None) -> KeySet:
        """Return the keys, after reading them if there are none, or only those that a token did not fit."""
        if self._usable(unlike):
            if time.monotonic() - self._read_at > _KEYS_AGE and self._reading is None:
                self._reading = asyncio.create_task(self._read_quietly())
            return cast("KeySet", self._keys)
        async with self._lock:
            if not self._usable(unlike) and time.monotonic() - self._tried_at >= _PAUSE:
                await self._read()
        if not self._usable():
            raise UnavailableError(f"the keys of the OpenID provider {self._issuer} are unknown: it did not answer")
        return cast("KeySet", self._keys)

    def _usable(self, unlike: KeySet | None = None) -> bool:
        fresh = time.monotonic() - self._read_at < _KEYS_LIMIT
        return self._keys is not None and self._keys is not unlike and fresh

    async def _read(self) -> None:
        self._tried_at = time.monotonic()
        self._keys = await self._read_keys()
        self._read_at = time.monotonic()

    async def _read_quietly(self) -> None:
        """Read the keys again while the old ones are used, so that no request waits for the provider."""
        try:
            async with self._lock:
                if time.monotonic() - self._tried_at >= _PAUSE:
                    await self._read()
        except UnavailableError:
            pass  # the old keys are used for a while; then requests are refused with this error
        finally:
            self._reading = None

    async def _read_keys(self) -> KeySet:
        found = await self._get(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
        if found.get("issuer") != self._issuer:
            raise UnavailableError(
                f"the OpenID provider calls itself {str(found.get('issuer'))[:200]!r}, not {self._issuer!r}: "
                "set PENSTOCK_OIDC_ISSUER to that"
            )
        published = (await self._get(str(found.get("jwks_uri")))).get("keys")
        keys = [key for key in cast("list[Any]", published) if _signs(key)] if isinstance(published, list) else []
        try:
            return KeySet.import_key_set(cast("Any", {"keys": keys}))
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise UnavailableError(f"the keys of the OpenID provider {self._issuer} are unusable: {error}") from error

    async def _get(self, url: str) -> Mapping[str, Any]:
        try:
            check_url(url)
            async with asyncio.timeout(2 * _TIMEOUT):
                return await asyncio.to_thread(self._fetch, url)
        except (OSError, ValueError, TimeoutError, OidcConfigurationError) as error:
            raise UnavailableError(f"the OpenID provider does not answer at {url[:200]}: {error}") from error


def check_url(url: str) -> None:
    """Check that a URL is HTTPS, or on this machine.

    Raises:
        OidcConfigurationError: it is neither.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname or ""
    except ValueError as error:
        raise OidcConfigurationError(f"{url[:200]!r} is not a URL") from error
    if host and (parts.scheme == "https" or (parts.scheme == "http" and host in ("localhost", "127.0.0.1", "::1"))):
        return
    raise OidcConfigurationError(f"the URL {url[:200]!r} of the OpenID provider must begin with https://")


def fetch_json(url: str) -> Mapping[str, Any]:
    """Return the JSON object at a URL.

    Raises:
        OSError: the server does not answer, or with an error.
        ValueError: the answer is too large, or no JSON object.
    """
    request = urllib.request.Request(url, headers={"accept": "application/json"})  # noqa: S310 - checked by `check_url`
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:  # noqa: S310
        body = response.read(_DOCUMENT_LIMIT + 1)
    if len(body) > _DOCUMENT_LIMIT:
        raise ValueError("the document is larger than 1 MiB")
    found = orjson.loads(body)
    if not isinstance(found, dict):
        raise ValueError("the document is not a JSON object")
    return cast("dict[str, Any]", found)


def _signs(key: object) -> bool:
    """Return whether a published key is one for signatures with a public key."""
    if not isinstance(key, dict):
        return False
    named = cast("dict[str, Any]", key)
    return named.get("kty") in ("RSA", "EC") and named.get("use", "sig") == "sig"
