"""Logging in with a browser on any device: the OAuth 2.0 device authorization grant (RFC 8628)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from penstock.client import logins
from penstock.client.http.transport import Transport
from penstock.client.logins import Login, ProviderError
from penstock.client.platform import Address

_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
_SLOWER = 5.0


@dataclass(frozen=True, slots=True)
class DeviceLogin:
    """A login that the user confirms in a browser.

    Attributes:
        user_code: what the user enters at `verification_url`.
        complete_url: the same URL with the code in it; empty if the provider has none.
        expires_in: seconds that the user has.
    """

    user_code: str
    verification_url: str
    complete_url: str
    expires_in: float
    _interval: float
    _fields: dict[str, str]
    _login: Login

    def wait(self, sleep: Callable[[float], None] = time.sleep) -> Login:
        """Wait until the user has confirmed, and return the login.

        Raises:
            ProviderError: the user refused, or took too long.
        """
        interval, end = self._interval, time.monotonic() + self.expires_in
        sleep(min(1.0, interval))
        while time.monotonic() < end:
            try:
                return logins.login_of(logins.post(self._login.token_url, self._fields), self._login)
            except ProviderError as error:
                if error.code == "slow_down":
                    interval += _SLOWER
                elif error.code != "authorization_pending":
                    raise
            sleep(interval)
        raise ProviderError("expired_token", "the login was not confirmed in time: run `penstock login` again")


def start(url: str) -> DeviceLogin:
    """Start a login at the platform with this URL.

    Raises:
        NotFoundError: the platform has no OpenID Connect provider.
        ProviderError: the provider refuses, does not answer or has no device flow.
    """
    url = url.strip().rstrip("/")
    transport = Transport(lambda: Address(url, ""), 30.0, 10.0)
    found = transport.json("GET", "/v1/login")
    issuer = str(found["issuer"])
    provider = logins.get(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
    if not provider.get("device_authorization_endpoint") or not provider.get("token_endpoint"):
        raise ProviderError("", f"the OpenID provider {issuer} does not offer the device flow: use a token instead")
    client = {"client_id": str(found["client_id"])}
    resource = {"resource": str(found["audience"])} if found.get("audience") else {}
    asked: dict[str, Any] = logins.post(
        str(provider["device_authorization_endpoint"]), {**client, "scope": str(found["scope"]), **resource}
    )
    try:
        return DeviceLogin(
            user_code=str(asked["user_code"]),
            verification_url=str(asked["verification_uri"]),
            complete_url=str(asked.get("verification_uri_complete") or ""),
            expires_in=float(asked["expires_in"]),
            _interval=float(asked.get("interval") or _SLOWER),
            _fields={"grant_type": _GRANT, "device_code": str(asked["device_code"]), **client, **resource},
            _login=Login(
                url=url,
                token="",
                expires_at=0.0,
                kind=str(found["token"]),
                client_id=client["client_id"],
                token_url=str(provider["token_endpoint"]),
                revocation_url=str(provider.get("revocation_endpoint") or ""),
            ),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise ProviderError("", f"the answer of the OpenID provider {issuer} is incomplete: {error}") from error
