"""The run log with large facts: reads that exceed the server's response limit, and facts too large to read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from penstock_adapters.nats.appender import Appender
from penstock_adapters.nats.bootstrap import bootstrap
from penstock_adapters.nats.bus import Bus, BusError
from penstock_adapters.nats.run_log import FactTooLargeError, NatsRunLog
from penstock_contracts import fact_codec, subjects
from penstock_core.facts import AttemptFinished, Outcome
from penstock_core.pipeline.values import Inline, Value
from penstock_servicekit.nats_connection import connect, servers
from penstock_testkit.servers.nats import NatsServer


@pytest.fixture
async def bus(nats_server: NatsServer) -> AsyncIterator[Bus]:
    broker, bus = await connect(servers(nats_server.url), "test", asyncio.get_running_loop().create_future())
    await bootstrap(bus, pools=["default"])
    yield bus
    await broker.stop()


def end(run: str, key: str, size: int) -> AttemptFinished:
    text = "x" * 60_000
    outputs: dict[str, Value] = {f"o{n}": Inline(text) for n in range(size // len(text))}
    outputs["rest"] = Inline("y" * (size % len(text)))
    return AttemptFinished(run_id=run, key=key, attempt=1, outcome=Outcome.SUCCEEDED, outputs=outputs)


async def test_a_log_over_the_servers_response_limit_is_read_completely(bus: Bus) -> None:
    # nats-server ends a batched read after 64 MiB (its `max_pending`), and says so only in the closing header.
    facts = [end("wide", f"s-{n}", 250_000) for n in range(290)]
    log = NatsRunLog(bus, "test")
    assert all([written for start in range(0, 290, 50) for written in await log.append(facts[start : start + 50])])
    assert [entry.fact.tail for entry in await log.read("wide")] == [fact.tail for fact in facts]
    places = [subjects.finished("wide", fact.key, 1) for fact in facts]
    assert set(await log.last(places)) == set(places)


@pytest.mark.parametrize("others", [0, 4, 20])
async def test_a_fact_too_large_to_read_is_not_written(bus: Bus, others: int) -> None:
    log = NatsRunLog(bus, "test")
    run = f"large-{others}"
    large = end(run, "large", fact_codec.MAX_BODY + 1)
    with pytest.raises(FactTooLargeError, match="the limit is"):
        await log.append([large, *(end(run, f"s-{n}", 1) for n in range(others))])
    assert large.tail not in {entry.fact.tail for entry in await log.read(run)}


async def test_an_oversized_fact_does_not_block_the_rest_of_its_batch(bus: Bus) -> None:
    appender = Appender(NatsRunLog(bus, "test"), lambda error: None)
    futures = [appender.submit(end("mixed", f"s-{n}", 5_000_000 if n == 7 else 1)) for n in range(20)]
    futures[3].cancel()  # the caller no longer waits
    task = asyncio.create_task(appender.run())
    await asyncio.wait(futures, timeout=10)
    assert isinstance(futures[7].exception(), BusError)
    assert all(future.result() for n, future in enumerate(futures) if n not in (3, 7))
    # An abandoned, rejected append does not end the task that writes for all others.
    refused = appender.submit(end("mixed", "again", 5_000_000))
    refused.cancel()
    later = appender.submit(end("mixed", "later", 1))
    assert await asyncio.wait_for(later, 10)
    task.cancel()
    await asyncio.wait([task])
