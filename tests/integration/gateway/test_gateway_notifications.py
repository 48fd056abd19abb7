"""Notifications of deployments, to a real HTTP receiver and a real SMTP server."""

from __future__ import annotations

import asyncio
import base64
import email.message
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from email import message_from_bytes
from typing import Any, TypeVar

import orjson
import pytest
import pytest_asyncio
import standardwebhooks
from aiosmtpd.smtp import SMTP
from gateway_platform import Http, Platform, running, secret_file
from pydantic import SecretStr

from penstock_adapters.nats.event_stream import EventStream
from penstock_contracts import subjects
from penstock_core.deployments.events import Event
from penstock_core.facts import Outcome
from penstock_core.notifications import DRIFT_DETECTED

pytestmark = pytest.mark.asyncio(loop_scope="module")

T = TypeVar("T")
SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()


class Receiver:
    """An HTTP server that records requests, and answers with the next of `statuses`, or 204."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.statuses: list[int] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head.split("\r\n"))
        }
        body = await reader.readexactly(int(headers["content-length"]))
        self.requests.append((headers, body))
        status = self.statuses.pop(0) if self.statuses else 204
        writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    @property
    def bodies(self) -> list[Any]:
        return [orjson.loads(body) for _, body in self.requests]


class Mailbox:
    """What the SMTP server received."""

    def __init__(self) -> None:
        self.mails: list[tuple[list[str], email.message.Message]] = []
        self.port = 0

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.mails.append((envelope.rcpt_tos, message_from_bytes(envelope.content)))
        return "250 OK"

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if address.startswith("nobody"):
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mailbox() -> AsyncGenerator[Mailbox]:
    box = Mailbox()
    server = await asyncio.get_running_loop().create_server(lambda: SMTP(box, hostname="test"), "127.0.0.1", 0)
    box.port = server.sockets[0].getsockname()[1]
    async with server:
        yield box


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def platform(tmp_path_factory: pytest.TempPathFactory, mailbox: Mailbox) -> AsyncGenerator[Platform]:
    settings = {
        "notify_networks": "127.0.0.0/8",
        "smtp_url": SecretStr(f"smtp://127.0.0.1:{mailbox.port}"),
        "mail_from": "penstock@example.com",
    }
    async with running(tmp_path_factory.mktemp("gateway"), **settings) as platform:
        yield platform


@asynccontextmanager
async def receiving(receiver: Receiver) -> AsyncIterator[Receiver]:
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", receiver.port)
    receiver.port = server.sockets[0].getsockname()[1]
    async with server:
        yield receiver


@pytest_asyncio.fixture(loop_scope="module")
async def receiver() -> AsyncGenerator[Receiver]:
    async with receiving(Receiver()) as found:
        yield found


@pytest.fixture(autouse=True)
def secrets(platform: Platform) -> None:
    secret_file(platform, "hook").write_text(SECRET)


async def until(read: Callable[[], Awaitable[T]], enough: Callable[[T], bool]) -> T:
    deadline = time.monotonic() + 60
    while not enough(found := await read()):
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.02)
    return found


async def received(receiver: Receiver, count: int) -> list[Any]:
    async def bodies() -> list[Any]:
        return receiver.bodies

    return await until(bodies, lambda found: len(found) >= count)


async def decided(platform: Platform) -> None:
    """Wait until all events were decided on and all notifications were accepted."""

    async def open() -> int:
        left = 0
        for stream in (subjects.RUNS, subjects.EVENTS, subjects.NOTIFICATIONS):
            name = subjects.RUN_EVENTS_CONSUMER if stream == subjects.RUNS else subjects.NOTIFICATIONS_CONSUMER
            info = await platform.bus.api(f"CONSUMER.INFO.{stream}.{name}")
            left += info["num_pending"] + info["num_ack_pending"]
        return left

    await until(open, lambda left: left == 0)


def hook(receiver: Receiver, **more: Any) -> dict[str, Any]:
    url = f"http://127.0.0.1:{receiver.port}/hooks"
    return {"name": "hook", "kind": "webhook", "url": url, "secret": "secret:hook", "throttle": 0, **more}


async def deploy(http: Http, name: str, *rules: dict[str, Any]) -> None:
    definition = {"pipeline": "chain", "inputs": {"n": 1}, "notify": list(rules)}
    answer = await http("PUT", f"/v1/deployments/{name}", {"definition": definition})
    assert answer.status == 200, answer.body


async def end_run(platform: Platform, deployment: str, outcome: Outcome, **more: Any) -> str:
    run_id = await platform.request(trigger={"deployment": deployment}, requested_at=time.time())
    await platform.finish(run_id, outcome, **more)
    return run_id


async def test_a_failed_run_and_its_recovery_are_notified_by_a_signed_webhook(
    platform: Platform, http: Http, receiver: Receiver
) -> None:
    await deploy(http, "signed", hook(receiver))
    failed = await end_run(platform, "signed", Outcome.FAILED, error="step train: no data")
    await received(receiver, 1)
    good = await end_run(platform, "signed", Outcome.SUCCEEDED)
    await received(receiver, 2)
    await end_run(platform, "signed", Outcome.SUCCEEDED)
    await decided(platform)
    found = [standardwebhooks.Webhook(SECRET).verify(body, headers) for headers, body in receiver.requests]
    assert [(one["type"], one["data"]["run"], one["data"]["reason"]) for one in found] == [
        ("penstock.notification.failed.v1", failed, "step train: no data"),
        ("penstock.notification.recovered.v1", good, ""),
    ]
    assert SECRET.encode() not in b"".join(body for _, body in receiver.requests)


async def test_a_message_to_slack(platform: Platform, http: Http, receiver: Receiver) -> None:
    secret_file(platform, "slack").write_text(f"http://127.0.0.1:{receiver.port}/services/T0/B0/secret")
    rule = {"name": "chat", "kind": "slack", "secret": "secret:slack", "text": "{deployment}: {reason}"}
    await deploy(http, "chatty", rule)
    await end_run(platform, "chatty", Outcome.FAILED, error="<!channel> & co")
    assert await received(receiver, 1) == [{"text": "chatty: &lt;!channel&gt; &amp; co"}]


async def test_an_email(platform: Platform, http: Http, mailbox: Mailbox) -> None:
    to = ["ada@example.com", "nobody@example.com"]
    await deploy(http, "mailed", {"name": "mail", "kind": "email", "to": to, "on": ["succeeded"]})
    run_id = await end_run(platform, "mailed", Outcome.SUCCEEDED)
    await decided(platform)
    [(recipients, mail)] = mailbox.mails
    assert recipients == ["ada@example.com"]
    assert mail["Subject"] == "mailed: run succeeded"
    assert mail["From"] == "penstock@example.com"
    assert mail["Message-ID"].startswith("<msg_")
    assert f"Run {run_id} of deployment mailed (chain v1) succeeded" in str(mail.get_payload())


async def test_a_notification_is_sent_again_with_the_same_id_until_it_is_accepted(
    platform: Platform, http: Http, receiver: Receiver
) -> None:
    receiver.statuses = [503, 302]
    await deploy(http, "retried", hook(receiver))
    await end_run(platform, "retried", Outcome.FAILED)
    await received(receiver, 3)
    assert len({headers["webhook-id"] for headers, _ in receiver.requests}) == 1
    await decided(platform)
    assert len(receiver.requests) == 3


async def test_what_nobody_accepts_is_a_dead_letter_that_can_be_replayed(
    platform: Platform, http: Http, receiver: Receiver
) -> None:
    receiver.statuses = [410]
    await deploy(http, "gone", hook(receiver))
    await end_run(platform, "gone", Outcome.FAILED)

    async def letters() -> list[Any]:
        found = (await http("GET", "/v1/dead-letters")).json()["dead_letters"]
        return [one for one in found if one["deployment"] == "gone"]

    [letter] = await until(letters, lambda found: bool(found))
    assert (letter["kind"], letter["trigger"], letter["error"]) == ("undelivered", "hook", "the server answered 410")
    shown = (await http("GET", f"/v1/dead-letters/{letter['id']}")).json()
    assert shown["data"]["fields"]["deployment"] == "gone"
    answer = await http("POST", f"/v1/dead-letters/{letter['id']}/replay")
    assert (answer.status, answer.json()) == (200, {"event": 0})
    await received(receiver, 2)
    assert len({headers["webhook-id"] for headers, _ in receiver.requests}) == 1
    assert await letters() == []


async def test_a_rule_that_was_corrected_counts_for_what_is_not_delivered_yet(
    platform: Platform, http: Http, receiver: Receiver
) -> None:
    wrong = Receiver()
    async with receiving(wrong):
        wrong.statuses = [500] * 100
        await deploy(http, "corrected", hook(wrong))
        await end_run(platform, "corrected", Outcome.FAILED)
        await received(wrong, 1)
    await deploy(http, "corrected", hook(receiver))
    await received(receiver, 1)


async def test_a_receiver_that_fails_harms_no_other(platform: Platform, http: Http, receiver: Receiver) -> None:
    broken = Receiver()
    broken.statuses = [500] * 1000
    async with receiving(broken):
        await deploy(http, "broken", hook(broken))
        await deploy(http, "whole", hook(receiver))
        for _ in range(130):
            await end_run(platform, "broken", Outcome.FAILED)
        await end_run(platform, "whole", Outcome.FAILED)
        await received(receiver, 1)

        async def letters() -> int:
            found = (await http("GET", "/v1/dead-letters?limit=1000")).json()["dead_letters"]
            return len([one for one in found if one["deployment"] == "broken"])

        # A hundred wait for another attempt, the others do not fill the queue.
        await until(letters, lambda found: found >= 20)
    await http("DELETE", "/v1/deployments/broken")
    await decided(platform)


async def test_an_end_that_is_published_again_notifies_once(platform: Platform, http: Http, receiver: Receiver) -> None:
    await deploy(http, "once", hook(receiver))
    run_id = await end_run(platform, "once", Outcome.FAILED)
    await received(receiver, 1)
    await decided(platform)
    [event] = await EventStream(platform.bus).newest("default", "penstock.run.finished.v1", 1)
    assert event.id == run_id
    # Past the window in which the broker knows it: by another id of the message.
    headers = {"ce-id": event.id, "ce-source": event.source, "ce-type": event.type}
    await platform.bus.publish(subjects.event("default", event.type), orjson.dumps(event.data), headers)
    await decided(platform)
    assert len(receiver.requests) == 1


async def test_a_manual_run_that_is_late_is_notified(platform: Platform, http: Http, receiver: Receiver) -> None:
    definition = {"pipeline": "chain", "inputs": {"n": 1}, "notify": [hook(receiver)], "late": {"after": "200ms"}}
    assert (await http("PUT", "/v1/deployments/delayed", {"definition": definition})).status == 200
    run_id = (await http("POST", "/v1/deployments/delayed/runs", {})).json()["run_id"]
    [found] = await received(receiver, 1)
    assert found["type"] == "penstock.notification.late.v1"
    text = f"Run {run_id} of deployment delayed is late: it has not finished 0.2s after its request"
    assert found["data"]["text"] == text
    zone = {**definition, "late": {"after": "1h", "tz": "Europe/Pariss"}}
    assert (await http("PUT", "/v1/deployments/delayed", {"definition": zone})).fields == {"late.tz"}
    await platform.finish(run_id)


async def test_drift_is_notified(platform: Platform, http: Http, receiver: Receiver) -> None:
    await deploy(http, "drifting", hook(receiver, on=["drift"]))
    data = {"deployment": "drifting", "reason": "psi of age is 0.31"}
    await EventStream(platform.bus).publish(
        Event(project="default", type=DRIFT_DETECTED, source="penstock/steps", id="1", data=data)
    )
    [found] = await received(receiver, 1)
    assert found["data"]["text"] == "The data of deployment drifting drifted: psi of age is 0.31"


async def test_events_of_users_about_penstock_are_not_believed(
    platform: Platform, http: Http, receiver: Receiver
) -> None:
    await deploy(http, "spoofed", hook(receiver))
    data = {"deployment": "spoofed", "state": "failed"}
    event = {"type": "penstock.run.finished.v1", "source": "acme", "id": "1", "specversion": "1.0", "data": data}
    answer = await http("POST", "/v1/events", event)
    assert (answer.status, answer.json()["errors"][0]["field"]) == (422, "type"), answer.body
    for source, type in (("penstock/runs", event["type"]), ("penstock/steps", DRIFT_DETECTED)):
        forged = {**event, "source": source, "type": type}
        answer = await http("POST", "/v1/events", forged)
        assert (answer.status, answer.json()["errors"][0]["field"]) == (422, "source"), answer.body
        answer = await http(
            "POST", "/v1/events", [forged], headers={"content-type": "application/cloudevents-batch+json"}
        )
        assert answer.status == 422, answer.body
    await decided(platform)
    assert receiver.requests == []


async def test_test_notifications(platform: Platform, http: Http, receiver: Receiver, mailbox: Mailbox) -> None:
    secret_file(platform, "of-a-file").write_text(SECRET + "\n")
    file = hook(receiver, name="file", secret="secret:of-a-file")
    mail = {"name": "mail", "kind": "email", "to": ["nobody@example.com"]}
    await deploy(http, "tested", file, mail)
    answer = await http("POST", "/v1/deployments/tested/notifications/test")
    [sent, refused] = answer.json()["tests"]
    assert sent == {"rule": "file", "kind": "webhook", "sent": True, "error": ""}
    assert (refused["sent"], "550" in refused["error"] or "refused" in refused["error"].lower()) == (False, True)
    assert receiver.bodies[0]["data"]["reason"] == "this is a test"
    one = await http("POST", "/v1/deployments/tested/notifications/test?rule=file")
    assert [test["rule"] for test in one.json()["tests"]] == ["file"]
    assert (await http("POST", "/v1/deployments/tested/notifications/test?rule=no")).status == 404
    assert (await http("POST", "/v1/deployments/absent/notifications/test")).status == 404


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        ({"kind": "webhook", "url": "https://example.com", "secret": "secret:missing"}, "notify[0].secret"),
        ({"kind": "webhook", "url": "example.com", "secret": "secret:hook"}, "notify[0].url"),
        ({"kind": "slack", "secret": "secret:hook"}, "notify[0].secret"),
        ({"kind": "pager"}, "notify[0].kind"),
        ({"kind": "email", "to": ["ada@example.com"], "on": ["sometimes"]}, "notify[0].on.0"),
        ({"kind": "email", "to": ["ada@example.com"], "text": "{secret}"}, "notify[0].text"),
        ({"kind": "email", "to": ["ada@example.com"], "cc": "x"}, "notify[0].cc"),
        ({"kind": "email", "to": ["ada@example.com"], "throttle": "soon"}, "notify[0].throttle"),
    ],
)
async def test_rules_are_checked_before_anything_changes(http: Http, rule: dict[str, Any], field: str) -> None:
    definition = {"pipeline": "chain", "inputs": {"n": 1}, "notify": [{"name": "x", **rule}]}
    answer = await http("PUT", "/v1/deployments/refused", {"definition": definition})
    assert answer.status == 422
    assert field in answer.fields, answer.json()
    assert SECRET not in answer.body.decode()
    assert (await http("GET", "/v1/deployments/refused")).status == 404


async def test_rules_of_the_project_notify_of_runs_of_all_deployments(
    platform: Platform, http: Http, receiver: Receiver
) -> None:
    body = {"rules": [hook(receiver, name="all", on=["failed"])]}
    wrong = await http("PUT", "/v1/notifications/rules", {"rules": [hook(receiver, url="ftp://x")]})
    assert (wrong.status, wrong.fields) == (422, {"notify[0].url"})
    assert (await http("PUT", "/v1/notifications/rules", body | {"dry_run": True})).status == 200
    assert (await http("GET", "/v1/notifications/rules")).json()["rules"] == []
    assert (await http("PUT", "/v1/notifications/rules", body)).status == 200
    assert [rule["name"] for rule in (await http("GET", "/v1/notifications/rules")).json()["rules"]] == ["all"]
    await deploy(http, "own-rule", hook(receiver, name="all", on=["failed"]))
    await deploy(http, "no-rule")
    for name in ("own-rule", "no-rule"):
        await end_run(platform, name, Outcome.FAILED, error="no data")
    await received(receiver, 3)
    await decided(platform)
    deployments = [one["data"]["deployment"] for one in receiver.bodies]
    assert sorted(deployments) == ["no-rule", "own-rule", "own-rule"], (
        "a rule of the deployment, and that of the project"
    )
    [tested] = (await http("POST", "/v1/notifications/test")).json()["tests"]
    assert (tested["rule"], tested["sent"]) == ("all", True)
    assert (await http("POST", "/v1/notifications/test?rule=none")).status == 404
    assert (await http("PUT", "/v1/notifications/rules", {"rules": []})).status == 200
    await end_run(platform, "no-rule", Outcome.FAILED, error="no data")
    await decided(platform)
    assert len(receiver.requests) == 4
