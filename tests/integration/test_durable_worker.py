"""Workers of durable consumers on a real server: handlers that fail, and consumers that are deleted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog

from penstock_adapters.nats import consumer
from penstock_adapters.nats.bootstrap import bootstrap
from penstock_adapters.nats.consumer import Delivery
from penstock_adapters.nats.server import EmbeddedServer
from penstock_contracts import subjects
from penstock_core.errors import UnavailableError
from penstock_servicekit.durable_worker import DurableWorker, RetryLaterError
from penstock_servicekit.nats_connection import connect, servers
from penstock_servicekit.service_context import ServiceContext


@asynccontextmanager
async def service(home: Path) -> AsyncIterator[ServiceContext]:
    """A minimal service connected to a server with all streams."""
    server = EmbeddedServer(home, fsync=False)
    await server.start()
    watch = asyncio.create_task(server.supervise())
    broker, bus = await connect(servers(server.url), "test", asyncio.get_running_loop().create_future())
    try:
        await bootstrap(bus, pools=["default"], ack_wait=1.0)
        yield ServiceContext("test", bus, broker, structlog.get_logger(), "test")
    finally:
        await asyncio.wait_for(broker.stop(), 5)
        await server.stop()
        await watch


def worker(context: ServiceContext, handle: Callable[[str], None]) -> DurableWorker:
    """A worker of timers, with short delays."""

    async def receive(delivery: Delivery) -> None:
        handle(delivery.data.decode())

    return DurableWorker(
        context, subjects.TIMERS, subjects.WAKES_CONSUMER, receive, prefetch=4, retry_delay=0.05, error_delay=0.05
    )


async def publish(context: ServiceContext, *bodies: str) -> None:
    for body in bodies:
        await context.bus.publish(f"wakes.{body}", body.encode())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def acknowledged(context: ServiceContext) -> bool:
    info = await context.bus.api(f"CONSUMER.INFO.{subjects.TIMERS}.{subjects.WAKES_CONSUMER}")
    return info["num_ack_pending"] == 0 and info["num_pending"] == 0


async def test_messages_are_handled_in_order_and_redelivered_after_an_error(tmp_path: Path) -> None:
    handled: list[str] = []

    def handle(body: str) -> None:
        handled.append(body)
        if handled.count(body) == 1:
            if body == "b":
                raise UnavailableError("try again")
            if body == "c":
                raise ValueError("a bug")

    async with service(tmp_path) as context:
        await publish(context, "a", "b", "c", "d")
        timers = worker(context, handle)
        timers.start()
        await until(lambda: len(handled) == 6)
        assert handled[:4] == ["a", "b", "c", "d"] and sorted(handled[4:]) == ["b", "c"]
        async with asyncio.timeout(5):
            while not await acknowledged(context):
                await asyncio.sleep(0.01)
        assert timers.ready()
        await timers.stop()
        assert not timers.ready()


async def test_slow_messages_and_those_behind_them_are_handled_once(tmp_path: Path) -> None:
    """Each is slower than the wait for acknowledgements, which is one second here."""
    handled: list[str] = []

    async def handle(delivery: Delivery) -> None:
        handled.append(delivery.data.decode())
        await asyncio.sleep(1.5)

    async with service(tmp_path) as context:
        await publish(context, "a", "b", "c")
        slow = DurableWorker(context, subjects.TIMERS, subjects.WAKES_CONSUMER, handle, prefetch=4)
        slow.start()
        async with asyncio.timeout(20):
            while not await acknowledged(context):
                await asyncio.sleep(0.05)
        await slow.stop()
    assert handled == ["a", "b", "c"]


async def test_a_stopped_worker_returns_its_messages_at_once(tmp_path: Path) -> None:
    started = asyncio.Event()

    async def hang(delivery: Delivery) -> None:
        started.set()
        await asyncio.Event().wait()

    async with service(tmp_path) as context:
        await publish(context, "a", "b")
        first = DurableWorker(context, subjects.TIMERS, subjects.WAKES_CONSUMER, hang, prefetch=4)
        first.start()
        await started.wait()
        await first.stop()
        handled: list[str] = []
        second = worker(context, handled.append)
        second.start()
        await until(lambda: sorted(handled) == ["a", "b"])
        await second.stop()


@pytest.mark.parametrize("idle", [True, False], ids=["waiting", "stopped"])
async def test_a_deleted_consumer_is_recreated(tmp_path: Path, idle: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With pending pull requests, which the server ends at the deletion, and before the first request."""
    handled: list[str] = []
    logged: list[str] = []
    monkeypatch.setattr(consumer._log, "error", lambda text, *parts: logged.append(text % parts))
    async with service(tmp_path) as context:
        timers = worker(context, handled.append)
        if idle:
            timers.start()
            await publish(context, "a")
            await until(lambda: handled == ["a"])
        await context.bus.api(f"CONSUMER.DELETE.{subjects.TIMERS}.{subjects.WAKES_CONSUMER}")
        if not idle:
            timers.start()
        await publish(context, "b")
        await until(lambda: "b" in handled)
        await timers.stop()
    assert logged == ["durable consumer scheduler-wakes of stream TIMERS was deleted; it has been created again"]


async def test_a_handler_says_when_its_message_is_delivered_again(tmp_path: Path) -> None:
    at: list[float] = []

    async def handle(delivery: Delivery) -> None:
        at.append(time.monotonic())
        if len(at) == 1:
            raise RetryLaterError("not yet", 0.4)

    async with service(tmp_path) as context:
        await publish(context, "a")
        timers = DurableWorker(context, subjects.TIMERS, subjects.WAKES_CONSUMER, handle, retry_delay=30.0)
        timers.start()
        await until(lambda: len(at) == 2)
        await timers.stop()
    assert at[1] - at[0] >= 0.4


async def test_what_is_being_handled_is_finished_and_acknowledged_when_the_worker_drains(tmp_path: Path) -> None:
    """The messages behind it go back: nothing is handled twice, and nothing is lost."""
    begun, ended = asyncio.Event(), asyncio.Event()
    handled: list[str] = []

    async def handle(delivery: Delivery) -> None:
        begun.set()
        await ended.wait()
        handled.append(delivery.data.decode())

    async with service(tmp_path) as context:
        await publish(context, "a", "b", "c")
        first = DurableWorker(context, subjects.TIMERS, subjects.WAKES_CONSUMER, handle, prefetch=4, drain=20.0)
        first.start()
        await begun.wait()
        stopping = asyncio.create_task(first.stop())
        await asyncio.sleep(0.1)
        assert not stopping.done()
        ended.set()
        await stopping
        assert handled == ["a"]
        second = DurableWorker(context, subjects.TIMERS, subjects.WAKES_CONSUMER, handle, prefetch=4)
        second.start()
        await until(lambda: len(handled) == 3)
        await second.stop()
    assert sorted(handled) == ["a", "b", "c"]
