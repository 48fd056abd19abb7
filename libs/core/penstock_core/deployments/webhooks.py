"""Webhooks: HTTP requests of other systems, verified by a shared secret, as events.

`verify` checks a delivery, `read` turns it into the attributes and the payload of an event. The types of events follow
the CloudEvents adapters: `com.github.push`, `com.github.release.published`, `com.gitlab.merge_request.merge`.
"""

from __future__ import annotations

import base64
import binascii
import enum
import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, cast

from penstock_core.errors import PenstockError
from penstock_core.frozen import frozen
from penstock_core.secrets import references
from penstock_core.secrets.references import InvalidReferenceError

RECEIVED = "penstock.webhook.received.v1"
"""Type of the events of webhooks whose senders have no types of their own."""

TOLERANCE = 300.0
"""Seconds by which the time of a signed delivery may differ from now (Standard Webhooks)."""

ALGORITHMS = ("sha256", "sha512", "sha1")
DEFAULT_HEADER = "x-signature"

_WORD = 100


class Provider(enum.StrEnum):
    """Who sends a webhook, which says how it is verified and read."""

    GITHUB = "github"
    GITLAB = "gitlab"
    STANDARD = "standard"
    """Standard Webhooks (https://www.standardwebhooks.com)."""
    HMAC = "hmac"
    """Any sender that signs the body with HMAC."""


TYPED = {Provider.GITHUB: "com.github", Provider.GITLAB: "com.gitlab"}
"""Providers whose deliveries have types, and what the types of their events begin with."""


class InvalidDeliveryError(PenstockError):
    """A verified delivery cannot be read: a header or a field is missing."""

    user_fault: ClassVar[bool] = True


class UnusableSecretError(PenstockError):
    """The secret cannot verify anything. The message does not contain it."""


@frozen(kw_only=True)
class Verification:
    """How a delivery is verified. `header` and `algorithm` only apply to `hmac`."""

    provider: Provider
    header: str = ""
    algorithm: str = "sha256"


@frozen(kw_only=True)
class Delivery:
    """What an event of a delivery is made of. `id` is empty if the sender gives none."""

    type: str
    source: str
    id: str


# --------------------------------------------------------------------------------------------------------------- verify


def verify(how: Verification, secret: bytes, headers: Mapping[str, str], body: bytes, now: float) -> bool:
    """Return whether a delivery was sent by somebody who knows the secret. `headers` have lower-case names.

    Raises:
        UnusableSecretError: the secret is empty or not of the form that the provider uses.
    """
    if not secret:
        raise UnusableSecretError("the secret is empty")
    match how.provider:
        case Provider.GITHUB:
            given = headers.get("x-hub-signature-256", "")
            return given.startswith("sha256=") and _signed(secret, body, given, "sha256")
        case Provider.GITLAB:
            return hmac.compare_digest(secret, headers.get("x-gitlab-token", "").encode("latin-1", "replace"))
        case Provider.STANDARD:
            return _standard(standard_key(secret), headers, body, now)
        case Provider.HMAC:
            return _signed(secret, body, headers.get((how.header or DEFAULT_HEADER).lower(), ""), how.algorithm)


def check_secret(how: Verification, secret: bytes) -> None:
    """Check that a secret can be used.

    Raises:
        UnusableSecretError: it cannot.
    """
    verify(how, secret, {}, b"", 0.0)


def secret_problems(secret: str) -> Iterator[tuple[str, str]]:
    """What is wrong in a reference to a secret, with its field."""
    try:
        references.parse(secret)
    except InvalidReferenceError as error:
        yield "secret", str(error)


