"""Credentials of runners in pods: what an attempt and a worker may do on NATS, and that nothing else is possible."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncGenerator
from typing import Any

import nats.errors
import orjson
import pytest
import pytest_asyncio
from gateway_platform import Platform, attempt_finished, attempt_requested
from nats.aio.client import Client
from nats.aio.msg import Msg

from penstock.runner.pod.link import AttemptLink, Link
from penstock_adapters.nats.auth import runner_tokens
from penstock_adapters.nats.auth.runner_tokens import AttemptClaims
from penstock_adapters.nats.bootstrap import consumers, streams
from penstock_contracts import subjects
from penstock_contracts.commands import IssueCredential, IssuedCredential
from penstock_core import ids, pod_protocol

pytestmark = pytest.mark.asyncio(loop_scope="module")

_NUMBERS = itertools.count(1)
_CLIENTS: list[Client] = []


class Runner:
    """A client with a credential that was leaked, and the errors that the server sent it."""

    def __init__(self, platform: Platform, credential: str) -> None:
        self.url = f"nats://{platform.server.url.rpartition('@')[2]}"
        self.credential = credential
        self.client = Client()
        _CLIENTS.append(self.client)
        self.errors: list[str] = []
        self.closed = asyncio.Event()

    async def connect(self, **options: Any) -> Runner:
        async def failed(error: Exception) -> None:
            self.errors.append(str(error))

        async def disconnected() -> None:
            self.closed.set()

        more: dict[str, Any] = {"allow_reconnect": False, "connect_timeout": 2, **options}
        await self.client.connect(
            self.url,
            token=self.credential,
            inbox_prefix=pod_protocol.inbox(self.credential),
            error_cb=failed,
            disconnected_cb=disconnected,
            **more,
        )
        return self

    async def allowed(self, found: list[str]) -> list[str]:
        """Publish to all of these subjects; returns those that the server has not refused."""
        self.errors.clear()
        for subject in found:
            await self.client.publish(subject, b"{}", reply=self.client.new_inbox())
        await self.client.flush()
        await until(lambda: len(self.errors) >= len(found), 5)
        # The server's messages have subjects in small letters.
        return [subject for subject in found if not any(f'"{subject.lower()}"' in error for error in self.errors)]


async def until(holds: Any, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        await asyncio.sleep(0.02)


async def issue(platform: Platform, **about: Any) -> str:
    wanted = IssueCredential(pool="default", **{"lifetime": 3600.0, **about})
    answer = await platform.bus.request(subjects.GATEWAY_CREDENTIAL, wanted.model_dump_json().encode())
    found = IssuedCredential.model_validate_json(answer.data)
    assert found.error is None, found.error
    return found.token


async def new_attempt(platform: Platform) -> tuple[str, str, int]:
    """Request an attempt in the log, as a scheduler does."""
    run_id = f"runner-{next(_NUMBERS)}"
    await platform.log.append([attempt_requested(run_id, "train")])
    return run_id, "train", 1


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def closed_clients() -> AsyncGenerator[None]:
    yield
    while _CLIENTS:
        await _CLIENTS.pop().close()


@pytest_asyncio.fixture(loop_scope="module")
async def attempt(platform: Platform) -> tuple[str, str, int]:
    return await new_attempt(platform)


@pytest_asyncio.fixture(loop_scope="module")
async def runner(platform: Platform, attempt: tuple[str, str, int]) -> Runner:
    run_id, key, number = attempt
    return await Runner(platform, await issue(platform, run_id=run_id, key=key, attempt=number)).connect()


@pytest_asyncio.fixture(loop_scope="module")
async def worker(platform: Platform) -> Runner:
    return await Runner(platform, await issue(platform, worker="penstock-w1")).connect()


def foreign(attempt: tuple[str, str, int], *, worker: bool) -> list[str]:
    """Subjects of everything that a runner must not reach."""
    run_id, key, number = attempt
    shard = ids.shard(run_id)
    verbs = (*pod_protocol_verbs(), "anything")
    found = [
        *(pod_protocol.subject("default", run_id, key, number + 1, verb) for verb in verbs),
        *(pod_protocol.subject("default", run_id, "other", number, verb) for verb in verbs),
        *(pod_protocol.subject("default", "other", key, number, verb) for verb in verbs),
        *(pod_protocol.subject("gpu", run_id, key, number, verb) for verb in verbs),
        f"runs.{shard}.{run_id}.step.{key}.{number}.finished",
        f"runs.{shard}.{run_id}.step.{key}.{number}.started",
        f"runs.{shard}.{run_id}.finished",
        f"runs.{shard}.{run_id}.cancel",
        f"logs.{run_id}.{key}.{number}",
        f"logs.{run_id}.{key}.{number}.progress",
        f"metrics.{run_id}.{key}.{number}",
        "logs.other.train.1",
        "events.default.com.acme.sold",
        "published.default.com.acme.sold",
        "parked.gateway",
        "audit.gateway",
        f"kills.{run_id}.{key}.{number}",
        "owners.executor",
        "calls.executor",
        "problems.gateway",
        "replicas.scheduler",
        "endpoints.executor",
        "models.default.m.1",
        "deployments.default.d.1",
        subjects.GATEWAY_CREDENTIAL,
        subjects.BUILDER_REGISTER,
        subjects.ARTIFACTS_STORE,
        subjects.ARTIFACTS_LOCATE,
        subjects.ARTIFACTS_COMPLETE,
        subjects.ARTIFACTS_DELETE_RUN,
        pod_protocol.offers("penstock-other", "uid"),
        pod_protocol.claim("default", "penstock-other", run_id, key, number),
        pod_protocol.announcement("default", "penstock-other"),
        "$SYS.REQ.USER.AUTH",
        "$SYS.REQ.SERVER.PING",
        "$SYS.REQ.SERVER.PING.CONNZ",
        "$SYS.REQ.ACCOUNT.STEPS.CONNZ",
        "_INBOX.someone.x",
        "_R_.x",
        *api_calls(),
    ]
    own = (
        [pod_protocol.subject("default", run_id, key, number, "finish")]
        if worker
        else [
            pod_protocol.claim("default", "penstock-w1", run_id, key, number),
            pod_protocol.announcement("default", "penstock-w1"),
        ]
    )
    return [*found, *own]


def pod_protocol_verbs() -> tuple[str, ...]:
    names = ("LOCATE", "COMPLETE", "COMMIT", "BEAT", "FINISH", "PUBLISH")
    return tuple(getattr(pod_protocol, name) for name in names)


def api_calls() -> list[str]:
    """Every stream and bucket, and every way to read or change one."""
    calls = ["INFO", "STREAM.NAMES", "STREAM.LIST"]
    for stream in (str(one["name"]) for one in streams()):
        verbs = ("INFO", "CREATE", "UPDATE", "DELETE", "PURGE", "SNAPSHOT", "RESTORE", "MSG.GET", "MSG.DELETE")
        calls += [f"STREAM.{verb}.{stream}" for verb in verbs]
        calls += [f"DIRECT.GET.{stream}", f"DIRECT.GET.{stream}.x", f"CONSUMER.CREATE.{stream}"]
        calls += [f"CONSUMER.CREATE.{stream}.x.y", f"CONSUMER.DURABLE.CREATE.{stream}.x", f"CONSUMER.NAMES.{stream}"]
        if stream.startswith("KV_"):
            calls.append(f"$KV.{stream.removeprefix('KV_')}.x")
    for stream, settings in consumers(["default"]):
        name = settings["durable_name"]
        calls += [f"CONSUMER.MSG.NEXT.{stream}.{name}", f"CONSUMER.DELETE.{stream}.{name}"]
        calls.append(f"$JS.ACK.{stream}.{name}.1.1.1.1.1")
    return [call if call.startswith("$") else f"$JS.API.{call}" for call in calls]


async def answering(platform: Platform, subject: str) -> list[tuple[str, bytes]]:
    """Answer requests as an executor does; returns the list of those that arrive."""
    seen: list[tuple[str, bytes]] = []

    async def receive(message: Msg) -> None:
        seen.append((message.subject, message.data))
        if message.reply:
            await message.respond(b"{}")

    await platform.bus.subscribe(subject, receive)
    await platform.bus.api("INFO")
    return seen


# ------------------------------------------------------------------------------------------------ what is allowed


async def test_the_runner_of_an_attempt_reaches_the_executor(
    platform: Platform, runner: Runner, attempt: tuple[str, str, int]
) -> None:
    seen = await answering(platform, f"pods.default.{attempt[0]}.>")
    link = Link([runner.url], runner.credential)
    link.connect_soon()
    requests = AttemptLink(link, "default", attempt)
    for verb in pod_protocol_verbs():
        assert await requests.ask(verb, {"n": 1}) == {}
    await requests.close()
    assert seen == [(pod_protocol.subject("default", *attempt, verb), b'{"n": 1}') for verb in pod_protocol_verbs()]


async def test_a_worker_claims_announces_itself_and_answers_offers(
    platform: Platform, worker: Runner, attempt: tuple[str, str, int]
) -> None:
    seen = await answering(platform, "pods.default.claim.penstock-w1.>")
    heard = await answering(platform, "pods.default.worker.>")
    link = Link([worker.url], worker.credential)
    await link.connect()
    subject = pod_protocol.claim("default", "penstock-w1", *attempt)
    assert await link.ask(subject, b"{}") == {}
    await link.announce(pod_protocol.announcement("default", "penstock-w1"), {"idle": True})
    await link.serve(pod_protocol.offers("penstock-w1", "uid"), lambda body: {"taken": body["key"] == "train"})
    await until(lambda: heard)
    offered = await platform.bus.request(
        pod_protocol.offers("penstock-w1", "uid"), json.dumps({"key": "train"}).encode()
    )
    assert orjson.loads(offered.data) == {"taken": True}
    assert [subject for subject, _ in seen] == [subject]
    assert heard == [("pods.default.worker.penstock-w1", b'{"idle": true}')]
    await link.close()


# ------------------------------------------------------------------------------------------- what is not allowed


async def test_an_attempt_can_use_its_own_subjects_only(runner: Runner, attempt: tuple[str, str, int]) -> None:
    assert await runner.allowed(foreign(attempt, worker=False)) == []


async def test_a_worker_can_only_claim(worker: Runner, attempt: tuple[str, str, int]) -> None:
    assert await worker.allowed(foreign(attempt, worker=True)) == []


async def test_nobody_can_listen_to_others(runner: Runner, worker: Runner) -> None:
    wanted = [">", "_INBOX.>", "*.>", "pods.>", "offers.>", "offers.penstock-other.*", "runs.>", "logs.>", "$SYS.>"]
    wanted += ["_R_.>", "$JS.>", "$KV.>", f"{pod_protocol.inbox('another credential')}.>", "events.>", "kills.>"]
    for client, own in ((runner, "offers.penstock-w1.*"), (worker, f"{pod_protocol.inbox(runner.credential)}.>")):
        for subject in (*wanted, own):
            client.errors.clear()
            await client.client.subscribe(subject)
            await client.client.flush()
            await until(lambda client=client: client.errors, 5)
            assert client.errors, subject


async def test_a_reply_subject_reaches_nothing_outside_the_account(
    platform: Platform, runner: Runner, attempt: tuple[str, str, int]
) -> None:
    """The server does not check the reply subject against the permissions of a client."""
    run_id, key, number = attempt
    own = await answering(platform, f"pods.default.{run_id}.{key}.{number}.*")
    forged = [
        f"runs.{ids.shard(run_id)}.{run_id}.forged",
        f"logs.{run_id}.forged.1",
        "pods.default.forged.train.1.finish",
        "kills.forged.train.1",
        "offers.forged.uid",
        "commands.forged",
        "_INBOX.forged.x",
        "$JS.API.STREAM.DELETE.LOGS",
        "$KV.penstock_tokens.forged",
    ]
    heard = [await answering(platform, subject) for subject in forged if not subject.startswith("$JS")]
    beat = pod_protocol.subject("default", *attempt, pod_protocol.BEAT)
    for subject in forged:
        await runner.client.publish(beat, b"{}", reply=subject)
    await runner.client.request(beat, b"{}", timeout=10)
    await until(lambda: len(own) == len(forged) + 1)
    await platform.bus.api("INFO")
    assert [one for one in heard if one] == []
    await platform.bus.api("STREAM.INFO.LOGS")
    assert await platform.bus.last("LOGS", f"logs.{run_id}.forged.1") is None


async def test_the_inbox_of_another_runner_gets_nothing(
    platform: Platform, runner: Runner, attempt: tuple[str, str, int]
) -> None:
    """An attacker who knew the inbox could have the executor answer there; it follows from the secret credential."""
    other = await new_attempt(platform)
    credentials = [
        await issue(platform, run_id=run_id, key=key, attempt=number) for run_id, key, number in (attempt, other)
    ]
    inboxes = {pod_protocol.inbox(one) for one in (*credentials, runner.credential)}
    assert len(inboxes) == 3


@pytest.mark.parametrize("name", ["a.b", "*", ">", "a b", "", "a\nb", "x" * 301])
async def test_names_that_would_widen_the_subjects_are_refused(name: str) -> None:
    for claims in (AttemptClaims("p", name, "k", 1, 1e12), AttemptClaims("p", "r", name, 1, 1e12)):
        with pytest.raises(runner_tokens.InvalidRunnerTokenError):
            runner_tokens.encode(claims, b"secret")
    with pytest.raises(runner_tokens.InvalidRunnerTokenError):
        runner_tokens.encode(runner_tokens.WorkerClaims("p", name, 1e12), b"secret")


async def test_a_token_that_was_changed_or_signed_by_others_is_refused() -> None:
    good = runner_tokens.encode(AttemptClaims("p", "r", "k[1]", 1, 100.0), b"secret")
    assert runner_tokens.decode(good, b"secret", 99.0) == AttemptClaims("p", "r", "k[1]", 1, 100.0)
    with pytest.raises(runner_tokens.InvalidRunnerTokenError, match="expired"):
        runner_tokens.decode(good, b"secret", 100.0)
    body, signature = good.removeprefix(runner_tokens.PREFIX).split(".")
    other = runner_tokens.encode(AttemptClaims("p", "r2", "k", 1, 100.0), b"secret")
    swapped = f"{other.rpartition('.')[0]}.{signature}"
    for bad in ("", runner_tokens.PREFIX, good[:-1], f"{runner_tokens.PREFIX}{body}.", swapped, good + "A", good * 2):
        with pytest.raises(runner_tokens.InvalidRunnerTokenError, match="not signed"):
            runner_tokens.decode(bad, b"secret", 1.0)
    with pytest.raises(runner_tokens.InvalidRunnerTokenError, match="not signed"):
        runner_tokens.decode(good, b"another", 1.0)


# ----------------------------------------------------------------------------------------- the end of an attempt


async def test_a_credential_is_refused_and_disconnected_after_the_attempt_ended(
    platform: Platform, runner: Runner, attempt: tuple[str, str, int]
) -> None:
    run_id, key, _ = attempt
    still = await new_attempt(platform)
    other = await Runner(platform, await issue(platform, run_id=still[0], key=still[1], attempt=still[2])).connect()
    await platform.log.append([attempt_finished(run_id, key)])
    with pytest.raises(nats.errors.Error, match="Authorization"):
        await Runner(platform, runner.credential).connect()
    async with asyncio.timeout(30):
        await runner.closed.wait()
    assert not other.closed.is_set()
    await other.client.flush()


async def test_credentials_of_unknown_attempts_and_expired_ones_are_refused(
    platform: Platform, attempt: tuple[str, str, int]
) -> None:
    run_id, key, number = attempt
    unknown = await issue(platform, run_id="unknown", key=key, attempt=number)
    next_one = await issue(platform, run_id=run_id, key=key, attempt=number + 1)
    other_pool = AttemptClaims("gpu", run_id, key, number, time.time() + 60)
    expired = await issue(platform, run_id=run_id, key=key, attempt=number, lifetime=0.01)
    forged = runner_tokens.encode(other_pool, b"a guess")
    await asyncio.sleep(0.02)
    for credential in (unknown, next_one, expired, forged, runner_tokens.PREFIX):
        with pytest.raises(nats.errors.Error, match="Authorization"):
            await Runner(platform, credential).connect()


async def test_a_runner_whose_connection_is_closed_connects_again(
    platform: Platform, attempt: tuple[str, str, int]
) -> None:
    """A node of the cluster that dies costs a runner nothing but the time to connect to another one."""
    run_id, key, number = attempt
    seen = await answering(platform, f"pods.default.{run_id}.>")
    credential = await issue(platform, run_id=run_id, key=key, attempt=number)
    link = Link([f"nats://{platform.server.url.rpartition('@')[2]}"], credential)
    link.connect_soon()
    requests = AttemptLink(link, "default", attempt)
    await requests.ask(pod_protocol.BEAT, {})
    await link._client.force_reconnect()
    await requests.ask(pod_protocol.BEAT, {}, patience=30)
    assert len(seen) >= 2
    await requests.close()
