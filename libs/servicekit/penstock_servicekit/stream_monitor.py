"""Checks that all streams and durable consumers exist and that streams store messages; re-creates what was deleted.

Promise: a deleted consumer is created again and delivers its messages once more, which every handler tolerates. A
deleted stream is created again with higher sequence numbers, so that positions in it stay valid; the gateway restores
its contents or reports them as lost. A stream that stores nothing is reported as a problem.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from nats.aio.msg import Msg
from structlog.typing import FilteringBoundLogger

from penstock_adapters.nats import bootstrap
from penstock_adapters.nats.bus import Bus, BusError
from penstock_contracts import subjects
from penstock_contracts.commands import Problems
from penstock_core.errors import UnavailableError

EVERY = 5.0
"""Seconds between two checks."""

_UNSTORED_FOR = 10.0
"""Seconds without a stored message until a stream counts as broken: less may be the election of a leader."""

_UNSTORED_UNTIL = 45.0
"""Seconds after the last refusal until it is forgotten: all that waits is retried sooner."""

_ROOM = 1_000_000
"""Sequence numbers left out by a new stream: the last known one may be a few seconds old."""

_DELETED = "$JS.EVENT.ADVISORY.STREAM.DELETED.*"
"""On which the server announces that a stream was deleted."""


class StreamMonitor:
    """Checks in a loop; see the module. `problems` has what an operator must know, one sentence each.

    Args:
        bus: the connection; its durable consumers are checked.
        replicas: of each stream.
        service: name of the process, for its reports.
        log: its log.
    """

    def __init__(self, bus: Bus, replicas: int, service: str, log: FilteringBoundLogger) -> None:
        self._bus = bus
        self._wanted = {str(stream["name"]): stream for stream in bootstrap.streams(replicas)}
        self._service = service
        self._log = log
        self._created: dict[str, str] = {}
        self._last: dict[str, int] = {}
        self.states: dict[str, dict[str, Any]] = {}
        """What the server last said of the streams, by name: `messages`, `bytes`, …"""
        self._broken: dict[str, str] = {}
        self._wake = asyncio.Event()

    @property
    def problems(self) -> list[str]:
        """The present problems."""
        return list(self._broken.values())

    @property
    def working(self) -> bool:
        """Whether all streams exist and store messages."""
        return not self._broken

    async def run(self) -> None:
        """Check until cancelled."""
        await self._bus.subscribe(_DELETED, self._deleted)
        while True:
            self._wake.clear()
            if self._bus.client.is_connected:
                try:
                    await self.check()
                except (UnavailableError, BusError) as error:
                    self._log.warning("streams could not be checked, will be retried", error=str(error))
                except Exception:  # a bug must not end the checks silently
                    self._log.exception("streams could not be checked, will be retried")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EVERY):
                    await self._wake.wait()

    async def _deleted(self, _: Msg) -> None:
        self._wake.set()

    async def check(self) -> None:
        """Check once, re-create what is missing, and report problems.

        Raises:
            UnavailableError: the server does not answer.
            BusError: it refuses to create a stream or a consumer.
        """
        before = set(self._broken)
        self._broken = unstored(self._bus.unstored, self._wanted, time.monotonic())
        for name, text in self._broken.items():
            if name not in before:
                self._log.error(text)
        try:
            await self._check_streams()
            await self._check_consumers()
        finally:
            if self.problems:
                report = Problems(service=self._service, problems=self.problems)
                await self._bus.send(subjects.problems(self._service), report.model_dump_json().encode())

    async def _check_streams(self) -> None:
        present = {str(info["config"]["name"]): info for info in await self._pages("STREAM.LIST", "streams")}
        replaced = False
        for name, wanted in self._wanted.items():
            info = present.get(name)
            if info is None:
                info = await bootstrap.restore_stream(self._bus, wanted, self._last.get(name, 0) + _ROOM)
            self.states[name] = info["state"]
            created = str(info["created"])
            if self._created.setdefault(name, created) != created:
                self._created[name] = created
                self._log.error("stream was deleted; it has been created again", stream=name)
                replaced = True
            self._last[name] = max(self._last.get(name, 0), int(info["state"]["last_seq"]))
        if replaced:
            # Whatever was read from these streams is unknown now, as after a restart of the server.
            self._bus.reconnected()

    async def _check_consumers(self) -> None:
        for stream in sorted({stream for stream, _ in self._bus.durable_consumers}):
            present = set(await self._pages(f"CONSUMER.NAMES.{stream}", "consumers"))
            for name in [name for where, name in self._bus.durable_consumers if where == stream]:
                if name not in present and await bootstrap.restore_consumer(self._bus, stream, name):
                    self._log.error("durable consumer was deleted; it has been created again", stream=stream, name=name)

    async def _pages(self, verb: str, field: str) -> list[Any]:
        found: list[Any] = []
        while True:
            answer = await self._bus.api(verb, {"offset": len(found)})
            page: Sequence[Any] = answer.get(field) or []
            found += page
            if not page or len(found) >= int(answer["total"]):
                return found


def unstored(
    refused: Mapping[str, tuple[float, float, str]], streams: Mapping[str, Mapping[str, Any]], now: float
) -> dict[str, str]:
    """Return the streams that store nothing, with a sentence for operators.

    Args:
        refused: first and last refusal and its text, by the first part of the subject; see `Bus.unstored`.
        streams: settings of the streams, by name.
        now: time of `time.monotonic()`.
    """
    found: dict[str, str] = {}
    for first_part, (first, last, why) in refused.items():
        if now - first < _UNSTORED_FOR or now - last > _UNSTORED_UNTIL:
            continue
        name = next((name for name, stream in streams.items() if f"{first_part}.>" in stream["subjects"]), first_part)
        found[name] = (
            f"stream {name} stores nothing ({why}): free space on the disk of nats-server, then restart nats-server, "
            "which refuses all writes to a stream after one has failed"
        )
    return found
