"""The log of builds on a real server: builds that joined others, and what builds print."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from penstock_adapters.git.mirrors import Mirrors
from penstock_adapters.nats import build_log
from penstock_adapters.nats.bootstrap import bootstrap
from penstock_adapters.nats.buckets.kv import Bucket
from penstock_adapters.nats.buckets.versions import Versions
from penstock_adapters.nats.build_log import BuildLines, VersionBuildLog
from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.event_stream import EventStream
from penstock_adapters.nats.follower import Followers
from penstock_adapters.uv.virtual_environments import VirtualEnvironments
from penstock_builder.service import BuilderService
from penstock_builder.version_builds import VersionBuilds
from penstock_contracts import subjects
from penstock_contracts.builds import BuildFinished, BuildResolved
from penstock_contracts.commands import EnvironmentInfo, RegisterVersion, Version
from penstock_core.git_sources import GitSource
from penstock_core.pipeline import ir
from penstock_gateway.builds.builds import Builds
from penstock_gateway.errors import ConflictError
from penstock_servicekit.nats_connection import connect, servers
from penstock_testkit.servers.nats import NatsServer

SOURCE = GitSource(url="https://acme.example/team/repo", ref="main")


@pytest.fixture
async def bus(nats_server: NatsServer) -> AsyncIterator[Bus]:
    broker, bus = await connect(servers(nats_server.url), "test", asyncio.get_running_loop().create_future())
    await bootstrap(bus, pools=["default"])
    yield bus
    await broker.stop()


async def requested(bus: Bus, project: str) -> tuple[str, str]:
    """Return id and subject of a new build whose commit is known."""
    digest, number, new = await VersionBuildLog(bus).request(project, SOURCE, "ada", publish=True)
    assert new
    prefix = subjects.version_build(project, digest, number, "requested").removesuffix(".requested")
    await build_log.append(bus, f"{prefix}.resolved", BuildResolved(commit="a" * 40))
    return f"version-{digest}-{number}", prefix


async def test_a_build_that_joined_one_that_joined_another_has_the_result_of_that(bus: Bus) -> None:
    first, second, third = [await requested(bus, "joins") for _ in range(3)]
    await build_log.append(bus, f"{third[1]}.finished", BuildFinished(joined=2))
    await build_log.append(bus, f"{second[1]}.finished", BuildFinished(joined=1))
    builds = Builds(bus, Followers(bus), "joins")
    assert (await builds.read(third[0], 0, 0)).state == "building"
    waiting = asyncio.create_task(builds.read(third[0], 0, 30))
    await asyncio.sleep(0)
    await build_log.append(bus, f"{first[1]}.finished", BuildFinished(pipeline="training", version=7))
    assert (await waiting).version == 7
    for one in ((await builds.read(third[0], 0, 0)), *(await builds.list(10)).builds):
        assert (one.state, one.version) == ("ready", 7)


async def test_a_cancelled_build_ended_now_and_one_that_joined_names_the_build_to_cancel(bus: Bus) -> None:
    """An end without a time is as old as no event can be, so its event was not published."""
    first, second = [await requested(bus, "cancels") for _ in range(2)]
    await build_log.append(bus, f"{second[1]}.finished", BuildFinished(joined=1))
    builds = Builds(bus, Followers(bus), "cancels")
    with pytest.raises(ConflictError, match=f"build {first[0]} makes its version"):
        await builds.cancel(second[0], "ada")
    assert (await builds.cancel(first[0], "ada")).state == "cancelled"
    end = await build_log.read(bus, f"{first[1]}.finished", BuildFinished)
    assert end is not None and end.cancelled_by == "ada" and abs(end.at - time.time()) < 60


async def test_whatever_a_build_prints_is_stored(bus: Bus) -> None:
    prefix = (await requested(bus, "prints"))[1]
    async with BuildLines(bus, f"{prefix}.log") as lines:
        lines.add("\udcff is a link")
        for _ in range(400):
            lines.add("\N{REPLACEMENT CHARACTER}" * 100_000)
    messages = await bus.read(subjects.BUILDS, f"{prefix}.log")
    assert max(len(message.data) for message in messages) < 1024 * 1024  # the limit of a server by default
    assert sum(message.data.count(b'"') // 2 - 1 for message in messages) == 401


async def test_a_list_of_builds_reads_the_newest_only(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(300):
        _, prefix = await requested(bus, "many")
        await build_log.append(bus, f"{prefix}.finished", BuildFinished(pipeline="training", version=1))
    await requested(bus, "many")
    read: list[int] = []
    page = Bus._page  # pyright: ignore[reportPrivateUsage]

    async def counted(self: Bus, *given: Any) -> Any:
        found = await page(self, *given)
        read.append(len(found[0]))
        return found

    monkeypatch.setattr(Bus, "_page", counted)
    builds = (await Builds(bus, Followers(bus), "many").list(3)).builds
    assert [(one.id.rpartition("-")[2], one.state) for one in builds] == [
        ("301", "building"),
        ("300", "ready"),
        ("299", "ready"),
    ]
    assert sum(read) < 200


async def test_a_build_that_ends_does_not_remove_the_environment_that_another_one_uses(
    bus: Bus, tmp_path: Path
) -> None:
    """With a limit of 0 bytes, every environment that nobody uses is removed."""
    python = tmp_path / "environments" / "digest" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("x" * 1000)
    python.chmod(0o755)
    (tmp_path / "environments" / "digest" / "penstock-environment").touch()
    using, done = asyncio.Event(), asyncio.Event()

    class Builds(VersionBuilds):
        async def _build(self, prefix: str, request: Any, installed: VirtualEnvironments, log: Any) -> BuildFinished:
            if prefix.endswith(".1"):
                assert installed.find("digest") == str(python)
                using.set()
                await done.wait()
                assert python.exists()
            return BuildFinished(error="there is no pipeline")

    parts: Any = SimpleNamespace(
        bus=bus,
        home=tmp_path,
        installed=lambda: VirtualEnvironments(tmp_path / "environments", 0, 60.0),
        mirrors=Mirrors(tmp_path / "git", 0),
        events=EventStream(bus),
        timeout=60.0,
    )
    builds = Builds(parts, lambda delivery, error: asyncio.sleep(0))
    deliveries = [await delivery(bus, "environments") for _ in range(2)]
    first = asyncio.create_task(builds.handle(deliveries[0]))
    await asyncio.wait_for(using.wait(), 30)
    await builds.handle(deliveries[1])
    assert python.exists()
    done.set()
    await first
    assert not python.exists()


class Store:
    def __init__(self, bus: Bus) -> None:
        bucket = Bucket(bus, subjects.VERSIONS_BUCKET)
        self.get = bucket.get_fresh
        self.put = bucket.put


class Edges:
    async def has_artifact(self, sha256: str) -> bool:
        return True

    async def announce(self, version: Version) -> None:
        """Nobody listens."""


@pytest.mark.parametrize("order", [(2, 1), (1, 2)])
@pytest.mark.parametrize("interleaved", [False, True])
async def test_the_newest_commit_is_latest_whichever_build_ends_last(
    bus: Bus, tmp_path: Path, order: tuple[int, int], interleaved: bool
) -> None:
    """A push while an earlier one is built: the earlier build can publish its version after the newer one."""
    project = f"newest-{order[0]}-{interleaved}".lower()
    service = BuilderService(Store(bus), Edges(), time.time)
    registered, go = {1: asyncio.Event(), 2: asyncio.Event()}, {1: asyncio.Event(), 2: asyncio.Event()}

    class Builds(VersionBuilds):
        async def _build(self, prefix: str, request: Any, installed: VirtualEnvironments, log: Any) -> BuildFinished:
            await go[request.build].wait()
            command = RegisterVersion(
                project=project,
                pipeline=ir.Pipeline(name="training", description=str(request.build)),
                source="a" * 64,
                environment=EnvironmentInfo(version="3.11", digest="0" * 64),
                publish=True,
            )
            reply = await service.register(command)
            registered[request.build].set()
            if interleaved:
                await asyncio.gather(*(one.wait() for one in registered.values()))
            return BuildFinished(pipeline="training", version=reply.version)

    parts: Any = SimpleNamespace(
        bus=bus,
        home=tmp_path,
        installed=lambda: VirtualEnvironments(tmp_path / "environments", 0, 60.0),
        mirrors=Mirrors(tmp_path / "git", 0),
        events=EventStream(bus),
        versions=Versions(bus),
        service=service,
        timeout=60.0,
    )
    builds = Builds(parts, lambda delivery, error: asyncio.sleep(0))
    tasks = [asyncio.create_task(builds.handle(await delivery(bus, project))) for _ in range(2)]
    for number in order:
        go[number].set()
        await asyncio.wait_for(registered[number].wait() if interleaved else tasks[number - 1], 30)
    await asyncio.gather(*tasks)
    latest = await Versions(bus).latest(project, "training")
    version = await Versions(bus).get(project, "training", latest or 0)
    assert version is not None and version.pipeline.description == "2"


async def delivery(bus: Bus, project: str) -> Any:
    """Return the delivery of a new build."""
    _, prefix = await requested(bus, project)
    last = await bus.last(subjects.BUILDS, f"{prefix}.requested")
    assert last is not None
    return SimpleNamespace(subject=f"{prefix}.requested", data=last.data, delivered=1)
