"""Snapshots of streams on a cluster of three servers: sequences, replicas, and consumers that continue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nats
import pytest

from penstock_adapters.nats import snapshots
from penstock_adapters.nats.bus import Bus, BusError
from penstock_testkit.servers.nats_cluster import NatsCluster

pytestmark = pytest.mark.asyncio

CONFIG: dict[str, Any] = {
    "name": "RUNS",
    "subjects": ["runs.>"],
    "storage": "file",
    "num_replicas": 3,
    "allow_direct": True,
}


async def test_a_stream_of_three_replicas_is_restored_with_its_sequences(tmp_path: Path) -> None:
    cluster = NatsCluster(tmp_path / "nats")
    cluster.start()
    try:
        bus = Bus(await nats.connect(cluster.urls))
        await bus.api("STREAM.CREATE.RUNS", CONFIG, timeout=20.0)
        consumers = ("scheduler-00", "openlineage")
        for name in consumers:
            config = {"durable_name": name, "ack_policy": "explicit", "deliver_policy": "all"}
            body = {"stream_name": "RUNS", "config": config, "action": "create"}
            await bus.api(f"CONSUMER.CREATE.RUNS.{name}", body, timeout=20.0)
        for tail in ("00.done.requested", "00.done.finished", "00.open.requested", "00.open.clock.1", "01.x.requested"):
            await bus.publish(f"runs.{tail}", tail.encode() * 1000)
        await bus.publish("runs.01.x.finished", b"")
        await bus.api("STREAM.MSG.DELETE.RUNS", {"seq": 1})
        for name in consumers:
            pulled = await bus.client.jetstream().pull_subscribe_bind(name, "RUNS")
            for message in await pulled.fetch(4, timeout=10):
                await message.ack_sync()
        saved = await snapshots.save(bus, "RUNS", tmp_path / "RUNS.snapshot")
        with pytest.raises(BusError):
            await snapshots.restore(bus, saved, tmp_path / "RUNS.snapshot", 3)  # it exists
        await bus.api("STREAM.DELETE.RUNS", timeout=20.0)
        await snapshots.restore(bus, saved, tmp_path / "RUNS.snapshot", 3)
        await snapshots.restore_consumers(bus, "RUNS", saved["consumers"], 3)
        info = await bus.api("STREAM.INFO.RUNS")
        assert info["config"]["num_replicas"] == 3
        assert (info["state"]["first_seq"], info["state"]["last_seq"], info["state"]["messages"]) == (2, 6, 5)
        # The scheduler gets all facts of unfinished runs again, the other consumer what it had not acknowledged.
        starts = {"scheduler-00": 3, "openlineage": 6}
        for name, start in starts.items():
            pulled = await bus.client.jetstream().pull_subscribe_bind(name, "RUNS")
            [first, *_] = await pulled.fetch(1, timeout=10)
            assert first.metadata.sequence.stream == start
        assert (await bus.publish("runs.00.new.requested", b""))["seq"] == 7
        await bus.client.close()
    finally:
        cluster.stop()
