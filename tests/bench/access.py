"""What authentication and authorization add to a request: the grant of a token and the check of a permission.

Prints microseconds per request for each kind of token once it is cached, beside the SHA-256 of the token, and for the
first request with an OpenID token, whose signature is verified.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

from joserfc import jwt
from joserfc.jwk import RSAKey

from penstock_adapters.oidc import OidcVerifier
from penstock_core import access
from penstock_core.access import AccessToken, Permission, Principal, PrincipalKind, Role
from penstock_gateway.access.authentication import Authenticator
from penstock_gateway.access.cached_tokens import CachedTokens
from penstock_gateway.access.oidc_users import OidcRules, OidcUsers

ISSUER = "https://login.example.com"
COUNT = 2000


class Store:
    """A token store and revocations without a broker."""

    async def find(self, digest: str) -> AccessToken | None:
        return AccessToken(name="ci", digest=digest, created_at=1.0, project="default", role=Role.EDITOR)

    async def refused(self, digest: str, user: str) -> bool:
        return False


async def measure(call: Callable[[], Awaitable[Any]], count: int = COUNT) -> float:
    """Return microseconds per call, the best of five."""
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(count):
            await call()
        best = min(best, time.perf_counter() - began)
    return best / count * 1e6


async def main() -> None:
    key = RSAKey.generate_key(2048, {"kid": "k", "use": "sig", "alg": "RS256"})
    documents = {
        f"{ISSUER}/.well-known/openid-configuration": {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/jwks"},
        f"{ISSUER}/jwks": {"keys": [key.as_dict(private=False)]},
    }
    store: Any = Store()
    verifier = OidcVerifier(ISSUER, "penstock", documents.__getitem__)
    users = OidcUsers(verifier, OidcRules("sub", "groups", {"ml": ("*", Role.EDITOR)}), store)
    context: Any = None
    own = Principal(PrincipalKind.USER, "ada")
    authenticator = Authenticator("own", own, CachedTokens(store, context), users)
    claims = {"iss": ISSUER, "aud": "penstock", "sub": "ada", "groups": ["ml"], "exp": int(time.time()) + 3600}
    token = jwt.encode({"alg": "RS256", "kid": "k"}, claims, key)

    async def request(sent: str) -> None:
        grant = await authenticator.grant(sent, "/v1/runs")
        assert grant is not None and grant.allows(Permission.RUNS_CREATE, "default")

    async def digest() -> None:
        hashlib.sha256(token.encode()).hexdigest()

    rows = {
        "SHA-256 of the token": await measure(digest),
        "token of the platform": await measure(lambda: request("own")),
        "named token": await measure(lambda: request("named")),
        "OpenID token": await measure(lambda: request(token)),
        "OpenID token, verified": await measure(lambda: verifier.claims(token), 200),
    }
    for name, took in rows.items():
        print(f"{name:<24} {took:8.1f} µs")
    assert access.token_digest("own")


if __name__ == "__main__":
    asyncio.run(main())
