"""Webhooks: a verified delivery is stored as an event before it is acknowledged, and starts a run."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
import time
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
import standardwebhooks
from gateway_platform import Answer, Http, Platform, secret_file, started

from penstock_adapters.nats.event_stream import EventStream
from penstock_core.pipeline.values import Inline
from penstock_gateway.webhooks.routes import BODY_LIMIT

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "It's a Secret to Everybody"
STANDARD = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()

REPOSITORY = {"id": 1, "full_name": "acme/models", "html_url": "https://github.com/acme/models", "private": True}
PUSH = {
    "ref": "refs/heads/main",
    "before": "0" * 40,
    "after": "a" * 40,
    "repository": REPOSITORY,
    "pusher": {"name": "ada", "email": "ada@example.com"},
    "sender": {"login": "ada", "id": 7},
    "created": False,
    "deleted": False,
    "forced": False,
    "commits": [{"id": "a" * 40, "message": "A change", "added": [], "removed": [], "modified": ["train.py"]}],
    "head_commit": {"id": "a" * 40, "message": "A change"},
}
RELEASE = {
    "action": "published",
    "release": {"id": 5, "tag_name": "v1.2", "draft": False, "prerelease": False},
    "repository": REPOSITORY,
    "sender": {"login": "ada"},
}
MERGE = {
    "object_kind": "merge_request",
    "event_type": "merge_request",
    "user": {"username": "ada"},
    "project": {"path_with_namespace": "acme/models", "web_url": "https://gitlab.example.com/acme/models"},
    "object_attributes": {"iid": 3, "action": "merge", "state": "merged", "target_branch": "main"},
}


@pytest.fixture(autouse=True)
def secrets(platform: Platform) -> None:
    for name, value in {"github": SECRET, "gitlab": "gitlab-token", "standard": STANDARD}.items():
        secret_file(platform, name).write_text(value)


async def deploy(http: Http, name: str, *hooks: dict[str, Any]) -> str:
    triggers = [{"kind": "webhook", "name": f"hook-{n}", "inputs": {"n": "1"}, **hook} for n, hook in enumerate(hooks)]
    answer = await http("PUT", f"/v1/deployments/{name}", {"definition": {"pipeline": "chain", "triggers": triggers}})
    assert answer.status == 200, answer.body
    return f"/v1/webhooks/default/{name}"


async def github(
    http: Http, path: str, event: str, data: Any, delivery: str, secret: str = SECRET, **more: str
) -> Answer:
    body = data if isinstance(data, bytes) else orjson.dumps(data)
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    headers = {
        "x-github-event": event,
        "x-github-delivery": delivery,
        "x-hub-signature-256": f"sha256={signature}",
        "content-type": "application/json",
        "user-agent": "GitHub-Hookshot/1234",
    }
    return await http("POST", path, body, token=None, headers=headers | more)


async def standard(
    http: Http, path: str, data: Any, id: str, at: float | None = None, secret: str = STANDARD
) -> Answer:
    body = orjson.dumps(data)
    moment = datetime.fromtimestamp(int(at or time.time()), UTC)
    headers = {
        "webhook-id": id,
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": standardwebhooks.Webhook(secret).sign(id, moment, body.decode()),
        "content-type": "application/json",
    }
    return await http("POST", path, body, token=None, headers=headers)


async def newest(platform: Platform) -> Any:
    return (await EventStream(platform.bus).newest("default", ">", 1))[0]


async def explained(http: Http, answer: Answer) -> list[tuple[str, str]]:
    deadline = time.monotonic() + 30
    while True:
        found = (await http("GET", f"/v1/events/{answer.json()['digest']}")).json()["decisions"]
        if found and all(one["outcome"] != "started" or one["run_id"] for one in found):
            return [(one["deployment"], one["outcome"]) for one in found]
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


# --------------------------------------------------------------------------------------------------------------- GitHub


async def test_a_push_to_github_starts_a_run(platform: Platform, http: Http) -> None:
    hook = {
        "provider": "github",
        "secret": "secret:github",
        "events": ["push"],
        "filter": 'data.ref == "refs/heads/main"',
        "inputs": {"n": "size(data.commits)", "label": "data.repository.full_name"},
    }
    path = await deploy(http, "on-push", hook)
    answer = await github(http, path, "push", PUSH, "72d3162e-cc78-11e3-81ab-4c9367dc0958")
    assert answer.status == 202
    assert answer.json()["type"] == "com.github.push"
    [run] = await started(platform, "on-push")
    assert (run.inputs["n"], run.inputs["label"]) == (Inline(1), Inline("acme/models"))
    assert (run.trigger["type"], run.trigger["event_source"]) == ("webhook", "https://github.com/acme/models")
    other = await github(http, path, "push", PUSH | {"ref": "refs/heads/dev"}, "d-2")
    assert await explained(http, other) == [("on-push", "filtered")]
    release = await github(http, path, "release", RELEASE, "d-3")
    assert release.json()["type"] == "com.github.release.published"
    assert (await http("GET", f"/v1/events/{release.json()['digest']}")).json()["decisions"] == []


async def test_a_repeated_delivery_is_one_event(platform: Platform, http: Http) -> None:
    hook = {"provider": "github", "secret": "secret:github"}
    path = await deploy(http, "repeated", hook)
    answers = [await github(http, path, "push", PUSH, "same") for _ in range(3)]
    assert [answer.status for answer in answers] == [202, 200, 200]
    assert len({answer.json()["sequence"] for answer in answers}) == 1
    await github(http, path, "push", PUSH, "another")
    assert len(await started(platform, "repeated", 2)) == 2


async def test_two_webhooks_of_a_repository_get_the_same_delivery(platform: Platform, http: Http) -> None:
    hook = {"provider": "github", "secret": "secret:github"}
    for name in ("first", "second"):
        path = await deploy(http, name, hook)
        assert (await github(http, path, "push", PUSH, "shared")).status == 202
    for name in ("first", "second"):
        assert len(await started(platform, name)) == 1


async def test_a_form_of_github_is_read(http: Http) -> None:
    path = await deploy(http, "formed", {"provider": "github", "secret": "secret:github"})
    body = b"payload=%7B%22ref%22%3A%22refs%2Fheads%2Fmain%22%7D"
    form = {"content-type": "application/x-www-form-urlencoded"}
    answer = await github(http, path, "push", body, "form", **form)
    assert answer.status == 202
    event = (await http("GET", f"/v1/events/{answer.json()['digest']}")).json()["event"]
    assert event["data"] == {"ref": "refs/heads/main"}


async def test_what_is_not_signed_is_refused_and_not_stored(platform: Platform, http: Http) -> None:
    path = await deploy(http, "strict-hook", {"provider": "github", "secret": "secret:github"})
    last = await newest(platform)
    wrong = [
        await github(http, path, "push", PUSH, "w-1", secret="guess"),
        await github(http, path, "push", PUSH, "w-2", **{"x-hub-signature-256": ""}),
        await github(http, path, "push", b"not json", "w-3", secret="guess"),
        await http("POST", path, PUSH),
    ]
    assert [answer.status for answer in wrong] == [401] * 4
    assert all(SECRET not in answer.body.decode() for answer in wrong)
    assert (await github(http, path, "push", b"not json", "w-4")).status == 400
    assert (await github(http, path, "", PUSH, "w-5")).status == 422
    assert (await github(http, path, "push", PUSH, "")).status == 422
    too_large = await http("POST", path, headers={"content-length": str(BODY_LIMIT + 1)}, token=None)
    assert too_large.status == 413
    assert (await newest(platform)).sequence == last.sequence


async def test_a_large_push_is_stored_without_its_largest_fields(http: Http) -> None:
    hook = {"provider": "github", "secret": "secret:github", "filter": 'data.ref == "refs/heads/main"'}
    path = await deploy(http, "large-push", hook)
    many = [{"id": f"{n:040}", "message": "x" * 200} for n in range(1000)]
    answer = await github(http, path, "push", PUSH | {"commits": many}, "large")
    assert answer.status == 202
    event = (await http("GET", f"/v1/events/{answer.json()['digest']}")).json()["event"]
    assert event["extensions"]["omitted"] == "commits"
    assert event["data"]["after"] == "a" * 40
    assert "commits" not in event["data"]
    assert await explained(http, answer) == [("large-push", "started")]


# ------------------------------------------------------------------------------------------------ other kinds of sender


async def test_a_merge_in_gitlab_starts_a_run(platform: Platform, http: Http) -> None:
    hook = {"provider": "gitlab", "secret": "secret:gitlab", "events": ["merge_request.merge"]}
    path = await deploy(http, "on-merge", hook)
    headers = {"x-gitlab-event": "Merge Request Hook", "x-gitlab-token": "gitlab-token", "idempotency-key": "k-1"}
    answers = [await http("POST", path, MERGE, token=None, headers=headers) for _ in range(2)]
    assert [answer.status for answer in answers] == [202, 200]
    assert answers[0].json()["type"] == "com.gitlab.merge_request.merge"
    assert len(await started(platform, "on-merge")) == 1
    assert (await http("POST", path, MERGE, token=None, headers=headers | {"x-gitlab-token": "x"})).status == 401


async def test_standard_webhooks_are_verified_and_deduplicated(platform: Platform, http: Http) -> None:
    hook = {"provider": "standard", "secret": "secret:standard", "filter": 'data.type == "dataset.ready"'}
    path = await deploy(http, "on-dataset", hook)
    data = {"type": "dataset.ready", "timestamp": "2026-11-30T10:00:00Z", "data": {"rows": 10}}
    assert [(await standard(http, path, data, "msg_1")).status for _ in range(2)] == [202, 200]
    assert (await standard(http, path, data, "msg_2", at=time.time() - 400)).status == 401
    other = "whsec_" + base64.b64encode(b"a key that is another one").decode()
    assert (await standard(http, path, data, "msg_3", secret=other)).status == 401
    filtered = await standard(http, path, data | {"type": "user.created"}, "msg_4")
    assert await explained(http, filtered) == [("on-dataset", "filtered")]
    assert len(await started(platform, "on-dataset")) == 1


async def test_any_sender_can_sign_with_hmac(platform: Platform, http: Http) -> None:
    file = secret_file(platform, "acme")
    file.write_text("first\n")
    hook = {
        "provider": "hmac",
        "secret": "secret:acme",
        "header": "X-Acme",
        "algorithm": "sha512",
        "id_header": "X-Id",
        "inputs": {"n": "data.n"},
    }
    path = await deploy(http, "on-acme", hook)

    async def send(secret: bytes, id: str) -> int:
        body = b'{"n": 5}'
        signature = base64.b64encode(hmac.digest(secret, body, "sha512")).decode()
        return (await http("POST", path, body, token=None, headers={"x-acme": signature, "x-id": id})).status

    assert [await send(b"first", "1"), await send(b"first", "1")] == [202, 200]
    file.write_text("second\n")
    assert [await send(b"first", "2"), await send(b"second", "2")] == [401, 202]
    file.unlink()
    assert await send(b"second", "3") == 503
    assert len(await started(platform, "on-acme", 2)) == 2


# ------------------------------------------------------------------------------------------------------------- triggers


async def test_a_webhook_without_its_secret_cannot_be_deployed(platform: Platform, http: Http) -> None:
    secret_file(platform, "not-base64").write_text("it's not")
    cases = {
        "secret:missing": "secret 'missing' does not exist in project 'default'",
        "secret:not-base64": "Base64",
        "it's not": "must be a reference such as 'secret:NAME'",
        "PATH": "must be a reference",
        "/etc/passwd": "must be a reference",
        "secret:../default/github": "must be a reference",
        "": "must be a reference",
    }
    for reference, words in cases.items():
        hook = {"kind": "webhook", "name": "w", "provider": "standard", "secret": reference}
        body = {"definition": {"pipeline": "chain", "inputs": {"n": 1}, "triggers": [hook]}}
        answer = await http("PUT", "/v1/deployments/secretless", body)
        assert (answer.status, answer.fields) == (422, {"triggers[0].secret"}), answer.body
        assert words in answer.json()["detail"]
        assert "it's not" not in answer.json()["detail"]


async def test_a_secret_of_the_store_is_for_the_deployments_that_it_names(http: Http) -> None:
    assert (await http("PUT", "/v1/secrets/hub", {"value": SECRET})).status == 200
    hook = {"provider": "github", "secret": "secret:hub"}
    path = await deploy(http, "allowed-hook", hook)
    assert (await github(http, path, "push", PUSH, "t-1")).status == 202
    assert (await http("PUT", "/v1/secrets/hub/users", {"deployments": ["other"]})).status == 200
    assert (await github(http, path, "push", PUSH, "t-2")).status == 503
    body = {
        "definition": {
            "pipeline": "chain",
            "triggers": [{"kind": "webhook", "name": "w", "inputs": {"n": "1"}, **hook}],
        }
    }
    answer = await http("PUT", "/v1/deployments/allowed-hook", body)
    assert answer.status == 422 and "may not be used by deployment 'allowed-hook'" in answer.json()["detail"]
    assert (await http("PUT", "/v1/secrets/hub/users", {"deployments": ["allowed-hook"]})).status == 200
    assert (await github(http, path, "push", PUSH, "t-3")).status == 202
    assert (await http("PUT", "/v1/secrets/hub", {"value": "another-secret"})).status == 200
    assert (await github(http, path, "push", PUSH, "t-4")).status == 401
    assert (await github(http, path, "push", PUSH, "t-4", secret="another-secret")).status == 202
    assert (await http("GET", "/v1/secrets/hub")).json()["last_used_by"] == "deployment allowed-hook, hook-0"
    assert (await http("DELETE", "/v1/secrets/hub")).status == 204


async def test_several_webhooks_of_a_deployment_have_their_own_paths(platform: Platform, http: Http) -> None:
    hub = {"provider": "github", "secret": "secret:github"}
    lab = {"provider": "gitlab", "secret": "secret:gitlab"}
    path = await deploy(http, "several", hub, lab)
    assert (await github(http, path, "push", PUSH, "s-1")).status == 401
    assert (await github(http, f"{path}/hook-0", "push", PUSH, "s-1")).status == 202
    assert (await github(http, f"{path}/hook-1", "push", PUSH, "s-1")).status == 401
    for missing in ("default/several/hook-2", "default/nothing", "other/several/hook-0"):
        assert (await github(http, f"/v1/webhooks/{missing}", "push", PUSH, "s-1")).status == 401
    assert len(await started(platform, "several")) == 1


async def test_nobody_finds_out_which_deployments_have_webhooks(platform: Platform, http: Http) -> None:
    path = await deploy(http, "hidden-hook", {"provider": "github", "secret": "secret:github"})
    await http("PUT", "/v1/deployments/without-hook", {"definition": {"pipeline": "chain", "inputs": {"n": 1}}})
    large = {"content-length": str(BODY_LIMIT + 1)}
    known = [await http("POST", path, PUSH, token=None), await http("POST", path, headers=large, token=None)]
    for other in ("default/without-hook", "default/nothing", "default/hidden-hook/other", "else/hidden-hook"):
        where = f"/v1/webhooks/{other}"
        found = [await http("POST", where, PUSH, token=None), await http("POST", where, headers=large, token=None)]
        assert [(one.status, one.body) for one in found] == [(one.status, one.body) for one in known], other
    assert [one.status for one in known] == [401, 413]


async def test_a_secret_that_is_no_regular_file_is_refused_at_once(platform: Platform, http: Http) -> None:
    os.mkfifo(secret_file(platform, "fifo"))
    secret_file(platform, "folder").mkdir()
    for name in ("fifo", "folder"):
        hook = {"kind": "webhook", "name": "w", "provider": "github", "secret": f"secret:{name}"}
        body = {"definition": {"pipeline": "chain", "inputs": {"n": 1}, "triggers": [hook]}}
        answer = await asyncio.wait_for(http("PUT", "/v1/deployments/piped", body), 20)
        assert (answer.status, answer.fields) == (422, {"triggers[0].secret"}), answer.body
        assert "not a regular file" in answer.json()["detail"]


async def test_a_paused_deployment_receives_webhooks_and_starts_nothing(platform: Platform, http: Http) -> None:
    path = await deploy(http, "paused-hook", {"provider": "github", "secret": "secret:github"})
    await http("POST", "/v1/deployments/paused-hook/pause", {})
    answer = await github(http, path, "push", PUSH, "p-1")
    assert answer.status == 202
    assert await explained(http, answer) == [("paused-hook", "paused")]


async def test_the_secret_is_in_no_answer_and_no_fact(platform: Platform, http: Http) -> None:
    path = await deploy(http, "discreet", {"provider": "github", "secret": "secret:github"})
    await github(http, path, "push", PUSH, "q-1")
    await started(platform, "discreet")
    texts = [(await http("GET", "/v1/deployments/discreet")).body, (await http("GET", "/v1/events")).body]
    for stream in ("DEPLOYMENTS", "EVENTS", "DECISIONS", "RUNS"):
        messages = await platform.bus.read(stream, ">")
        texts += [f"{message.headers}".encode() + message.data for message in messages]
    assert all(SECRET.encode() not in text and b"sha256=" not in text for text in texts)