def sign(secret: bytes, id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the headers of a Standard Webhook that is sent at a Unix time in seconds.

    Raises:
        UnusableSecretError: the secret is not of the form `whsec_` and Base64 digits.
    """
    digest = _standard_digest(standard_key(secret), id, str(timestamp), body)
    signature = f"v1,{base64.b64encode(digest).decode()}"
    return {"webhook-id": id, "webhook-timestamp": str(timestamp), "webhook-signature": signature}


def _standard_digest(key: bytes, id: str, timestamp: str, body: bytes) -> bytes:
    return hmac.digest(key, f"{id}.{timestamp}.".encode("latin-1", "replace") + body, "sha256")


def _signed(secret: bytes, body: bytes, given: str, algorithm: str) -> bool:
    """Whether `given`, in hexadecimal or Base64 digits, perhaps after `sha256=`, is the HMAC of the body."""
    expected = hmac.digest(secret, body, algorithm)
    text = given.strip().removeprefix(f"{algorithm}=")
    found = _bytes(text, hexadecimal=len(text) == 2 * len(expected))
    return hmac.compare_digest(expected, found)


def _standard(key: bytes, headers: Mapping[str, str], body: bytes, now: float) -> bool:
    id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not id or not timestamp.isascii() or not timestamp.isdecimal() or len(timestamp) > 12:
        return False
    if abs(now - int(timestamp)) > TOLERANCE:
        return False
    expected = _standard_digest(key, id, timestamp, body)
    signatures = [one.partition(",") for one in headers.get("webhook-signature", "").split()]
    # All are compared, so that the time does not tell which one is right.
    return any([hmac.compare_digest(expected, _bytes(text)) for version, _, text in signatures if version == "v1"])


def standard_key(secret: bytes) -> bytes:
    """Return the key in the secret of a Standard Webhook.

    Raises:
        UnusableSecretError: the secret is empty, or not `whsec_` and Base64 digits.
    """
    text = secret.strip().removeprefix(b"whsec_")
    try:
        key = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise UnusableSecretError("the secret of a Standard Webhook is 'whsec_' and Base64 digits") from error
    if not key:
        raise UnusableSecretError("the secret is empty")
    return key


def _bytes(text: str, *, hexadecimal: bool = False) -> bytes:
    try:
        return bytes.fromhex(text) if hexadecimal else base64.b64decode(text, validate=True)
    except ValueError:
        return b""


# ----------------------------------------------------------------------------------------------------------------- read


def read(provider: Provider, headers: Mapping[str, str], data: Any, origin: str, id_header: str = "") -> Delivery:
    """Return type, source and id of the event of a verified delivery.

    Args:
        provider: who sent it.
        headers: of the request, with lower-case names.
        data: the payload.
        origin: the source of events whose payload names none.
        id_header: of `hmac`: the header with the id of a delivery.

    Raises:
        InvalidDeliveryError: the headers or the payload are not those of the provider.
    """
    match provider:
        case Provider.GITHUB:
            kind = _needed(headers, "x-github-event")
            repository = _member(data, "repository", "html_url") or _member(data, "organization", "url")
            type = _type(TYPED[provider], kind, _member(data, "action"))
            return Delivery(type=type, source=repository or origin, id=_needed(headers, "x-github-delivery"))
        case Provider.GITLAB:
            kind = _member(data, "object_kind") or _member(data, "event_name")
            if not kind:
                raise InvalidDeliveryError("the payload of a GitLab webhook has an object_kind or an event_name")
            action = _member(data, "object_attributes", "action") or _member(data, "action")
            id = headers.get("idempotency-key") or headers.get("x-gitlab-event-uuid") or _digest(data)
            source = _member(data, "project", "web_url") or origin
            return Delivery(type=_type(TYPED[provider], kind, action), source=source, id=id)
        case Provider.STANDARD:
            return Delivery(type=RECEIVED, source=origin, id=_needed(headers, "webhook-id"))
        case Provider.HMAC:
            id = _needed(headers, id_header.lower()) if id_header else ""
            return Delivery(type=RECEIVED, source=origin, id=id)


def event_types(provider: Provider, events: tuple[str, ...]) -> tuple[str, ...]:
    """Return the types of the events that a trigger takes; `events` are the provider's, such as `push`; empty: all."""
    prefix = TYPED.get(provider)
    if prefix is None:
        return (RECEIVED,)
    if not events:
        return (f"{prefix}.*",)
    return tuple(type for event in events for type in (f"{prefix}.{event}", f"{prefix}.{event}.*"))


def shrink(data: Any, limit: int) -> tuple[Any, tuple[str, ...]]:
    """Return a payload without its largest members, so that it fits into `limit` bytes as JSON, and their names."""
    sizes = {name: _size(value) for name, value in data.items()} if isinstance(data, dict) else {}
    omitted: list[str] = []
    # The braces, and for each member its name, a colon and a comma, except for the last comma.
    left = 1 + sum(size + _size(name) + 2 for name, size in sizes.items())
    for name in sorted(sizes, key=lambda one: sizes[one], reverse=True):
        if left <= limit:
            break
        omitted.append(name)
        left -= sizes[name] + _size(name) + 2
    if not omitted:
        return data, ()
    return {name: value for name, value in data.items() if name not in omitted}, tuple(omitted)


def _size(value: Any) -> int:
    return len(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass"))


def _needed(headers: Mapping[str, str], name: str) -> str:
    found = headers.get(name, "")
    if not found:
        raise InvalidDeliveryError(f"the header {name} is missing")
    return found


def _member(data: Any, *path: str) -> str:
    for name in path:
        data = cast("dict[str, Any]", data).get(name) if isinstance(data, dict) else None
    return data if isinstance(data, str) else ""


def _type(prefix: str, kind: str, action: str) -> str:
    return ".".join(_word(part) for part in (prefix, kind, action) if part)


def _word(text: str) -> str:
    """The text with characters that a type can have."""
    return "".join(letter if letter.isascii() and (letter.isalnum() or letter in "_-.") else "_" for letter in text)[
        :_WORD
    ].strip(".")


def _digest(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()


def pushes_to(data: Any, ref: str) -> bool:
    """Return whether the payload of GitHub or GitLab is a push to a branch or tag, which still exists after it.

    Args:
        data: the payload.
        ref: branch, tag or `refs/…`; empty: the default branch.
    """
    match data:
        case {"ref": str(pushed), "after": str(after)} if after.strip("0"):
            fields = cast("Mapping[str, Any]", data)
        case _:
            return False
    if not ref:
        known = (fields.get(name) for name in ("repository", "project"))
        names = [cast("Mapping[str, Any]", one).get("default_branch") for one in known if isinstance(one, Mapping)]
        ref = next((name for name in names if isinstance(name, str) and name), "main")
    return pushed in (ref, f"refs/heads/{ref}", f"refs/tags/{ref}")
