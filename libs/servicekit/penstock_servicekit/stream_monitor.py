"""Checks that all streams and durable consumers exist and that streams store messages; re-creates what was deleted.

Promise: a deleted consumer is created again and delivers its messages once more, which every handler tolerates. A
deleted stream is created again with the next sequence numbers, so that positions in it stay valid. Streams whose
contents follow from the log of runs are filled again, by delivering that log once more. What cannot be recovered is
reported as a problem, like a stream that stores nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from structlog.typing import FilteringBoundLogger

from penstock_adapters.nats import bootstrap
from penstock_adapters.nats.bus import Bus, BusError
from penstock_contracts import subjects
from penstock_contracts.commands import Problems
from penstock_core import ids
from penstock_core.errors import UnavailableError

EVERY = 5.0
"""Seconds between two checks."""

_UNSTORED_FOR = 10.0
"""Seconds without a stored message until a stream counts as broken: less may be the election of a leader."""

_UNSTORED_UNTIL = 45.0
"""Seconds after the last refusal until it is forgotten: all that waits is retried sooner."""

_ROOM = 1000
"""Sequence numbers left out by a new stream: the last known one may be a few seconds old."""

_DERIVED = (subjects.TIMERS, f"KV_{subjects.WAITS_BUCKET}", f"KV_{subjects.LIMITS_BUCKET}")
"""Streams whose contents follow from the log."""

_EXPENDABLE = tuple(
    f"KV_{bucket}" for bucket in (subjects.CACHE_BUCKET, subjects.MARKS_BUCKET, subjects.INTEGRITY_BUCKET)
)
"""Streams that fill up again by themselves."""

_CONTENTS: Mapping[str, str] = {
    subjects.RUNS: "all runs: unfinished ones do not continue",
    subjects.LOGS: "output of steps",
    subjects.METRICS: "metric series",
    subjects.BUILDS: "the history of registrations",
    subjects.PARKED: "parked messages",
    subjects.EVENTS: "events that were not handled yet",
    subjects.MODELS: "all registered models",
    subjects.DEPLOYMENTS: "all deployments",
    subjects.DECISIONS: "decisions on events: an event that is sent again may start a second run",
    f"KV_{subjects.VERSIONS_BUCKET}": "all pipeline versions: register the pipelines again",
    f"KV_{subjects.RETENTION_BUCKET}": "retention policies",
    f"KV_{subjects.TOKENS_BUCKET}": "tokens of the API",
}


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
        self._lost: dict[str, str] = {}
        self._broken: dict[str, str] = {}

    @property
    def problems(self) -> list[str]:
        """Present problems, and losses since the start of this process."""
        return [*self._broken.values(), *self._lost.values()]

    @property
    def working(self) -> bool:
        """Whether all streams exist and store messages."""
        return not self._broken

    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            if self._bus.client.is_connected:
                try:
                    await self.check()
                except (UnavailableError, BusError) as error:
                    self._log.warning("streams could not be checked, will be retried", error=str(error))
                except Exception:  # a bug must not end the checks silently
                    self._log.exception("streams could not be checked, will be retried")
            await asyncio.sleep(EVERY)

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
                report = Problems(
                    service=self._service, broken=list(self._broken.values()), lost=list(self._lost.values())
                )
                await self._bus.send(subjects.problems(self._service), report.model_dump_json().encode())

    async def _check_streams(self) -> None:
        present = {str(info["config"]["name"]): info for info in await self._pages("STREAM.LIST", "streams")}
        replaced: list[str] = []
        replay = False
        for name, wanted in self._wanted.items():
            info = present.get(name)
            if info is None:
                created_here, info = await bootstrap.restore_stream(self._bus, wanted, self._last.get(name, 0) + _ROOM)
                replay |= created_here and name in _DERIVED
            created = str(info["created"])
            if self._created.setdefault(name, created) != created:
                self._created[name] = created
                replaced.append(name)
            self._last[name] = max(self._last.get(name, 0), int(info["state"]["last_seq"]))
        for name in replaced:
            self._report_loss(name)
        if replay:
            await self._deliver_again()
        if replaced:
            # Whatever was read from these streams is unknown now, as after a restart of the server.
            self._bus.reconnected()

    def _report_loss(self, name: str) -> None:
        text = f"stream {name} was deleted; it has been created again"
        if name in _DERIVED:
            self._log.error(f"{text}, and is filled again from the log of runs")
        elif name in _EXPENDABLE:
            self._log.error(text)
        else:
            self._lost[name] = f"{text}, empty. Lost: {_CONTENTS.get(name, 'its messages')}. Restore a backup"
            self._log.error(self._lost[name])

    async def _deliver_again(self) -> None:
        """Delete the consumers of the log; their users create them again, from the beginning of the log."""
        names = [(subjects.RUNS, subjects.scheduler_consumer(shard)) for shard in range(ids.SHARDS)]
        for stream, name in [*names, (subjects.EVENTS, subjects.TRIGGERS_CONSUMER)]:
            try:
                await self._bus.api(f"CONSUMER.DELETE.{stream}.{name}")
            except BusError as error:
                if error.code not in (bootstrap.CONSUMER_NOT_FOUND, bootstrap.STREAM_NOT_FOUND):
                    raise

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
