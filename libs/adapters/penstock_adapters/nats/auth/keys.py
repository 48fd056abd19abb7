"""The keys of the credentials on NATS: nkeys, which are ed25519 keys in the encoding of NATS."""

from __future__ import annotations

import base64
import hashlib
import secrets

import nkeys
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from penstock_core.errors import PenstockError


class InvalidSeedError(PenstockError):
    """A text is not the seed of an nkey, or of another kind."""


def new_user() -> str:
    """Return the seed of a new user."""
    return nkeys.encode_seed(secrets.token_bytes(32), nkeys.PREFIX_BYTE_USER).decode()


def new_account() -> str:
    """Return the seed of a new account key, such as that of the issuer."""
    return nkeys.encode_seed(secrets.token_bytes(32), nkeys.PREFIX_BYTE_ACCOUNT).decode()


def public(seed: str) -> str:
    """Return the public key of a seed.

    Raises:
        InvalidSeedError: it is none.
    """
    return _public(seed)


def callout_user(issuer: str) -> str:
    """Return the seed of the user as which gateways answer servers: it follows from that of the issuer.

    Raises:
        InvalidSeedError: the text is not the seed of an account key.
    """
    return nkeys.encode_seed(derived(issuer, "callout user"), nkeys.PREFIX_BYTE_USER).decode()


def derived(issuer: str, purpose: str) -> bytes:
    """Return 32 secret bytes that follow from the seed of the issuer.

    Raises:
        InvalidSeedError: the text is not the seed of an account key.
    """
    if not _public(issuer).startswith("A"):
        raise InvalidSeedError("the seed of the issuer must be that of an account key, which begins with SA")
    return hashlib.sha256(f"penstock {purpose}\n{issuer}".encode()).digest()


def sign(seed: str, data: bytes) -> bytes:
    """Return the signature of data."""
    return _pair(seed).sign(data)


def is_signed(key: str, data: bytes, signature: bytes) -> bool:
    """Return whether a signature of data is that of a public key."""
    try:
        VerifyKey(base64.b32decode(key + "=" * (-len(key) % 8))[1:33]).verify(data, signature)
    except (BadSignatureError, ValueError, TypeError):
        return False
    return True


def _public(seed: str) -> str:
    # The library declares another type than the text that it returns.
    return bytes(_pair(seed).public_key).decode()


def _pair(seed: str) -> nkeys.KeyPair:
    try:
        return nkeys.from_seed(seed.encode())
    except (nkeys.NkeysError, ValueError) as error:
        raise InvalidSeedError("this is not the seed of an nkey, which begins with SU or SA") from error
