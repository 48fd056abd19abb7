"""A gateway on a real nats-server, a raw HTTP client, and helpers that append facts."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import itertools
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats.errors
import orjson
from pydantic import SecretStr

import penstock_triggers.app
from penstock_adapters.files import FolderArtifacts
from penstock_adapters.nats.bootstrap import bootstrap
from penstock_adapters.nats.buckets.kv import Bucket
from penstock_adapters.nats.buckets.versions import Versions, highest_key, key, pack, published_key
from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.run_log import NatsRunLog, from_direct
from penstock_adapters.nats.server import EmbeddedServer
from penstock_contracts import commands, subjects
from penstock_core.facts import (
    AttemptFinished,
    AttemptRequested,
    AttemptStarted,
    Outcome,
    RunFinished,
    RunRequested,
)
from penstock_core.pipeline import ir
from penstock_core.pipeline.values import Inline, Output, Param, Value
from penstock_gateway.access.nats_access import CalloutKeys
from penstock_gateway.app import Gateway, build
from penstock_gateway.settings import GatewaySettings
from penstock_servicekit import logs, nats_connection
from penstock_servicekit.service_context import ServiceContext
from penstock_triggers.settings import TriggersSettings

TOKEN = "a-token-for-tests"
SOURCE = hashlib.sha256(b"bundle").hexdigest()
_NUMBERS = itertools.count(1)

OPENED: list[asyncio.StreamWriter] = []
"""Connections of the current test; closed at its end."""


@dataclass
class Platform:
    """A gateway and its surroundings. `builder_reply` and `store_info` are the responses of the fakes."""

    gateway: Gateway
    context: ServiceContext
    log: NatsRunLog
    store: FolderArtifacts
    server: EmbeddedServer
    root: Path
    store_info: commands.StoreInfo
    location: commands.Location = field(default_factory=commands.Location)
    builder: list[bytes] = field(default_factory=list)
    builder_reply: commands.VersionReply = field(default_factory=lambda: commands.VersionReply(version=1, created=True))

    @property
    def bus(self) -> Bus:
        return self.context.bus

    async def add_version(
        self, pipeline: ir.Pipeline, number: int = 1, *, publish: bool = True, project: str = "default"
    ) -> None:
        """Store a version in the bucket as the builder does; `publish` makes it the latest published one."""
        environment = commands.EnvironmentInfo(version="3.11", digest="0" * 64)
        version = commands.Version(
            project=project,
            name=pipeline.name,
            version=number,
            digest="1" * 64,
            source=SOURCE,
            environment=environment,
            pipeline=pipeline,
            registered_at=1_700_000_000.0,
        )
        bucket = Bucket(self.bus, subjects.VERSIONS_BUCKET)
        await bucket.put(key(project, pipeline.name, number), pack(version))
        await bucket.put(highest_key(project, pipeline.name), str(number).encode())
        if publish:
            known = await Versions(self.bus).published(project, pipeline.name)
            versions = (known.versions if known else {}) | {number: commands.Publication(at=0.0, by="ada")}
            body = commands.Publications(latest=number, versions=versions).model_dump_json().encode()
            await bucket.put(published_key(project, pipeline.name), body)

    async def request(self, pipeline: str = "chain", **more: Any) -> str:
        """Append the request of a run, as a trigger would; return the run's id."""
        fields = {"run_id": f"run-{next(_NUMBERS)}", "requested_at": 1_700_000_000.0, "version": 1} | more
        fields = {"project": "default"} | fields
        await self.log.append([RunRequested(pipeline=pipeline, inputs={"n": Inline(1)}, **fields)])
        return fields["run_id"]

    async def run_step(self, run_id: str, step: str, outputs: dict[str, Value] | None = None, **more: Any) -> None:
        """Append the facts of an attempt from its request to its end."""
        await self.log.append([attempt_requested(run_id, step), attempt_started(run_id, step)])
        await self.log.append([attempt_finished(run_id, step, outputs=outputs or {"result": Inline(2)}, **more)])

    async def finish(self, run_id: str, outcome: Outcome = Outcome.SUCCEEDED, **more: Any) -> None:
        """Append the end of a run."""
        await self.log.append([RunFinished(run_id=run_id, outcome=outcome, **more)])

    async def wrote(self, run_id: str, step: str, text: str, first: int = 0) -> None:
        """Publish a line of output."""
        entries = [{"at": 1.0, "stream": "stdout", "text": text}]
        output = commands.AttemptOutput(run_id=run_id, key=step, attempt=1, first=first, entries=entries)
        await self.bus.publish(subjects.logs(run_id, step, 1), output.model_dump_json().encode())

    async def reports_progress(self, run_id: str, step: str, done: float, total: float, text: str = "") -> None:
        """Publish the progress of a step, as an executor does."""
        report = commands.AttemptProgress(run_id=run_id, key=step, attempt=1, at=1.0, done=done, total=total, text=text)
        subject = f"{subjects.logs(run_id, step, 1)}.progress"
        await self.bus.publish(subject, report.model_dump_json().encode(), {"Nats-Rollup": "sub"})

    async def consumers(self) -> set[str]:
        """Return the names of the existing ephemeral consumers."""
        found: set[str] = set()
        for stream in (subjects.RUNS, subjects.LOGS):
            answer = await self.bus.api(f"CONSUMER.NAMES.{stream}")
            found |= {name for name in answer.get("consumers") or [] if name.startswith("follow-")}
        return found


