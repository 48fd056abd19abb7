"""The lease of an executor, and what is known of the leases of others (`penstock_core.ownership`).

In: the bucket of leases, the answers of other executors. Out: this executor's entry, renewed a few times per duration.

A lease is valid until its deadline: its duration after the last renewal was sent. Another executor ends a lease only
after it has seen the same revision for longer than the duration, or after it has found on its own machine that the
process is gone. It ends a lease by removing exactly that revision, so a renewal and an end exclude each other.
Deadlines use the machine's boot clock, which goes on while it sleeps, and no clock is compared between machines.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import orjson
from nats.aio.msg import Msg

from penstock_adapters.nats.buckets.kv import Bucket, Entry
from penstock_adapters.nats.bus import Bus, BusError
from penstock_adapters.process import orphans
from penstock_contracts import subjects
from penstock_contracts.commands import LeaseHolder, Offer
from penstock_core.errors import UnavailableError
from penstock_core.facts import AttemptStarted
from penstock_core.ownership import OwnerStatus
from penstock_core.shipping.messages import AttemptKey

RENEWALS = 6
"""Renewals per duration of a lease."""

_MARGIN = 1.25
_ANSWER = 1.0
"""Seconds to wait for the answer of another executor."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PID_NAMESPACE = Path("/proc/self/ns/pid")


