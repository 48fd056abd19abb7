"""Webhooks: signatures by independent implementations, tolerance, and the events that deliveries become."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime
from typing import Any

import pytest
import standardwebhooks
from hypothesis import given
from hypothesis import strategies as st

from penstock_core.deployments import webhooks
from penstock_core.deployments.definition import Definition, WebhookTrigger, Window, WindowKind, type_matches
from penstock_core.deployments.definition_problems import problems
from penstock_core.deployments.webhooks import (
    RECEIVED,
    InvalidDeliveryError,
    Provider,
    UnusableSecretError,
    Verification,
    event_types,
    read,
    shrink,
    verify,
)

GITHUB = Verification(provider=Provider.GITHUB)
GITLAB = Verification(provider=Provider.GITLAB)
STANDARD = Verification(provider=Provider.STANDARD)
NOW = 1_800_000_000.0
KEY = base64.b64encode(b"a key of twenty-four byt").decode()
SECRET = f"whsec_{KEY}".encode()


def signed(body: bytes, *, secret: str = f"whsec_{KEY}", at: float = NOW, id: str = "msg_1") -> dict[str, str]:
    """Headers of a Standard Webhook, signed by its own library."""
    signature = standardwebhooks.Webhook(secret).sign(id, datetime.fromtimestamp(at, UTC), body.decode())
    return {"webhook-id": id, "webhook-timestamp": str(int(at)), "webhook-signature": signature}


# --------------------------------------------------------------------------------------------------------------- GitHub


def test_the_signature_of_github_is_the_one_of_its_documentation() -> None:
    # The example of "Validating webhook deliveries" in GitHub's documentation.
    signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    secret, body = b"It's a Secret to Everybody", b"Hello, World!"
    assert verify(GITHUB, secret, {"x-hub-signature-256": signature}, body, NOW)
    for wrong in (signature[:-1] + "8", signature.removeprefix("sha256="), "sha256=", "", "sha1=" + signature[7:]):
        assert not verify(GITHUB, secret, {"x-hub-signature-256": wrong}, body, NOW)
    assert not verify(GITHUB, b"another", {"x-hub-signature-256": signature}, body, NOW)
    assert not verify(GITHUB, secret, {"x-hub-signature-256": signature}, body + b" ", NOW)
    assert not verify(GITHUB, secret, {}, body, NOW)


@given(st.binary(min_size=1), st.binary(), st.sampled_from(webhooks.ALGORITHMS), st.booleans(), st.booleans())
def test_any_sender_may_sign_in_hexadecimal_or_base64(
    secret: bytes, body: bytes, algorithm: str, hexadecimal: bool, prefixed: bool
) -> None:
    how = Verification(provider=Provider.HMAC, header="X-Acme-Signature", algorithm=algorithm)
    made = hmac.new(secret, body, getattr(hashlib, algorithm))
    text = made.hexdigest() if hexadecimal else base64.b64encode(made.digest()).decode()
    header = {"x-acme-signature": f"{algorithm}={text}" if prefixed else text}
    assert verify(how, secret, header, body, NOW)
    assert not verify(how, secret, header, body + b"x", NOW)
    assert not verify(how, secret + b"x", header, body, NOW)


def test_the_token_of_gitlab_is_compared_as_a_whole() -> None:
    assert verify(GITLAB, b"s3cret", {"x-gitlab-token": "s3cret"}, b"{}", NOW)
    for wrong in ("", "s3cre", "s3cret ", "S3CRET", "é"):
        assert not verify(GITLAB, b"s3cret", {"x-gitlab-token": wrong}, b"{}", NOW)


# ---------------------------------------------------------------------------------------------------- Standard Webhooks


def test_standard_webhooks_are_verified_as_their_library_signs_them() -> None:
    body = json.dumps({"type": "invoice.paid", "data": {"id": 7}}).encode()
    assert verify(STANDARD, SECRET, signed(body), body, NOW)
    assert verify(STANDARD, KEY.encode(), signed(body), body, NOW)
    assert not verify(STANDARD, SECRET, signed(body), body + b" ", NOW)
    assert not verify(STANDARD, SECRET, signed(body) | {"webhook-id": "msg_2"}, body, NOW)
    assert not verify(STANDARD, SECRET, signed(body) | {"webhook-timestamp": str(int(NOW) + 1)}, body, NOW)
    other = base64.b64encode(b"another key, which is lo").decode()
    assert not verify(STANDARD, SECRET, signed(body, secret=other), body, NOW)


@pytest.mark.parametrize("seconds", [-299, 0, 299])
def test_a_delivery_may_be_five_minutes_old(seconds: int) -> None:
    assert verify(STANDARD, SECRET, signed(b"{}", at=NOW + seconds), b"{}", NOW)


@pytest.mark.parametrize("seconds", [-301, 301, -1e6])
def test_an_old_delivery_is_refused_although_it_is_signed(seconds: float) -> None:
    assert not verify(STANDARD, SECRET, signed(b"{}", at=NOW + seconds), b"{}", NOW)


def test_one_of_several_signatures_suffices_whatever_the_others_are() -> None:
    right = signed(b"{}")["webhook-signature"]
    for others in ("v1,AAAA", "v1a,AAAA", "v1", "v1,not base64!", "v2,x,y", ","):
        assert verify(STANDARD, SECRET, signed(b"{}") | {"webhook-signature": f"{others} {right}"}, b"{}", NOW)
        assert not verify(STANDARD, SECRET, signed(b"{}") | {"webhook-signature": others}, b"{}", NOW)
    assert not verify(STANDARD, SECRET, signed(b"{}") | {"webhook-signature": right.replace("v1,", "v2,")}, b"{}", NOW)


@pytest.mark.parametrize("timestamp", ["", "x", "nan", "-1", "1e9", "9" * 20, "1800000000.5"])
def test_a_delivery_without_a_time_is_refused(timestamp: str) -> None:
    assert not verify(STANDARD, SECRET, signed(b"{}") | {"webhook-timestamp": timestamp}, b"{}", NOW)


@pytest.mark.parametrize("secret", [b"", b"whsec_", b"whsec_!!!", b"not base64!"])
def test_a_secret_that_verifies_nothing_is_an_error_without_the_secret(secret: bytes) -> None:
    with pytest.raises(UnusableSecretError) as caught:
        webhooks.check_secret(STANDARD, secret)
    assert "!!!" not in str(caught.value)
    with pytest.raises(UnusableSecretError):
        webhooks.check_secret(GITHUB, b"")


@given(st.text(), st.text(), st.text(), st.binary())
def test_no_header_raises_or_verifies_by_chance(id: str, timestamp: str, signature: str, body: bytes) -> None:
    headers = {
        "webhook-id": id,
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,{signature}",
        "x-hub-signature-256": f"sha256={signature}",
        "x-gitlab-token": signature,
        "x-signature": signature,
    }
    for provider in Provider:
        assert not verify(Verification(provider=provider), SECRET, headers, body, NOW)


# --------------------------------------------------------------------------------------------------------------- events

REPOSITORY = {"full_name": "acme/models", "html_url": "https://github.com/acme/models"}
PROJECT = {"path_with_namespace": "acme/models", "web_url": "https://gitlab.example.com/acme/models"}


@pytest.mark.parametrize(
    ("event", "data", "type"),
    [
        ("push", {"ref": "refs/heads/main", "repository": REPOSITORY}, "com.github.push"),
        ("release", {"action": "published", "repository": REPOSITORY}, "com.github.release.published"),
        ("pull_request", {"action": "closed", "repository": REPOSITORY}, "com.github.pull_request.closed"),
        ("ping", {"zen": "Keep it.", "repository": REPOSITORY}, "com.github.ping"),
        ("a b", {"action": "c\n>d", "repository": REPOSITORY}, "com.github.a_b.c__d"),
    ],
)
def test_deliveries_of_github_are_events(event: str, data: dict[str, Any], type: str) -> None:
    found = read(Provider.GITHUB, {"x-github-event": event, "x-github-delivery": "72d3"}, data, "here")
    assert (found.type, found.source, found.id) == (type, "https://github.com/acme/models", "72d3")


@pytest.mark.parametrize(
    ("data", "type"),
    [
        ({"object_kind": "push", "ref": "refs/heads/main", "project": PROJECT}, "com.gitlab.push"),
        (
            {"object_kind": "merge_request", "object_attributes": {"action": "merge"}, "project": PROJECT},
            "com.gitlab.merge_request.merge",
        ),
        ({"object_kind": "release", "action": "create", "project": PROJECT}, "com.gitlab.release.create"),
        ({"event_name": "repository_update", "project": PROJECT}, "com.gitlab.repository_update"),
    ],
)
def test_deliveries_of_gitlab_are_events(data: dict[str, Any], type: str) -> None:
    headers = {"x-gitlab-event-uuid": "u1", "idempotency-key": "k1"}
    found = read(Provider.GITLAB, headers, data, "here")
    assert (found.type, found.source, found.id) == (type, PROJECT["web_url"], "k1")
    assert read(Provider.GITLAB, {"x-gitlab-event-uuid": "u1"}, data, "here").id == "u1"
    assert len(read(Provider.GITLAB, {}, data, "here").id) == 64


def test_other_deliveries_are_events_of_one_type() -> None:
    assert read(Provider.STANDARD, {"webhook-id": "m1"}, {}, "here").type == RECEIVED
    found = read(Provider.HMAC, {"x-id": "7"}, {}, "here", "X-Id")
    assert (found.type, found.source, found.id) == (RECEIVED, "here", "7")
    assert read(Provider.HMAC, {}, {}, "here").id == ""


@pytest.mark.parametrize(
    ("provider", "headers", "data"),
    [
        (Provider.GITHUB, {"x-github-event": "push"}, {}),
        (Provider.GITHUB, {"x-github-delivery": "1"}, {}),
        (Provider.GITLAB, {}, {"ref": "x"}),
        (Provider.GITLAB, {}, []),
        (Provider.STANDARD, {}, {}),
        (Provider.HMAC, {}, {}),
    ],
)
def test_a_delivery_without_its_headers_is_refused(provider: Provider, headers: dict[str, str], data: Any) -> None:
    with pytest.raises(InvalidDeliveryError):
        read(provider, headers, data, "here", "x-id")


def test_a_trigger_takes_events_of_its_provider() -> None:
    def takes(provider: Provider, events: tuple[str, ...], type: str) -> bool:
        return any(type_matches(known, type) for known in event_types(provider, events))

    assert takes(Provider.GITHUB, (), "com.github.push")
    assert takes(Provider.GITHUB, ("release",), "com.github.release.published")
    assert takes(Provider.GITHUB, ("release.published",), "com.github.release.published")
    assert not takes(Provider.GITHUB, ("release.published",), "com.github.release.deleted")
    assert not takes(Provider.GITHUB, ("push",), "com.github.pushed")
    assert not takes(Provider.GITLAB, (), "com.github.push")
    assert takes(Provider.STANDARD, (), RECEIVED)


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=200), max_size=20), st.integers(2, 1000))
def test_a_large_payload_loses_its_largest_members(data: dict[str, str], limit: int) -> None:
    small, omitted = shrink(data, limit)
    assert len(json.dumps(small, separators=(",", ":"), ensure_ascii=False).encode()) <= limit
    assert {**small, **{name: data[name] for name in omitted}} == data
    if len(json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode()) <= limit:
        assert omitted == ()


def test_wrong_options_of_a_webhook_are_named() -> None:
    def wrong(**more: Any) -> set[str]:
        trigger = WebhookTrigger(name="webhook", **{"provider": Provider.GITHUB, "secret": "secret:hook", **more})
        return {path.partition(".")[2] for path, _ in problems(Definition(pipeline="p", triggers=(trigger,)))}

    assert wrong() == set()
    for secret in ("", "s3cret value", "/run/secret", "HOOK_SECRET", "secret:a/b"):
        assert wrong(secret=secret) == {"secret"}
    assert wrong(events=("push", "a b")) == {"events"}
    assert wrong(provider=Provider.STANDARD, events=("push",)) == {"events"}
    assert wrong(header="x", algorithm="md5") == {"header", "algorithm"}
    assert wrong(provider=Provider.HMAC, header="x", id_header="y", algorithm="sha1") == set()
    assert wrong(window=Window(kind=WindowKind.ALL_OF, seconds=1)) == {"types"}
    assert wrong(window=Window(kind=WindowKind.DEBOUNCE, seconds=1), not_before="data.at") == {"not_before"}


@pytest.mark.parametrize(
    ("data", "ref", "pushed"),
    [
        ({"ref": "refs/heads/main", "after": "4f2a"}, "main", True),
        ({"ref": "refs/heads/main", "after": "4f2a"}, "refs/heads/main", True),
        ({"ref": "refs/tags/v1", "after": "4f2a"}, "v1", True),
        ({"ref": "refs/heads/dev", "after": "4f2a"}, "main", False),
        ({"ref": "refs/heads/feature/main", "after": "4f2a"}, "main", False),
        ({"ref": "refs/heads/main", "after": "0" * 40}, "main", False),
        ({"ref": "refs/heads/trunk", "after": "4f2a", "repository": {"default_branch": "trunk"}}, "", True),
        ({"ref": "refs/heads/trunk", "after": "4f2a", "project": {"default_branch": "trunk"}}, "", True),
        ({"ref": "refs/heads/main", "after": "4f2a", "repository": {"default_branch": "trunk"}}, "", False),
        ({"ref": "refs/heads/main", "after": "4f2a", "repository": "x", "project": []}, "", True),
        ({"ref": 3, "after": "4f2a"}, "main", False),
        ({"zen": "ping"}, "main", False),
        ([], "main", False),
        (None, "", False),
    ],
)
def test_which_pushes_are_to_a_branch_or_tag(data: object, ref: str, pushed: bool) -> None:
    assert webhooks.pushes_to(data, ref) is pushed


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"publish": "git+https://host/repo@main"}, set[str]()),
        ({"publish": "https://host/repo"}, {"publish"}),
        ({"publish": f"git+https://host/repo@{'a' * 40}"}, {"publish"}),
        ({"publish": "git+https://host/repo", "provider": Provider.STANDARD}, {"publish"}),
        ({"publish": "git+https://host/repo", "inputs": {"x": "data.x"}, "key": "data.y"}, {"inputs", "key"}),
    ],
)
def test_what_can_be_published(changes: dict[str, Any], where: set[str]) -> None:
    fields = {"name": "hook", "provider": Provider.GITHUB, "secret": "secret:github", **changes}
    found = problems(Definition(pipeline="p", triggers=(WebhookTrigger(**fields),)))
    assert {path.rpartition(".")[2] for path, _ in found} == where