def secret_file(platform: Platform, name: str) -> Path:
    """Return where the operator provides a secret of the project `default`."""
    folder = platform.root.with_name(f"{platform.root.name}-secrets") / "default"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name


async def runs(platform: Platform, deployment: str) -> list[RunRequested]:
    """Return the runs that a deployment started."""
    messages = await platform.bus.read(subjects.RUNS, subjects.requested_runs())
    facts = [found.fact for message in messages if (found := from_direct(message)) is not None]
    requested = [fact for fact in facts if isinstance(fact, RunRequested)]
    return [fact for fact in requested if fact.trigger.get("deployment") == deployment]


async def started(platform: Platform, deployment: str, count: int = 1) -> list[RunRequested]:
    """Wait until a deployment has started `count` runs."""
    deadline = time.monotonic() + 30
    while len(found := await runs(platform, deployment)) < count:
        assert time.monotonic() < deadline, f"{len(found)} runs"
        await asyncio.sleep(0.02)
    return found


def attempt_requested(run_id: str, step: str, attempt: int = 1) -> AttemptRequested:
    return AttemptRequested(
        run_id=run_id,
        key=step,
        attempt=attempt,
        pool="default",
        project="default",
        pipeline="chain",
        version=1,
        entrypoint="steps:double",
    )


def attempt_started(run_id: str, step: str, attempt: int = 1) -> AttemptStarted:
    return AttemptStarted(run_id=run_id, key=step, attempt=attempt, executor="executor-1", started_at=1_700_000_001.5)


def attempt_finished(run_id: str, step: str, attempt: int = 1, **more: Any) -> AttemptFinished:
    fields = {"outcome": Outcome.SUCCEEDED, "started_at": 1_700_000_001.5, "finished_at": 1_700_000_002.0} | more
    return AttemptFinished(run_id=run_id, key=step, attempt=attempt, executor="executor-1", **fields)


def chain(name: str = "chain", steps: int = 2) -> ir.Pipeline:
    """Sequential steps; the pipeline's output is that of the last one."""
    spec = ir.StepSpec(
        name="double",
        entrypoint="steps:double",
        inputs=(ir.Port(name="n", type="int"),),
        outputs=(ir.Port(name="result", type="int"),),
    )
    keys = ["double", *(f"double-{number}" for number in range(2, steps + 1))]
    before = [Param("n"), *(Output(step) for step in keys)]
    return ir.Pipeline(
        name=name,
        params=(
            ir.Port(name="n", type="int", schema={"type": "integer"}),
            ir.Port(name="label", type="str", required=False, default="none", schema={"type": "string"}),
        ),
        steps={"double": spec},
        nodes=tuple(ir.Node(key=step, step="double", inputs={"n": before[at]}) for at, step in enumerate(keys)),
        outputs={"result": Output(keys[-1])},
    )


@contextlib.asynccontextmanager
async def running(root: Path, **changes: Any) -> AsyncGenerator[Platform]:
    """A platform under `root`; `changes` are settings of the gateway."""
    logs.configure("critical", "json")
    server = EmbeddedServer(root, fsync=False)
    await server.start()
    supervisor = asyncio.create_task(server.supervise())
    failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    where = nats_connection.servers(server.url)
    broker, bus = await nats_connection.connect(where, "gateway-test", failed)
    try:
        await bootstrap(bus, pools=["default"])
        offer = commands.Offer(pool="*", slots=4, cpu=4, memory=2**33, gpu=0)
        holder = commands.LeaseHolder(machine="", pid=1, began="", work="", duration=1e6, offer=offer)
        await Bucket(bus, subjects.LEASES_BUCKET).put("executor", holder.model_dump_json().encode())
        context = ServiceContext("gateway", bus, broker, logs.get("gateway"), "gateway-test", servers=where)
        defaults = {"home": root, "port": 0, "token": SecretStr(TOKEN), "max_blob": 1_000_000, "stop_timeout": 4.0}
        defaults["secrets_key_file"] = root.with_name(f"{root.name}-keys") / "secrets.keys"
        defaults["secrets_folder"] = root.with_name(f"{root.name}-secrets")
        callout = CalloutKeys(server.issuer, {"user": server.callout.name, "password": server.callout.password})
        gateway = build(context, GatewaySettings(**(defaults | changes)), callout)
        store = FolderArtifacts(root / "artifacts")
        info = commands.StoreInfo(kind="folder", root=str(store.root))
        platform = Platform(gateway, context, NatsRunLog(bus, "test"), store, server, root, info)
        await _stand_ins(platform)
        await store.put_bytes(b"bundle")
        await platform.add_version(chain())
        # Events that the gateway stores are delivered to waiting steps by the triggers service.
        triggers = penstock_triggers.app.build(dataclasses.replace(context, service="triggers"), TriggersSettings())
        await gateway.start()
        await triggers.start()
        try:
            yield platform
        finally:
            await triggers.stop()
            await gateway.stop()
    finally:
        with contextlib.suppress(nats.errors.Error):
            await broker.stop()
        # If the server is stopped, stopping the broker leaves the client reconnecting.
        with contextlib.suppress(OSError):  # a test may have killed the server
            await bus.client.close()
        await server.stop()
        await supervisor