def now() -> float:
    """Return seconds since the machine booted, including the time it slept; the same in all of its processes."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Lease:
    """The lease of the executor `name`.

    Args:
        bus: the connection.
        name: name of this executor in facts.
        work: mark of the processes of its attempts, see `penstock_adapters.process.orphans`.
        duration: seconds for which a renewal is valid.
        offer: what this executor offers to steps; the lease announces it.
        has: whether this executor has an attempt.
        renewed: called with the new deadline after each renewal.
        lost: called when another executor has ended the lease.
        warn: writes to the log of the service.
    """

    def __init__(
        self,
        bus: Bus,
        name: str,
        work: str,
        duration: float,
        offer: Offer,
        has: Callable[[AttemptKey], bool],
        renewed: Callable[[float], None],
        lost: Callable[[], None],
        warn: Callable[..., None],
    ) -> None:
        self._bus = bus
        self._bucket = Bucket(bus, subjects.LEASES_BUCKET)
        self._name = name
        self._key = subjects.lease(name)
        self._has = has
        self._renewed = renewed
        self._lost = lost
        self._warn = warn
        pid = os.getpid()
        self._holder = LeaseHolder(
            machine=_machine(), pid=pid, began=_began(pid), work=work, duration=duration, offer=offer
        )
        self._revision = 0
        self._deadline = 0.0
        self._seen: dict[str, tuple[int, float]] = {}

    @property
    def fence(self) -> int:
        """Fencing number of the lease, if it is valid; 0 if it is not."""
        return self._holder.fence if self._revision and now() < self._deadline else 0

    def announce(self, problems: list[str]) -> None:
        """Announce what is wrong where this executor runs attempts, with the next renewal."""
        offer = self._holder.offer.model_copy(update={"problems": problems})
        self._holder = self._holder.model_copy(update={"offer": offer})

    async def start(self) -> None:
        """Acquire the lease, and answer other executors."""
        await self._bus.subscribe(subjects.owner_question(self._name), self._answer)
        await self._acquire()

    async def run(self) -> None:
        """Renew the lease until cancelled."""
        while True:
            await asyncio.sleep(self._holder.duration / RENEWALS)
            try:
                await self._renew()
            except (UnavailableError, BusError) as error:
                self._warn("lease not renewed, will be retried", error=str(error))

    async def release(self) -> None:
        """Give the lease up: no process is left."""
        if self._revision:
            self._revision = 0
            with contextlib.suppress(UnavailableError, BusError):  # it ends by itself
                await self._bucket.delete(self._key, keep=self._body())

    async def _acquire(self) -> None:
        """Acquire a new lease. Its first revision is its fencing number, so later ones have higher numbers."""
        sent = now()
        self._holder = self._holder.model_copy(update={"fence": 0})
        first = await self._bucket.put(self._key, self._body())
        assert first is not None  # noqa: S101 - not conditional
        self._holder, self._revision = self._holder.model_copy(update={"fence": first}), first
        await self._renew(sent)

    async def _renew(self, sent: float | None = None) -> None:
        sent = now() if sent is None else sent
        revision = await self._bucket.put(self._key, self._body(), self._revision)
        if revision is None:
            entry = await self._bucket.get_fresh(self._key)
            if entry is not None and _is_same(_read(entry), self._holder):
                revision = entry.revision  # this executor's own write, whose answer was lost
            else:
                self._warn("another executor has ended the lease of this one; it acquires a new one")
                self._revision = 0
                self._lost()
                await self._acquire()
                return
        self._revision, self._deadline = revision, sent + self._holder.duration
        self._renewed(self._deadline)

    def _body(self) -> bytes:
        return self._holder.model_dump_json().encode()

    async def _answer(self, message: Msg) -> None:
        run_id, key, attempt = orjson.loads(message.data)
        await message.respond(b"1" if self._has((run_id, key, int(attempt))) else b"0")

    # ------------------------------------------------------------------------------------------------- of others

    async def owner_status(self, started: AttemptStarted) -> OwnerStatus:
        """Return what is known of the owner of an attempt.

        Raises:
            UnavailableError: the server does not answer.
        """
        if started.executor == self._name:
            return OwnerStatus.GONE  # only attempts that this executor does not have are judged
        entry = await self._bucket.get_fresh(subjects.lease(started.executor)) if started.executor else None
        if entry is None:
            return OwnerStatus.GONE
        return await self._ask(started.executor, entry, (started.run_id, started.key, started.attempt))

    async def others(self, attempt: AttemptKey) -> list[OwnerStatus]:
        """Return what is known of all other executors with a lease.

        Raises:
            UnavailableError: the server does not answer.
        """
        entries = [entry for entry in await self._bucket.list() if entry.key != self._key]
        return await asyncio.gather(*(self._ask(subjects.lease_holder(one.key), one, attempt) for one in entries))

    async def _ask(self, executor: str, entry: Entry, attempt: AttemptKey) -> OwnerStatus:
        try:
            answer = await self._bus.request(subjects.owner_question(executor), orjson.dumps(attempt), timeout=_ANSWER)
        except UnavailableError:
            return OwnerStatus.GONE if await self._has_ended(entry) else OwnerStatus.SILENT
        return OwnerStatus.ACTIVE if answer.data == b"1" else OwnerStatus.GONE

    async def _has_ended(self, entry: Entry) -> bool:
        """End the lease of a silent executor if its process is gone, or if it was not renewed in time."""
        holder = _read(entry)
        dead = holder.machine == self._holder.machine != "" and _began(holder.pid) != holder.began
        if dead:
            await asyncio.to_thread(orphans.kill_marked_below, holder.work)
        revision, since = self._seen.get(entry.key, (0, 0.0))
        if revision != entry.revision:
            self._seen[entry.key] = (entry.revision, now())
            since = now()
        if not dead and now() - since < _MARGIN * holder.duration:
            return False
        self._seen.pop(entry.key, None)
        return await self._bucket.delete(entry.key, entry.revision, keep=entry.value)


def _is_same(one: LeaseHolder, other: LeaseHolder) -> bool:
    """Whether two entries are of one lease; what it offers may have changed."""
    return one.model_copy(update={"offer": other.offer}) == other


def _read(entry: Entry) -> LeaseHolder:
    return LeaseHolder.model_validate_json(entry.value)


def _machine() -> str:
    """Return what identifies the process ids that this process sees: the boot, and the namespace."""
    try:
        return f"{_BOOT_ID.read_text().strip()}/{_PID_NAMESPACE.readlink()}"
    except OSError:
        return ""


def _began(pid: int) -> str:
    """Return when a process began, in ticks since the boot; empty if there is none, or only a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
