"""The builder on a real nats-server: one number for equal content under concurrency; clear rejections."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import random
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from penstock_adapters.files import FolderArtifacts
from penstock_adapters.nats.buckets.kv import Bucket
from penstock_adapters.nats.buckets.versions import (
    Versions,
    digest_key,
    highest_key,
    interpreters_key,
    key,
    published_key,
)
from penstock_adapters.nats.bus import Bus
from penstock_artifacts.app import build as build_artifacts
from penstock_artifacts.settings import ArtifactsSettings
from penstock_builder.app import build
from penstock_builder.settings import BuilderSettings
from penstock_contracts import subjects
from penstock_contracts.commands import (
    EnvironmentInfo,
    GitInfo,
    InterpreterHint,
    RegisterVersion,
    Version,
    VersionReply,
)
from penstock_core.errors import UnavailableError
from penstock_core.pipeline import ir
from penstock_core.pipeline.values import Inline, Output
from penstock_servicekit import app
from penstock_testkit.servers.nats import NatsServer

BUNDLE = b"source bundle"
SOURCE = hashlib.sha256(BUNDLE).hexdigest()
ENVIRONMENT = EnvironmentInfo(version="3.11", digest="0" * 64)
STEP = ir.StepSpec(name="s", entrypoint="m:s", inputs=(ir.Port(name="x"),), outputs=(ir.Port(name="result"),))


@asynccontextmanager
async def platform(server: NatsServer, home: Path, replicas: int = 1) -> AsyncIterator[Bus]:
    """Builders with separate connections, and the artifacts service with a source bundle in the store."""
    await FolderArtifacts(home / "artifacts").put_bytes(BUNDLE)
    artifacts, builder = ArtifactsSettings(home=home), BuilderSettings(home=home)
    async with AsyncExitStack() as stack:
        parts = await app.compose(server.url, artifacts, {"artifacts": lambda link: build_artifacts(link, artifacts)})
        stack.push_async_callback(app.stop, parts, 5)
        for _ in range(replicas):
            one = await app.compose(server.url, builder, {"builder": lambda link: build(link, builder)})
            stack.push_async_callback(app.stop, one, 5)
        yield parts.bus


def command(name: str, **more: Any) -> RegisterVersion:
    pipeline = more.pop("pipeline", None) or ir.Pipeline(
        name=name,
        description=more.pop("description", ""),
        steps={"s": STEP},
        nodes=(ir.Node(key="s", step="s", inputs={"x": Inline(1)}),),
    )
    return RegisterVersion(pipeline=pipeline, **({"source": SOURCE, "environment": ENVIRONMENT} | more))


async def register(bus: Bus, what: RegisterVersion, timeout: float = 20.0) -> VersionReply:
    reply = await bus.request(subjects.BUILDER_REGISTER, what.model_dump_json().encode(), timeout=timeout)
    return VersionReply.model_validate_json(reply.data)


async def highest(bus: Bus, name: str) -> int | None:
    entry = await Bucket(bus, subjects.VERSIONS_BUCKET).get(highest_key("default", name))
    return int(entry.value) if entry else None


async def announced(bus: Bus, name: str) -> list[int]:
    messages = await bus.read(subjects.BUILDS, f"builds.default.{name}.registered")
    return [Version.model_validate_json(message.data).version for message in messages]


async def test_unreadable_entries_of_buckets_and_streams_are_written_again(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    async with platform(nats_server, tmp_path) as bus:
        bucket = Bucket(bus, subjects.VERSIONS_BUCKET)
        environment = ENVIRONMENT.model_copy(update={"digest": "7" * 64})
        first = command("spoilt", publish=True, environment=environment, interpreter=InterpreterHint(python="/python"))
        assert (await register(bus, first)).version == 1
        stored = await Versions(bus).get("default", "spoilt", 1)
        assert stored is not None
        names = [
            highest_key("default", "spoilt"),
            published_key("default", "spoilt"),
            digest_key("default", "spoilt", stored.digest),
            interpreters_key(environment.digest),
        ]
        for name in names:
            assert await bucket.get(name) is not None
            await bucket.put(name, b"\xffgarbage")
        await bus.publish("builds.default.spoilt.registered", b"garbage")
        assert await register(bus, first) == VersionReply(version=1, published=True)
        assert await highest(bus, "spoilt") == 1
        assert await register(bus, command("spoilt", description="new")) == VersionReply(version=2, created=True)
        assert await highest(bus, "spoilt") == 2
        assert await Versions(bus).latest("default", "spoilt") == 1
        for name in names:
            entry = await bucket.get(name)
            assert entry is not None and b"garbage" not in entry.value, name
        await bucket.delete(published_key("default", "spoilt"))


async def test_a_version_is_stored_numbered_and_published(nats_server: NatsServer, tmp_path: Path) -> None:
    async with platform(nats_server, tmp_path) as bus:
        git = GitInfo(commit="c" * 40, branch="main", dirty=True)
        first = command("numbered", git=git)
        assert await register(bus, first) == VersionReply(version=1, created=True)
        assert await register(bus, first) == VersionReply(version=1, created=False)
        assert await register(bus, command("numbered", description="new")) == VersionReply(version=2, created=True)
        assert await register(
            bus, command("numbered", environment=ENVIRONMENT.model_copy(update={"digest": "1" * 64}))
        ) == (VersionReply(version=3, created=True))
        assert await register(bus, first) == VersionReply(version=1, created=False)
        versions = Versions(bus)
        stored = await versions.get("default", "numbered", 1)
        assert stored is not None
        assert (stored.pipeline, stored.source, stored.git) == (first.pipeline, SOURCE, git)
        assert await versions.latest("default", "numbered") is None
        assert await versions.exists("default", "numbered")
        assert [version.version for version in (await versions.list("default", "numbered"))[0]] == [1, 2, 3]
        assert await announced(bus, "numbered") == [1, 2, 3]
        [event, *_] = await bus.read(subjects.BUILDS, "builds.default.numbered.registered")
        headers = event.headers or {}
        assert headers["ce-type"] == "penstock.version.registered.v1"
        assert headers["ce-id"] == "default.numbered.1"
        assert await register(bus, command("other")) == VersionReply(version=1, created=True)


async def test_replicas_number_equal_content_once(nats_server: NatsServer, tmp_path: Path) -> None:
    async with platform(nats_server, tmp_path, replicas=3) as bus:
        contents = [str(n % 12) for n in range(60)]
        random.Random(7).shuffle(contents)
        replies = await asyncio.gather(*(register(bus, command("raced", description=text)) for text in contents))
        numbers: dict[str, set[int | None]] = {}
        for text, reply in zip(contents, replies, strict=True):
            assert reply.error is None
            numbers.setdefault(text, set()).add(reply.version)
        assert all(len(found) == 1 for found in numbers.values())
        assert sorted(n for found in numbers.values() for n in found if n) == list(range(1, 13))
        assert sum(reply.created for reply in replies) == 12
        assert await announced(bus, "raced") == list(range(1, 13))
        assert await highest(bus, "raced") == 12


async def test_publishing_an_experiment_keeps_its_number_and_makes_it_the_latest(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    async with platform(nats_server, tmp_path) as bus:
        versions = Versions(bus)
        first, second = command("released"), command("released", description="second")
        assert await register(bus, first) == VersionReply(version=1, created=True)
        assert await register(bus, second) == VersionReply(version=2, created=True)
        published = first.model_copy(update={"publish": True, "by": "ada"})
        assert await register(bus, published) == VersionReply(version=1, published=True)
        assert await versions.latest("default", "released") == 1
        assert await register(bus, second.model_copy(update={"publish": True})) == VersionReply(
            version=2, published=True
        )
        # An experiment equal to a published version returns that version.
        assert await register(bus, first) == VersionReply(version=1, published=True)
        assert await versions.latest("default", "released") == 2
        # Back to the previous code: it is the latest again, with its old number.
        assert await register(bus, published) == VersionReply(version=1, published=True)
        found = await versions.published("default", "released")
        assert found is not None
        assert (found.latest, {number: one.by for number, one in found.versions.items()}) == (1, {1: "ada", 2: ""})
        assert await versions.publications("default") == {"released": found}
        assert [version.version for version in (await versions.list("default", "released"))[0]] == [1, 2]


async def test_concurrent_publications_lose_none(nats_server: NatsServer, tmp_path: Path) -> None:
    async with platform(nats_server, tmp_path, replicas=3) as bus:
        wanted = [command("rivals", description=str(n % 6), publish=n % 6 < 4) for n in range(18)]
        replies = await asyncio.gather(*(register(bus, one) for one in wanted))
        published = {reply.version for reply, one in zip(replies, wanted, strict=True) if one.publish}
        assert all(reply.published for reply, one in zip(replies, wanted, strict=True) if one.publish)
        found = await Versions(bus).published("default", "rivals")
        assert found is not None
        assert set(found.versions) == published
        assert found.latest in published


async def test_the_content_digest_does_not_depend_on_paths(nats_server: NatsServer, tmp_path: Path) -> None:
    async with platform(nats_server, tmp_path) as bus:
        await FolderArtifacts(tmp_path / "artifacts").put_bytes(b"with an unrelated file")
        other = hashlib.sha256(b"with an unrelated file").hexdigest()

        def located(folder: str, line: int) -> ir.Pipeline:
            file = f"{folder}/flow.py"
            step = dataclasses.replace(STEP, file=file, line=line)
            node = ir.Node(key="s", step="s", inputs={"x": Inline(1)}, file=file, line=line)
            return ir.Pipeline(name="moved", steps={"s": step}, nodes=(node,), file=file, line=line)

        first = command("", pipeline=located("/home/ada", 1), code="c" * 64)
        hint = InterpreterHint(python="/opt/bin/python", folders={"/opt/lib": 1})
        second = command("", pipeline=located("/srv", 9), code="c" * 64, source=other, interpreter=hint)
        assert await register(bus, first) == VersionReply(version=1, created=True)
        assert await register(bus, second) == VersionReply(version=1)
        stored = await Versions(bus).get("default", "moved", 1)
        assert stored is not None
        assert stored.source == SOURCE
        assert await register(bus, first.model_copy(update={"code": "d" * 64})) == VersionReply(version=2, created=True)
        assert await register(bus, first.model_copy(update={"code": None})) == VersionReply(version=3, created=True)
        # The locations of the environment are recorded separately, newest first.
        again = InterpreterHint(python="/opt/bin/python", folders={"/opt/lib": 2})
        for one in (InterpreterHint(python="/usr/bin/python"), again, again):
            await register(bus, first.model_copy(update={"interpreter": one}))
        hints = (await Versions(bus).interpreters(ENVIRONMENT.digest)).interpreters
        assert hints == [again, InterpreterHint(python="/usr/bin/python")]


@pytest.mark.parametrize("written", [1, 2, 3])
async def test_a_registration_left_by_a_killed_builder_is_completed(
    nats_server: NatsServer, tmp_path: Path, written: int
) -> None:
    name = f"left-{written}"
    async with platform(nats_server, tmp_path) as bus:
        await register(bus, command(name))
        bucket = Bucket(bus, subjects.VERSIONS_BUCKET)
        entry = await bucket.get(key("default", name, 1))
        digest = (await Versions(bus).list("default", name))[0][0].digest
        assert entry is not None
        # As if it had been killed after that many writes: number, digest, announcement, highest.
        await bus.api(
            f"STREAM.PURGE.KV_{subjects.VERSIONS_BUCKET}", {"filter": f"$KV.*.{highest_key('default', name)}"}
        )
        if written < 3:
            await bus.api(f"STREAM.PURGE.{subjects.BUILDS}", {"filter": f"builds.default.{name}.registered"})
        if written < 2:
            pointer = digest_key("default", name, digest)
            await bus.api(f"STREAM.PURGE.KV_{subjects.VERSIONS_BUCKET}", {"filter": f"$KV.*.{pointer}"})
        other = command(name, description="other")
        replies = await asyncio.gather(register(bus, command(name)), register(bus, other))
        assert [reply.version for reply in replies] == [1, 2]
        assert await highest(bus, name) == 2
        assert await announced(bus, name) == [1, 2]


async def test_a_damaged_version_keeps_its_number_and_blocks_nothing(nats_server: NatsServer, tmp_path: Path) -> None:
    async with platform(nats_server, tmp_path) as bus:
        await Bucket(bus, subjects.VERSIONS_BUCKET).put(key("default", "damaged", 1), b"\x00not a version")
        assert (await register(bus, command("damaged"))).version == 2
        assert (await register(bus, command("damaged"))).version == 2
        assert (await register(bus, command("damaged", description="x"))).version == 3


def cycle() -> ir.Pipeline:
    nodes = (
        ir.Node(key="a", step="s", inputs={"x": Output("b")}, file="flow.py", line=7),
        ir.Node(key="b", step="s", inputs={"x": Output("a")}, file="flow.py", line=8),
    )
    return ir.Pipeline(name="cycle", steps={"s": STEP}, nodes=nodes)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"pipeline": cycle()}, "flow.py:7: .*in a cycle"),
        ({"pipeline": ir.Pipeline(name="dots.in.name")}, "pipeline name 'dots.in.name' is not valid"),
        ({"pipeline": ir.Pipeline(name="x", ir=99)}, "compiled for IR version 99"),
        ({"source": "f" * 64}, "the source bundle f{64} is not in the artifact store: put it there"),
        (
            {"pipeline": ir.Pipeline(name="large", description=random.Random(1).randbytes(1_000_000).hex())},
            "'large' has .* bytes when compressed; the limit is .*: pass large constants as files",
        ),
    ],
)
async def test_rejected_registrations_have_a_reason(
    nats_server: NatsServer, tmp_path: Path, wrong: dict[str, Any], says: str
) -> None:
    async with platform(nats_server, tmp_path) as bus:
        before = len(await Bucket(bus, subjects.VERSIONS_BUCKET).list())
        reply = await register(bus, command("wrong", **wrong))
        assert reply.version is None
        assert reply.error is not None
        assert re.search(says, reply.error), reply.error
        assert len(await Bucket(bus, subjects.VERSIONS_BUCKET).list()) == before


@pytest.mark.parametrize(
    "body", [b"", b"\xff", b"{}", b'{"pipeline": 1, "source": "..", "environment": []}', b"[" * 5000]
)
async def test_an_invalid_request_is_answered(nats_server: NatsServer, tmp_path: Path, body: bytes) -> None:
    async with platform(nats_server, tmp_path) as bus:
        reply = VersionReply.model_validate_json((await bus.request(subjects.BUILDER_REGISTER, body)).data)
        assert "the request is not valid" in (reply.error or "")


async def test_integers_beyond_64_bits_are_accepted(nats_server: NatsServer, tmp_path: Path) -> None:
    async with platform(nats_server, tmp_path) as bus:
        port = ir.Port(name="n", required=False, default=2**200)
        pipeline = ir.Pipeline(name="big", params=(port,))
        assert await register(bus, command("", pipeline=pipeline)) == VersionReply(version=1, created=True)
        assert await register(bus, command("", pipeline=pipeline)) == VersionReply(version=1, created=False)
        stored = await Versions(bus).get("default", "big", 1)
        assert stored is not None
        assert stored.pipeline.params == (port,)


async def test_a_missing_artifacts_service_is_reported(nats_server: NatsServer, tmp_path: Path) -> None:
    settings = BuilderSettings(home=tmp_path)
    parts = await app.compose(nats_server.url, settings, {"builder": lambda link: build(link, settings)})
    try:
        reply = await register(parts.bus, command("alone"))
        assert reply.error == f"there is no subscriber on {subjects.ARTIFACTS_STAT}"
    finally:
        await app.stop(parts, 5)


async def test_a_server_that_is_killed_loses_no_version(nats_server: NatsServer, tmp_path: Path) -> None:
    async with platform(nats_server, tmp_path) as bus:
        numbers: list[int] = []

        async def go_on(first: int) -> None:
            for n in range(first, 40, 4):
                while True:
                    try:
                        reply = await register(bus, command("killed", description=str(n)), timeout=1.0)
                    except UnavailableError:  # the connection is lost: registering again is safe
                        await asyncio.sleep(0.05)
                        continue
                    if reply.version is not None:
                        numbers.append(reply.version)
                        break
                    await asyncio.sleep(0.05)

        tasks = [asyncio.create_task(go_on(first)) for first in range(4)]
        await asyncio.sleep(0.05)
        nats_server.kill()
        await asyncio.sleep(0.1)
        await asyncio.to_thread(nats_server.restart)
        async with asyncio.timeout(30):
            await asyncio.gather(*tasks)
        assert sorted(numbers) == list(range(1, 41))
        assert await announced(bus, "killed") == list(range(1, 41))