async def _stand_ins(platform: Platform) -> None:
    async def store(message: Any) -> None:
        await message.respond(platform.store_info.model_dump_json().encode())

    async def locate(message: Any) -> None:
        await message.respond(platform.location.model_dump_json().encode())

    async def register(message: Any) -> None:
        platform.builder.append(message.data)
        await message.respond(platform.builder_reply.model_dump_json().encode())

    await platform.bus.subscribe(subjects.ARTIFACTS_STORE, store)
    await platform.bus.subscribe(subjects.ARTIFACTS_LOCATE, locate)
    await platform.bus.subscribe(subjects.ARTIFACTS_STAT, locate)
    await platform.bus.subscribe(subjects.BUILDER_REGISTER, register)


# ------------------------------------------------------------------------------------------------------------- client


@dataclass
class Answer:
    """A complete HTTP response."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def fields(self) -> set[str]:
        """Return the fields named by a problem."""
        return {error["field"] for error in self.json()["errors"]}


class Http:
    """A client on asyncio streams that sends arbitrary requests, valid or not."""

    def __init__(self, platform: Platform) -> None:
        self.port = platform.gateway.port

    async def __call__(self, method: str, path: str, body: Any = None, **options: Any) -> Answer:
        """Send a request; `body` is JSON data or bytes."""
        reader, _ = await self.open(method, path, body, **options)
        return await read_answer(reader, method)

    async def open(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = TOKEN,
        headers: dict[str, str] | None = None,
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Send a request without reading the response. Headers set to None are omitted."""
        raw = body if isinstance(body, bytes) else b"" if body is None else orjson.dumps(body)
        fields = {"host": f"127.0.0.1:{self.port}", "content-length": str(len(raw)), "connection": "close"}
        if token is not None:
            fields["authorization"] = f"Bearer {token}"
        if body is not None and not isinstance(body, bytes):
            fields["content-type"] = "application/json"
        fields |= headers or {}
        lines = [f"{name}: {value}\r\n" for name, value in fields.items() if value]
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        OPENED.append(writer)
        writer.write(f"{method} {path} HTTP/1.1\r\n{''.join(lines)}\r\n".encode() + raw)
        return reader, writer

    async def stream(self, path: str, last: int | None = None, **headers: str) -> Stream:
        """Open a stream of server-sent events."""
        fields = headers | ({"last-event-id": str(last)} if last is not None else {})
        reader, writer = await self.open("GET", path, headers=fields)
        status, answered = await asyncio.wait_for(read_head(reader), 10)
        assert status == 200, status
        assert answered["content-type"].startswith("text/event-stream")
        return Stream(reader, writer)


async def read_answer(reader: asyncio.StreamReader, method: str = "GET") -> Answer:
    """Read a response to its end."""
    async with asyncio.timeout(15):
        status, headers = await read_head(reader)
        if method == "HEAD" or status in (204, 304):
            return Answer(status, headers, b"")
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while chunk := await read_chunk(reader):
                body += chunk
            return Answer(status, headers, body)
        return Answer(status, headers, await reader.readexactly(int(headers["content-length"])))


async def read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """Read the status and the headers."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
    return int(lines[0].split(" ")[1]), headers


async def read_chunk(reader: asyncio.StreamReader) -> bytes:
    """Read one chunk of a chunked body; empty at its end."""
    size = int((await reader.readuntil(b"\r\n")).strip(), 16)
    data = await reader.readexactly(size)
    await reader.readexactly(2)
    return data


@dataclass
class Event:
    """A server-sent event."""

    id: int
    event: str
    data: Any


class Stream:
    """Reads server-sent events; comments are counted."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.comments = 0
        self._rest = b""

    async def next(self, timeout: float = 10.0) -> Event | None:
        """The next event; None at the end of the stream."""
        async with asyncio.timeout(timeout):
            while True:
                while b"\n\n" not in self._rest:
                    chunk = await read_chunk(self.reader)
                    if not chunk:
                        return None
                    self._rest += chunk
                block, _, self._rest = self._rest.partition(b"\n\n")
                fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if not line.startswith(b":"))
                if fields:
                    return Event(int(fields[b"id"]), fields[b"event"].decode(), orjson.loads(fields[b"data"]))
                self.comments += 1

    async def all(self, timeout: float = 10.0) -> list[Event]:
        """All events to the end."""
        found: list[Event] = []
        while event := await self.next(timeout):
            found.append(event)
        return found

    def close(self) -> None:
        """Disconnect."""
        self.writer.close()
