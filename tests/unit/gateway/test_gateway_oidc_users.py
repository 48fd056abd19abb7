"""Revoked tokens of an OpenID Connect provider."""

from __future__ import annotations

import base64
import time
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from penstock_adapters.oidc import OidcVerifier
from penstock_core.access import InvalidTokenError, token_digest
from penstock_gateway.access.oidc_users import OidcRules, OidcUsers

ISSUER = "https://id.example"
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of the curve P-256


class Revoked:
    """Revocations in memory."""

    def __init__(self) -> None:
        self.digests: set[str] = set()

    async def refused(self, digest: str, user: str) -> bool:
        return digest in self.digests

    async def revoke(self, digest: str, until: float, now: float) -> None:
        self.digests.add(digest)


def _other_signature(token: str) -> str:
    """Anybody can turn an ECDSA signature (r, s) into (r, -s), which is as valid."""
    head, _, signature = token.rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    other = raw[:32] + (ORDER - int.from_bytes(raw[32:])).to_bytes(32)
    return f"{head}.{base64.urlsafe_b64encode(other).rstrip(b'=').decode()}"


async def test_a_revoked_token_is_refused_with_every_valid_signature() -> None:
    key = ECKey.generate_key("P-256", {"kid": "k"})

    def fetch(url: str) -> dict[str, Any]:
        if url.endswith("openid-configuration"):
            return {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/keys"}
        return {"keys": [key.as_dict(private=False)]}

    revoked: Any = Revoked()
    users = OidcUsers(OidcVerifier(ISSUER, "penstock", fetch), OidcRules("sub", "groups", {}), revoked)
    claims = {"iss": ISSUER, "aud": "penstock", "sub": "ada", "exp": int(time.time()) + 600}
    token = jwt.encode({"alg": "ES256", "kid": "k"}, claims, key, algorithms=["ES256"])
    other = _other_signature(token)
    assert str((await users.grant(other, token_digest(other))).principal) == "user:ada"

    await users.revoke(token, token_digest(token))
    users.forget()
    for spelling in (token, other):
        with pytest.raises(InvalidTokenError, match="it was revoked"):
            await users.grant(spelling, token_digest(spelling))
