"""Builds of environments: what a builder leaves on its disk and in the log, without uv and NATS."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from penstock_adapters.commands import Log
from penstock_adapters.images.build_errors import ImageBuildError
from penstock_adapters.nats import build_log
from penstock_adapters.nats.bus import BusError, LastMessage
from penstock_adapters.nats.event_stream import EventStream
from penstock_adapters.uv import resolver
from penstock_adapters.uv.command import EnvironmentBuildError
from penstock_adapters.uv.virtual_environments import VirtualEnvironments
from penstock_builder.environment_builds import EnvironmentBuilds
from penstock_contracts.environments import EnvironmentFinished, EnvironmentRequested
from penstock_core.deployments.events import Event
from penstock_core.environments.declaration import EnvironmentDeclaration
from penstock_core.environments.image_options import ImageOptions
from penstock_core.environments.lock import EnvironmentLock, LockedPackage


class Platform:
    """The bus, and the bucket of versions."""

    def __init__(self) -> None:
        self.published: list[tuple[str, Any]] = []
        self.events: list[Event] = []
        self.subscribers: dict[str, Any] = {}

    async def last(self, stream: str, subject: str) -> LastMessage | None:
        found = [body for at, body in self.published if at == subject]
        return LastMessage(1, orjson.dumps(found[0]), b"") if found else None

    async def publish(self, subject: str, body: bytes, headers: object = None) -> None:
        if len(body) > 2**20:
            raise BusError("too large")
        self.published.append((subject, orjson.loads(body)))
        if subject in self.subscribers:
            await self.subscribers[subject](body)

    async def subscribe(self, subject: str, callback: Any) -> Platform:
        self.subscribers[subject] = callback
        return self

    async def unsubscribe(self) -> None:
        self.subscribers.clear()

    async def keep_lock(self, lock: EnvironmentLock) -> None:
        return None

    async def publish_event(self, event: Event) -> tuple[int, bool]:
        self.events.append(event)
        return len(self.events), False

    def bodies(self, word: str) -> list[Any]:
        return [body for subject, body in self.published if subject.endswith(word)]


class Events(EventStream):
    """The stream of events of such a platform."""

    def __init__(self, platform: Platform) -> None:
        self.publish = platform.publish_event


async def park(delivery: object, error: str) -> None:
    return


class Quick(VirtualEnvironments):
    """Environments with an interpreter and 1 MB of files."""

    async def _install(self, lock: EnvironmentLock, indexes: object, log: Log) -> None:
        folder = self._folder / lock.digest()
        (folder / "bin").mkdir(parents=True)
        (folder / "bin/python").symlink_to(sys.executable)
        (folder / "library").write_bytes(bytes(2**20))
        (folder / "penstock-environment").touch()


async def build(platform: Platform, installed: VirtualEnvironments | None, *names: str) -> None:
    builds = EnvironmentBuilds(platform, platform, installed, None, 60, park, Events(platform))  # type: ignore[arg-type]
    for name in names:
        declaration = EnvironmentDeclaration(name="e", python="3.12", requirements=(name,))
        data = EnvironmentRequested(declaration=declaration, build=1, at=0.0).model_dump_json().encode()
        await builds.handle(SimpleNamespace(subject=f"environments.p.{name}.1.requested", data=data, delivered=1))  # type: ignore[arg-type]


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the resolver prints."""
    printed: list[str] = []

    async def resolve(declaration: EnvironmentDeclaration, log: Log, timeout: float) -> EnvironmentLock:
        for line in printed:
            log(line)
        packages = (LockedPackage(name=one, version="1", hashes=("sha256:0",)) for one in declaration.requirements)
        return EnvironmentLock(python=declaration.python, packages=tuple(packages))

    monkeypatch.setattr(resolver, "resolve", resolve)
    return printed


async def test_a_builder_keeps_no_more_environments_than_its_limit(lines: list[str], tmp_path: Path) -> None:
    platform = Platform()
    await build(platform, Quick(tmp_path, 2 * 2**20 + 2**10, 60), "a", "b", "c", "d")
    assert [body["error"] for body in platform.bodies("finished")] == [""] * 4
    assert len(list(tmp_path.glob("*/library"))) == 2


async def test_of_a_build_script_that_prints_without_end_the_first_lines_are_stored(
    lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_log, "_MOST_LINES", 500)
    lines += [f"line {n}" for n in range(2000)]
    platform = Platform()
    await build(platform, None, "a")
    stored = [line for body in platform.bodies("log") for line in body["lines"]]
    assert stored[:500] == lines[:500] and stored[500:] == ["… only the first 500 lines are stored"]


