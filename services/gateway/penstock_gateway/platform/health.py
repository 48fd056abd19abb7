"""Whether the platform works: readiness of this gateway, and the schedulers that answer."""

from __future__ import annotations

import time

import pydantic

from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.known_pools import KnownPools
from penstock_contracts import subjects
from penstock_contracts.api import ByteLimits, ExecutorView, PlatformView, Readiness, SchedulerView
from penstock_contracts.commands import Problems, Replicas
from penstock_core.errors import UnavailableError
from penstock_core.pipeline.values import INLINE_LIMIT
from penstock_core.version import VERSION
from penstock_gateway.artifacts.artifact_transfer import Artifacts
from penstock_gateway.http.bodies import JSON_LIMIT
from penstock_gateway.integrity.auditor import Auditor

_REPORTS_COUNT = 15.0
"""Seconds for which a report of problems counts; it is repeated while there are any."""


class Health:
    """Checks the parts of the platform.

    Args:
        bus: the message bus.
        artifacts: the artifact store.
        auditor: knows whether streams are damaged.
        pools: the executors that are connected.
        max_blob: largest artifact in bytes.
    """

    def __init__(self, bus: Bus, artifacts: Artifacts, auditor: Auditor, pools: KnownPools, max_blob: int) -> None:
        self._pools = pools
        self._reports: dict[str, tuple[float, Problems]] = {}
        self._bus = bus
        self._artifacts = artifacts
        self._auditor = auditor
        self._max_blob = max_blob
        self._started_at = time.time()

    async def readiness(self) -> Readiness:
        """Return whether each part that the gateway needs answers, and whether no stream has lost messages."""
        connected = self._bus.client.is_connected
        now = time.monotonic()
        reports = [report for at, report in self._reports.values() if now - at < _REPORTS_COUNT]
        parts = {
            "nats": connected,
            "log": connected and await self._log_answers(),
            "integrity": not self._auditor.is_repairing() and not self._auditor.damages(),
            "streams": not reports,
        }
        problems = sorted({problem for report in reports for problem in report.problems})
        return Readiness(ready=all(parts.values()), parts=parts, problems=problems)

    async def report(self, report: Problems) -> None:
        """Note what a process has noticed about the streams."""
        self._reports[report.service] = (time.monotonic(), report)

    async def platform(self, project: str) -> PlatformView:
        """Return the description of the platform, as a request in a project gets it.

        Raises:
            UnavailableError: the artifacts service does not answer.
        """
        readiness = await self.readiness()
        return PlatformView(
            version=VERSION,
            project=project,
            ready=readiness.ready,
            parts=readiness.parts,
            problems=readiness.problems,
            store=await self._artifacts.store(),
            started_at=self._started_at,
            executors=[
                ExecutorView(
                    name=one.executor,
                    pool=one.pool,
                    slots=one.slots,
                    cpu=one.cpu,
                    memory=one.memory,
                    gpu=one.gpu,
                    problems=list(one.problems),
                )
                for one in await self._pools.executors()
            ],
            schedulers=await self._schedulers(),
            limits=ByteLimits(inline=INLINE_LIMIT, json=JSON_LIMIT, blob=self._max_blob),
        )

    async def _log_answers(self) -> bool:
        try:
            await self._bus.api(f"STREAM.INFO.{subjects.RUNS}", timeout=1.0)
        except Exception:
            return False
        return True

    async def _schedulers(self) -> list[SchedulerView]:
        """Return the running schedulers with their shards; empty when none answers."""
        try:
            answer = await self._bus.request(subjects.SCHEDULER_REPLICAS, b"{}", timeout=1.0)
            replicas = Replicas.model_validate_json(answer.data).replicas
        except (UnavailableError, pydantic.ValidationError):
            return []
        return [SchedulerView(name=replica.name, shards=replica.shards) for replica in replicas]
