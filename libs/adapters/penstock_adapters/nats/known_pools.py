"""Which pools there are, and which executors are connected.

A pool has a consumer of attempts in the log. A connected executor renews its lease, which says what it offers; the
marker of a lease that ended says what it offered.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection

import pydantic

from penstock_adapters.nats.buckets.kv import Bucket
from penstock_adapters.nats.bus import Bus, BusError
from penstock_contracts import subjects
from penstock_contracts.commands import LeaseHolder
from penstock_core.capacity import ALL_POOLS, Available, Capacity
from penstock_core.errors import UnavailableError
from penstock_core.pipeline.ir import Pipeline
from penstock_core.requests import pools

_PREFIX = subjects.attempts_consumer("")
_PAGE = 1024
"""Names in a reply of the server."""

_FRESH = 2.0
"""Seconds for which the connected executors are not read again."""

_LATE = 60.0
"""Seconds after which an executor that did not renew its lease is not connected, beyond the lease's duration."""

_RESTART = 900.0
"""Seconds for which an executor that is not connected any more is expected to come back."""


class KnownPools:
    """Reads the pools when one is requested that is not known yet; a pool that was there once counts as known."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._leases = Bucket(bus, subjects.LEASES_BUCKET)
        self._pools: frozenset[str] = frozenset()
        self._serves_all = False
        self._executors: list[Capacity] = []
        self._restarting: list[Capacity] = []
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()

    async def available(self, pipeline: Pipeline) -> Available:
        """Return what there is for the steps of a pipeline.

        Raises:
            UnavailableError: the server does not answer.
        """
        known, executors = await self._known(pools(pipeline)), await self.executors()
        return Available(pools=known, executors=executors, restarting=self._restarting)

    async def executors(self) -> list[Capacity]:
        """Return the connected executors; none if the server cannot be asked."""
        async with self._reading:  # concurrent callers wait for one read
            if time.monotonic() - self._read_at >= _FRESH:
                try:
                    self._executors, self._restarting = await self._read_leases()
                except (UnavailableError, BusError):
                    self._executors, self._restarting = [], []
                self._read_at = time.monotonic()
            return self._executors

    async def _read_leases(self) -> tuple[list[Capacity], list[Capacity]]:
        connected: list[Capacity] = []
        restarting: list[Capacity] = []
        for entry in await self._leases.list(deleted=True):
            try:
                holder = LeaseHolder.model_validate_json(entry.value)
            except pydantic.ValidationError:
                continue
            found = Capacity(executor=subjects.lease_holder(entry.key), **holder.offer.model_dump())
            age = time.time() - entry.written_at - holder.duration
            if age < _LATE and not entry.deleted:
                connected.append(found)
            elif age < _RESTART:
                restarting.append(found)
        return sorted(connected, key=lambda one: (one.pool, one.executor)), restarting

    async def _known(self, wanted: Collection[str]) -> Collection[str]:
        """Return the pools that there are; `wanted` itself if executors serve all pools."""
        if not (self._serves_all or self._pools.issuperset(wanted)):
            names = await self._consumers()
            self._serves_all = subjects.attempts_consumer(ALL_POOLS) in names
            self._pools = frozenset(name.removeprefix(_PREFIX) for name in names if name.startswith(_PREFIX))
        return wanted if self._serves_all else self._pools

    async def _consumers(self) -> set[str]:
        names: set[str] = set()
        while True:
            reply = await self._bus.api(f"CONSUMER.NAMES.{subjects.RUNS}", {"offset": len(names)})
            page = reply.get("consumers") or []
            names.update(page)
            if len(page) < _PAGE:
                return names
