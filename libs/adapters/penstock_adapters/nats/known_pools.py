"""Which pools of executors there are: those with a consumer of attempts in the log."""

from __future__ import annotations

from collections.abc import Collection

from penstock_adapters.nats.bus import Bus
from penstock_contracts import subjects

_PREFIX = subjects.attempts_consumer("")
_PAGE = 1024
"""Names in a reply of the server."""


class KnownPools:
    """Reads the pools when one is requested that is not known yet; a pool that was there once counts as known."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._pools: frozenset[str] = frozenset()
        self._serves_all = False

    async def known(self, wanted: Collection[str]) -> Collection[str]:
        """Return the pools that there are; `wanted` itself if executors serve all pools.

        Raises:
            UnavailableError: the server does not answer.
        """
        if not (self._serves_all or self._pools.issuperset(wanted)):
            names = await self._consumers()
            self._serves_all = subjects.attempts_consumer("*") in names
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
