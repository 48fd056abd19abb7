"""Publishers of events over NATS: what a token for events allows there, and that nothing else is possible with it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import secrets
import time
from collections.abc import AsyncGenerator
from typing import Any

import nats.errors
import nats.js.errors
import orjson
import pytest
import pytest_asyncio
from gateway_platform import Http, Platform
from nats.aio.client import Client

from penstock_adapters.nats.bootstrap import consumers, streams
from penstock_contracts import event_codec, subjects
from penstock_core.deployments import definition
from penstock_core.deployments.definition import WebhookTrigger
from penstock_core.deployments.events import WEBHOOK, Event
from penstock_core.deployments.webhooks import Provider

pytestmark = pytest.mark.asyncio(loop_scope="module")

_NUMBERS = itertools.count(1)
_CLIENTS: list[Client] = []


async def new_token(http: Http, **more: Any) -> dict[str, Any]:
    answer = await http("POST", "/v1/tokens", {"name": f"shop-{next(_NUMBERS)}", "role": "publisher", **more})
    assert answer.status == 201, answer.body
    return answer.json()


class Publisher:
    """A NATS client with a token for events, and the errors that the server sent it."""

    def __init__(self) -> None:
        self.client = Client()
        _CLIENTS.append(self.client)
        self.errors: list[str] = []
        self.closed = asyncio.Event()

    async def connect(self, platform: Platform, token: dict[str, Any], **options: Any) -> None:
        async def failed(error: Exception) -> None:
            self.errors.append(str(error))

        async def disconnected() -> None:
            self.closed.set()

        defaults: dict[str, Any] = {
            "inbox_prefix": token["inbox_prefix"],
            "allow_reconnect": False,
            "connect_timeout": 2,
        }
        await self.client.connect(
            address(platform),
            token=token["token"],
            error_cb=failed,
            disconnected_cb=disconnected,
            **(defaults | options),
        )

    async def refused(self, subject: str, body: bytes = b"{}", **more: Any) -> bool:
        """Publish, and return whether the server has refused it."""
        count = len(self.errors)
        await self.client.publish(subject, body, **more)
        await self.client.flush()
        await wait_for(lambda: len(self.errors) > count, 0.5)
        return len(self.errors) > count


def address(platform: Platform) -> str:
    return f"nats://{platform.server.url.rpartition('@')[2]}"


async def wait_for(holds: Any, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        await asyncio.sleep(0.02)


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def closed_clients() -> AsyncGenerator[None]:
    yield
    while _CLIENTS:
        await _CLIENTS.pop().close()


@pytest_asyncio.fixture(loop_scope="module")
async def publisher(platform: Platform, http: Http) -> Publisher:
    one = Publisher()
    await one.connect(platform, await new_token(http))
    return one


def headers(id: str, source: str = "shop") -> dict[str, str]:
    return {"ce-id": id, "ce-source": source}


async def stored(platform: Platform, source: str, id: str) -> Event | None:
    for message in await platform.bus.read(subjects.EVENTS, "events.>"):
        found = event_codec.read((message.headers or {})["Nats-Subject"], message.headers or {}, message.data, 0, 0)
        if (found.source, found.id) == (source, id):
            return found
    return None


async def test_an_event_is_stored_and_acknowledged_like_one_of_jetstream(
    platform: Platform, publisher: Publisher
) -> None:
    id = secrets.token_hex(4)
    acknowledged = await publisher.client.jetstream().publish(
        "events.default.com.acme.sold", b'{"rows": 3}', headers=headers(id)
    )
    assert acknowledged.stream == "EVENTS"
    found = await stored(platform, "shop", id)
    assert found is not None
    assert found.data == {"rows": 3}
    again = await publisher.client.jetstream().publish("events.default.com.acme.sold", b"{}", headers=headers(id))
    assert (again.seq, again.duplicate) == (acknowledged.seq, True)


async def test_the_name_of_the_platform_is_refused_as_a_source(platform: Platform, publisher: Publisher) -> None:
    for source in ("penstock/runs", "penstock/cron", "penstock/cli"):
        with pytest.raises(nats.js.errors.APIError, match="must not begin with 'penstock/'"):
            await publisher.client.jetstream().publish(
                "events.default.penstock.run.finished.v1", b"{}", headers=headers("x", source)
            )
    whole = {"specversion": "1.0", "id": "y", "source": "penstock/runs", "type": "com.acme.sold"}
    with pytest.raises(nats.js.errors.APIError, match="must not begin with"):
        await publisher.client.jetstream().publish(
            "events.default.com.acme.sold", orjson.dumps(whole), headers={"content-type": event_codec.STRUCTURED}
        )
    assert await stored(platform, "penstock/runs", "x") is None
    assert await stored(platform, "penstock/runs", "y") is None


async def test_a_type_of_the_platform_is_refused(platform: Platform, publisher: Publisher, http: Http) -> None:
    """Triggers believe it: it could be a tick, a webhook without its signature, or a call of an endpoint."""
    for type in ("penstock.cron.tick.v1", "penstock.webhook.received.v1", "penstock.endpoint.called.v1"):
        with pytest.raises(nats.js.errors.APIError, match="type must not begin with 'penstock"):
            await publisher.client.jetstream().publish(f"events.default.{type}", b"{}", headers=headers(type))
        event = {"id": type, "source": "shop", "type": type, "subject": "nightly/daily"}
        answer = await http("POST", "/v1/events", event)
        assert (answer.status, answer.json()["errors"][0]["field"]) == (422, "type")
        assert await stored(platform, "shop", type) is None


async def test_an_event_cannot_pass_for_a_verified_webhook(
    platform: Platform, publisher: Publisher, http: Http
) -> None:
    shape = definition.subscription("retrain", WebhookTrigger(name="git", provider=Provider.GITHUB))
    marked = {**headers("marked"), "ce-subject": "retrain/git", f"ce-{WEBHOOK}": "retrain/git"}
    with pytest.raises(nats.js.errors.APIError, match="penstockwebhook must not begin with"):
        await publisher.client.jetstream().publish("events.default.com.github.push", b"{}", headers=marked)
    event = {"id": "marked", "source": "shop", "type": "com.github.push", "subject": "retrain/git"}
    answer = await http("POST", "/v1/events", {**event, WEBHOOK: "retrain/git"})
    assert (answer.status, answer.json()["errors"][0]["field"]) == (422, WEBHOOK)
    assert (await http("POST", "/v1/events", event)).status == 202
    found = await stored(platform, "shop", "marked")
    assert found is not None and not shape.takes(found)
    assert shape.takes(dataclasses.replace(found, extensions={WEBHOOK: "retrain/git"}))


async def test_a_project_that_takes_no_events_refuses_them(platform: Platform, http: Http) -> None:
    one = Publisher()
    await one.connect(platform, await new_token(http, all_projects=True))

    async def refusal(id: str) -> str:
        try:
            await one.client.jetstream().publish("events.team.com.acme.sold", b"{}", headers=headers(id))
        except nats.js.errors.APIError as error:
            return f"{error.code} {error.description}"
        return ""

    assert "404 Project 'team' does not exist" in await refusal("unknown")
    assert (await http("PUT", "/v1/projects/team", {"quotas": {"events_per_second": 0.001}})).status == 201
    assert await refusal("first") == ""
    assert "is its quota" in await refusal("second")
    assert (await http("PUT", "/v1/projects/team", {})).status == 200
    assert (await http("POST", "/v1/projects/team/archive", {})).status == 200
    assert "403 Project 'team' is archived" in await refusal("archived")
    for id in ("unknown", "second", "archived"):
        assert await stored(platform, "shop", id) is None


async def test_a_message_id_cannot_suppress_the_event_of_another(platform: Platform, publisher: Publisher) -> None:
    """The stream drops a second message with the same id: the ids of events are made by the platform."""
    victim = Event(
        project="default",
        type="penstock.run.finished.v1",
        source="penstock/runs",
        id=secrets.token_hex(4),
        time="",
        subject="",
        extensions={},
        data=None,
        received_at=0.0,
        sequence=0,
    )
    forged = event_codec.headers(victim)["Nats-Msg-Id"]
    id = secrets.token_hex(4)
    await publisher.client.jetstream().publish(
        "events.default.com.acme.sold", b"{}", headers={**headers(id), "Nats-Msg-Id": forged, "Nats-Rollup": "all"}
    )
    acknowledged = await platform.bus.publish(
        event_codec.subject(victim), event_codec.encode(victim), event_codec.headers(victim)
    )
    assert not acknowledged.get("duplicate")
    assert await stored(platform, "shop", id) is not None


@pytest.mark.parametrize("body", [b"{", b"x" * 200_000, b'{"a":' * 100 + b"1" + b"}" * 100])
async def test_what_is_no_event_is_refused(publisher: Publisher, body: bytes) -> None:
    with pytest.raises(nats.js.errors.APIError, match="the event is invalid"):
        await publisher.client.jetstream().publish("events.default.com.acme.sold", body, headers=headers("bad"))


async def test_an_invalid_event_that_nobody_waits_for_is_parked(platform: Platform, publisher: Publisher) -> None:
    mark = secrets.token_hex(8)
    await publisher.client.publish("events.default.com.acme.sold", f"{{{mark}".encode(), headers=headers("bad"))
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        parked = [orjson.loads(message.data) for message in await platform.bus.read("PARKED", "parked.gateway")]
        if any("is not JSON" in one["error"] and one["subject"].startswith("published.default.") for one in parked):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the event was not parked")


async def test_a_publisher_can_publish_events_of_its_project_only(publisher: Publisher) -> None:
    refused = [
        "events.other.com.acme.sold",
        "events.default",
        "published.default.com.acme.sold",
        "runs.00.x.requested",
        "logs.x.y.1",
        "audit.gateway",
        "pods.default.x.y.1.finish",
        "commands.builder.register",
        "owners.executor",
        "kills.x.y.1",
        "calls.executor",
        "$JS.API.INFO",
        "$JS.ACK.RUNS.scheduler-00.1.1.1.1.1",
        "$SYS.REQ.USER.AUTH",
        "$SYS.REQ.SERVER.PING.CONNZ",
        "_INBOX.publisher.other.x",
        *(f"$KV.{bucket}.x" for bucket in (subjects.TOKENS_BUCKET, subjects.LIMITS_BUCKET, subjects.VERSIONS_BUCKET)),
    ]
    assert [subject for subject in refused if not await publisher.refused(subject)] == []


async def test_a_publisher_cannot_use_the_jetstream_api(publisher: Publisher) -> None:
    """Every stream and bucket, and every way to read or change one."""
    calls = [f"STREAM.{verb}" for verb in ("NAMES", "LIST")]
    for stream in (str(one["name"]) for one in streams()):
        verbs = ("INFO", "CREATE", "UPDATE", "DELETE", "PURGE", "SNAPSHOT", "MSG.GET", "MSG.DELETE", "LEADER.STEPDOWN")
        calls += [f"STREAM.{verb}.{stream}" for verb in verbs]
        calls += [f"DIRECT.GET.{stream}", f"CONSUMER.CREATE.{stream}", f"CONSUMER.CREATE.{stream}.x.events.>"]
        calls += [f"CONSUMER.DURABLE.CREATE.{stream}.x", f"CONSUMER.LIST.{stream}"]
    for stream, settings in consumers(["default"]):
        name = settings["durable_name"]
        calls += [f"CONSUMER.MSG.NEXT.{stream}.{name}", f"CONSUMER.DELETE.{stream}.{name}"]
    count = len(publisher.errors)
    for call in calls:
        await publisher.client.publish(f"$JS.API.{call}", b"{}", reply=publisher.client.new_inbox())
    await publisher.client.flush()
    await wait_for(lambda: len(publisher.errors) - count == len(calls))
    assert len(publisher.errors) - count == len(calls)


async def test_a_publisher_cannot_listen(platform: Platform, publisher: Publisher, http: Http) -> None:
    for subject in (
        ">",
        "_INBOX.>",
        "events.>",
        "published.>",
        "runs.>",
        "$SYS.>",
        "_INBOX.publisher.other.>",
        "_R_.>",
    ):
        count = len(publisher.errors)
        await publisher.client.subscribe(subject)
        await publisher.client.flush()
        await wait_for(lambda count=count: len(publisher.errors) > count)
        assert len(publisher.errors) > count, subject


async def test_a_reply_subject_reaches_nothing_outside_the_account(platform: Platform, publisher: Publisher) -> None:
    """The server does not check the reply subject against the permissions of a client."""
    heard: list[str] = []

    async def hear(message: Any) -> None:
        heard.append(message.subject)

    subscriptions = [
        await platform.bus.subscribe(subject, hear)
        for subject in (
            "runs.*.forged.>",
            "commands.forged.>",
            "_INBOX.forged.>",
            "events.other.>",
            "published.other.>",
        )
    ]
    for reply in ("runs.00.forged.requested", "commands.forged.x", "_INBOX.forged.x", "events.other.x", "$JS.API.INFO"):
        await publisher.client.publish(
            "events.default.com.acme.sold", b"{}", reply=reply, headers=headers(secrets.token_hex(4))
        )
    # An event that is acknowledged shows that those before it were handled.
    await publisher.client.jetstream().publish(
        "events.default.com.acme.sold", b"{}", headers=headers(secrets.token_hex(4))
    )
    for subscription in subscriptions:
        await platform.bus.leave(subscription)
    assert heard == []


async def test_a_token_can_do_nothing_else_over_http(http: Http) -> None:
    token = (await new_token(http))["token"]
    event = {"specversion": "1.0", "id": secrets.token_hex(4), "source": "shop", "type": "com.acme.sold"}
    assert (await http("POST", "/v1/events", event, token=token)).status == 202
    for method, path in (("GET", "/v1/runs"), ("GET", "/v1/tokens"), ("GET", "/v1/platform"), ("POST", "/v1/runs")):
        answer = await http(method, path, {} if method == "POST" else None, token=token)
        assert answer.status == 403
        assert "may only send events" in answer.json()["detail"]


async def test_a_publisher_of_all_projects(platform: Platform, http: Http) -> None:
    one = Publisher()
    token = await new_token(http, all_projects=True)
    assert (await http("PUT", "/v1/projects/other", {})).status == 201
    await one.connect(platform, token)
    for project in ("default", "other"):
        id = secrets.token_hex(4)
        await one.client.jetstream().publish(f"events.{project}.com.acme.sold", b"{}", headers=headers(id))
        found = await stored(platform, "shop", id)
        assert found is not None
        assert found.project == project
    assert await one.refused("published.default.com.acme.sold")


async def test_tokens_that_are_not_for_nats_are_refused(platform: Platform, http: Http) -> None:
    admin = await http("POST", "/v1/tokens", {"name": f"admin-{secrets.token_hex(4)}", "role": "admin"})
    own = {"token": admin.json()["token"], "inbox_prefix": "_INBOX.x"}
    nothing = {"token": "", "inbox_prefix": "_INBOX.x"}
    for token in (own, nothing, {"token": "guess", "inbox_prefix": "_INBOX.x"}):
        with pytest.raises(nats.errors.Error, match="Authorization"):
            await Publisher().connect(platform, token)


async def test_a_revoked_token_is_refused_and_disconnected_within_a_second(platform: Platform, http: Http) -> None:
    token = await new_token(http)
    one, other = Publisher(), Publisher()
    await one.connect(platform, token)
    await other.connect(platform, await new_token(http))
    began = time.monotonic()
    assert (await http("DELETE", f"/v1/tokens/{token['name']}")).status == 204
    async with asyncio.timeout(20):
        await one.closed.wait()
    print(f"disconnected after {time.monotonic() - began:.3f} s")
    with pytest.raises(nats.errors.Error, match="Authorization"):
        await Publisher().connect(platform, token)
    await other.client.flush()
    assert not other.closed.is_set()


async def test_the_server_disconnects_a_client_whose_token_expires(platform: Platform, http: Http) -> None:
    one = Publisher()
    await one.connect(platform, await new_token(http, expires_in=2.0))
    async with asyncio.timeout(20):
        await one.closed.wait()


async def test_connected_publishers_survive_a_restart_of_the_callout(platform: Platform, http: Http) -> None:
    from penstock_gateway.access.nats_access import NatsAccess

    token = await new_token(http)
    one = Publisher()
    await one.connect(platform, token)
    access = platform.gateway.feature(NatsAccess)
    await access.close()
    await one.client.jetstream().publish("events.default.com.acme.sold", b"{}", headers=headers(secrets.token_hex(4)))
    with pytest.raises(nats.errors.Error):  # nobody answers the server
        await Publisher().connect(platform, token)
    waiting = Publisher()
    connecting = asyncio.create_task(
        waiting.connect(platform, token, allow_reconnect=True, max_reconnect_attempts=-1, reconnect_time_wait=0)
    )
    await access.start()
    async with asyncio.timeout(30):
        await connecting
    assert waiting.client.is_connected
    assert not one.closed.is_set()


async def test_no_credential_is_in_the_logs(platform: Platform, http: Http, capsys: pytest.CaptureFixture[str]) -> None:
    secret = secrets.token_hex(16)
    with contextlib.suppress(nats.errors.Error):
        await Publisher().connect(platform, {"token": secret, "inbox_prefix": "_INBOX.x"})
    text = (platform.root / "nats/server.log").read_text() + "".join(capsys.readouterr())
    assert secret not in text
    assert platform.server.callout.password not in text
    assert platform.server.issuer not in text
