"""A pod as a worker: it runs its attempt, then stays for a while and takes further attempts of its class.

Starting a pod costs seconds, a step often milliseconds. Each attempt is a forked process; the fork server stays warm
for attempts of the same source. SIGTERM ends the step that runs, and the worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import shutil
import signal
import time
from collections.abc import Callable
from typing import Any

from penstock.runner.pod.fork_servers import ForkServers
from penstock.runner.pod.link import Link, note
from penstock.runner.pod.runner import PodIdentity, PodRunner
from penstock_core import pod_protocol
from penstock_core.shipping.messages import AttemptKey

ANNOUNCE = 1.0
"""Seconds between two announcements."""

ROOM = 2 * 2**30
"""Bytes of artifacts that are kept for the attempts that follow."""

Json = dict[str, Any]


class Worker:
    """The worker of this pod.

    Args:
        pod: who this pod is, and its first attempt.
        link: the connection of the worker.
        link_of: makes a connection with the credential of an attempt.
    """

    def __init__(self, pod: PodIdentity, link: Link, link_of: Callable[[str], Link]) -> None:
        self._pod = pod
        self._link = link
        self._link_of = link_of
        self._servers = ForkServers(pod.work / "step")
        self._began = time.monotonic()
        self._terms: Json | None = None
        self._idle = False
        self._offered: asyncio.Queue[AttemptKey] = asyncio.Queue()
        self._runner: PodRunner | None = None
        self._terminated = asyncio.Event()
        self._announcing: asyncio.Task[None] | None = None

    async def run(self) -> int:
        """Run the attempt of this pod, and others while there are some; returns the exit status."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._terminate)
        await self._link.connect()
        await self._link.serve(pod_protocol.offers(self._pod.name, self._pod.uid), self._offer)
        try:
            status = await self._attempt(self._pod.attempt)
            while status != 3 and self._terms is not None and (attempt := await self._next(self._terms)) is not None:
                await self._attempt(attempt)
                status = 0
            return status
        finally:
            self._servers.close()
            if self._announcing is not None:
                self._announcing.cancel()

    async def _attempt(self, attempt: AttemptKey) -> int:
        pod = dataclasses.replace(self._pod, attempt=attempt)
        self._runner = PodRunner(pod, self._link, self._link_of, self._servers, self._claimed)
        if self._terminated.is_set():
            self._runner.terminate()
        return await self._runner.run()

    def _claimed(self, order: Json) -> None:
        """Announce this worker from now on: it is known to be alive while it runs the attempt."""
        self._terms = order["worker"]
        if self._terms is not None and self._announcing is None:
            self._announcing = asyncio.create_task(self._announce())

    async def _announce(self) -> None:
        while True:
            await self._announce_once()
            await asyncio.sleep(ANNOUNCE)

    async def _announce_once(self) -> None:
        if self._terms is not None:
            about = {"uid": self._pod.uid, "class": self._terms["class"], "idle": self._idle}
            await self._link.announce(pod_protocol.announcement(self._pod.pool, self._pod.name), about)

    async def _next(self, terms: Json) -> AttemptKey | None:
        """Wait for another attempt; None when it is time to end."""
        if self._terminated.is_set() or time.monotonic() - self._began > terms["life"]:
            return None
        self._idle = True
        await self._announce_once()
        await asyncio.to_thread(self._make_room)
        taking = asyncio.create_task(self._offered.get())
        ending = asyncio.create_task(self._terminated.wait())
        done, _ = await asyncio.wait((taking, ending), timeout=terms["idle"], return_when=asyncio.FIRST_COMPLETED)
        self._idle = False
        ending.cancel()
        if taking in done:
            return taking.result()
        taking.cancel()
        with contextlib.suppress(asyncio.CancelledError, asyncio.QueueEmpty):
            await taking
        return self._offered.get_nowait() if not self._offered.empty() else None

    def _offer(self, body: Json) -> Json:
        """Take an attempt that an executor offers, if there is none."""
        taken = self._idle
        if taken:
            self._idle = False
            self._offered.put_nowait((str(body["run_id"]), str(body["key"]), int(body["attempt"])))
        return {"taken": taken}

    def _terminate(self) -> None:
        note("SIGTERM: the pod ends")
        self._terminated.set()
        if self._runner is not None:
            self._runner.terminate()

    def _make_room(self) -> None:
        """Remove artifacts of earlier attempts when there are many."""
        folder = self._pod.work / "artifacts"
        if sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) > ROOM:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(exist_ok=True)
