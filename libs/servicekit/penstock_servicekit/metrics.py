"""`/metrics` of a service for Prometheus: the counters of its process, and what is measured when it is asked.

Labels are bounded: names of services, parts, streams, consumers and outcomes, never of users, pipelines or runs.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from prometheus_client import REGISTRY, CollectorRegistry, Gauge, generate_latest

from penstock_adapters.nats.bus import Bus, BusError
from penstock_core.errors import UnavailableError
from penstock_core.version import VERSION
from penstock_servicekit.stream_monitor import StreamMonitor

_TIMEOUT = 2.0


class Measured(Protocol):
    """What is measured of the services of a process."""

    bus: Bus
    monitor: StreamMonitor

    def ready(self) -> dict[str, bool]:
        """Return which parts are ready."""
        ...


async def exposition(service: str, running: Measured) -> bytes:
    """Return all metrics of this process in Prometheus' text format."""
    registry = CollectorRegistry()
    info = Gauge("penstock_info", "The version of this service.", ["service", "version"], registry=registry)
    info.labels(service, VERSION).set(1)
    parts = Gauge("penstock_ready", "Whether a part of this service is ready.", ["part"], registry=registry)
    for part, ready in running.ready().items():
        parts.labels(part).set(ready)
    problems = Gauge("penstock_problems", "Streams that do not store messages.", registry=registry)
    problems.set(len(running.monitor.problems))
    messages = Gauge("penstock_stream_messages", "Messages in a stream.", ["stream"], registry=registry)
    size = Gauge("penstock_stream_bytes", "Size of a stream in bytes.", ["stream"], registry=registry)
    for stream, state in running.monitor.states.items():
        messages.labels(stream).set(state["messages"])
        size.labels(stream).set(state["bytes"])
    labels = ["stream", "consumer"]
    waiting = Gauge("penstock_consumer_pending", "Messages that were not delivered yet.", labels, registry=registry)
    unfinished = Gauge(
        "penstock_consumer_in_flight", "Messages that were delivered and not acknowledged.", labels, registry=registry
    )
    for (stream, consumer), found in (await _consumers(running.bus)).items():
        waiting.labels(stream, consumer).set(found["num_pending"])
        unfinished.labels(stream, consumer).set(found["num_ack_pending"])
    return generate_latest(registry) + generate_latest(REGISTRY)


async def _consumers(bus: Bus) -> dict[tuple[str, str], Any]:
    """Return the states of the durable consumers of this process; without those that the server does not tell."""
    names = list(bus.durable_consumers)
    if not bus.client.is_connected:
        return {}
    asked = (bus.api(f"CONSUMER.INFO.{stream}.{name}", timeout=_TIMEOUT) for stream, name in names)
    answers = await asyncio.gather(*asked, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException) and not isinstance(answer, UnavailableError | BusError):
            raise answer
    return {name: found for name, found in zip(names, answers, strict=True) if isinstance(found, dict)}