@pytest.mark.parametrize(
    ("data", "delivered", "error"),
    [(b"{}", 1, "the request is unreadable"), (None, 11, "did not finish it in 10 tries")],
    ids=["unreadable", "kills its builders"],
)
async def test_a_build_that_cannot_be_handled_fails_instead_of_building_for_ever(
    lines: list[str], data: bytes | None, delivered: int, error: str
) -> None:
    platform = Platform()
    declaration = EnvironmentDeclaration(name="e", python="3.12", requirements=("a",))
    request = EnvironmentRequested(declaration=declaration, build=1, at=0.0).model_dump_json().encode()
    builds = EnvironmentBuilds(platform, platform, None, None, 60, park, Events(platform))  # type: ignore[arg-type]
    delivery: Any = SimpleNamespace(subject="environments.p.a.1.requested", data=data or request, delivered=delivered)
    await builds.handle(delivery)
    (finished,) = platform.bodies("p.a.1.finished")
    assert error in finished["error"] and finished["environment"] is None


class Images:
    """Makes images, or fails."""

    def __init__(self, error: str = "") -> None:
        self.error = error

    async def make(self, lock: EnvironmentLock, options: ImageOptions, indexes: object, log: Log) -> str:
        if self.error:
            raise ImageBuildError(self.error)
        return options.image or f"registry.example/e@sha256:{lock.digest()}"


async def finished(images: Images | None, *requirements: str, **options: str) -> Any:
    platform = Platform()
    image = ImageOptions(**options)  # type: ignore[arg-type]
    declaration = EnvironmentDeclaration(name="e", python="3.12", requirements=requirements, image=image)
    data = EnvironmentRequested(declaration=declaration, build=1, at=0.0).model_dump_json().encode()
    builds = EnvironmentBuilds(platform, platform, None, images, 60, park, Events(platform))  # type: ignore[arg-type]
    await builds.handle(SimpleNamespace(subject="environments.p.a.1.requested", data=data, delivered=1))  # type: ignore[arg-type]
    (found,) = platform.bodies("finished")
    return found


async def test_an_environment_has_its_image_by_digest(lines: list[str]) -> None:
    found = (await finished(Images(), "a"))["environment"]
    assert found["image"] == f"registry.example/e@sha256:{found['digest']}" and not found["image_only"]
    assert (await finished(None, "a"))["environment"]["image"] == ""
    assert (await finished(Images("RUN false failed"), "a"))["error"] == "RUN false failed"


async def test_an_image_or_a_dockerfile_can_be_the_whole_environment(lines: list[str]) -> None:
    pinned = "registry.example/own@sha256:" + "a" * 64
    for images in (None, Images()):
        found = (await finished(images, image=pinned))["environment"]
        assert found["image"] == pinned and found["image_only"] and found["packages"] == {}
    assert (await finished(Images(), dockerfile="FROM a"))["environment"]["image_only"]
    assert "PENSTOCK_IMAGES_REPOSITORY" in (await finished(None, dockerfile="FROM a"))["error"]


async def test_a_finished_build_is_an_event_also_if_the_builder_died_before(lines: list[str]) -> None:
    platform = Platform()
    await build(platform, None, "a")
    [event] = platform.events
    assert (event.type, event.source, event.id, event.subject) == (
        "penstock.build.finished.v1",
        "penstock/builds",
        "a/1",
        "e",
    )
    [finished] = platform.bodies("finished")
    assert event.data | {"duration": 0} == {
        "environment": "e", "declaration": "a", "build": 1, "state": "succeeded",
        "lock": finished["environment"]["digest"], "image": "", "error": "", "duration": 0,
    }  # fmt: skip
    await build(platform, None, "a")  # delivered again: built once, published with the same id
    assert len(platform.bodies("finished")) == 1
    assert {one.digest for one in platform.events} == {event.digest} and len(platform.events) == 2


async def test_a_failed_build_is_an_event_with_its_error(lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(*args: object) -> EnvironmentLock:
        raise EnvironmentBuildError("there is no distribution a")

    monkeypatch.setattr(resolver, "resolve", resolve)
    platform = Platform()
    await build(platform, None, "a")
    [event] = platform.events
    assert (event.data["state"], event.data["lock"]) == ("failed", "")
    assert event.data["error"] == "there is no distribution a"


async def test_a_build_that_is_cancelled_stops_and_has_one_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    platform = Platform()
    stopped: list[str] = []

    async def resolve(declaration: EnvironmentDeclaration, log: Log, timeout: float) -> EnvironmentLock:
        cancelled = EnvironmentFinished(cancelled_by="user:ada", at=time.time())
        await platform.publish("environments.p.a.1.finished", cancelled.model_dump_json().encode())
        try:
            await asyncio.sleep(1000)
        finally:
            stopped.append(declaration.name)
        raise AssertionError

    monkeypatch.setattr(resolver, "resolve", resolve)
    await build(platform, None, "a")
    assert stopped == ["e"]
    (finished,) = platform.bodies("finished")
    assert (finished["cancelled_by"], finished["environment"]) == ("user:ada", None)
    (event,) = platform.events
    assert event.data["state"] == "failed" and event.data["error"] == "cancelled by user:ada"
