"""Partitions of deployments, and their states: `Client.partitions`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from penstock.client import views
from penstock.client.http.transport import Transport


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition of a deployment. Times are Unix seconds.

    Attributes:
        state: `missing`, or that of its latest run: `running`, `succeeded` or `failed` (also cancelled or skipped).
        start, end: its interval; None if it is not one of time.
        run_id: its latest run, which finished at `finished_at`.
        runs: the number of its runs.
    """

    key: str
    state: str
    start: float | None = None
    end: float | None = None
    run_id: str | None = None
    runs: int = 0
    finished_at: float | None = None


@dataclass(frozen=True, slots=True)
class PartitionSummary:
    """The partitions of a deployment in numbers.

    Attributes:
        by: `hour`, `day`, `week`, `month`, `static` or `dynamic`.
        tz: the time zone; empty if they are not of time.
        counts: by state.
        lag: facts of runs that the states lack, because the read model is behind.
    """

    by: str
    tz: str
    total: int
    counts: dict[str, int]
    lag: int = 0


class Partitions:
    """`Client.partitions`: list the partitions of deployments, and add dynamic ones."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def summary(self, deployment: str) -> PartitionSummary:
        """Return how many partitions a deployment has, by state.

        Raises:
            NotFoundError: there is no deployment of this name.
            RefusedError: it has no partitions.
        """
        return views.build(PartitionSummary, self._page(deployment, 0, 1))

    def list(self, deployment: str) -> list[Partition]:
        """Return the partitions of a deployment, oldest first; of time, those that have ended. Raises as `summary`."""
        return [*self._all(deployment)]

    def get(self, deployment: str, key: str) -> Partition:
        """Return a partition. Raises as `summary`, and `NotFoundError` if it does not exist."""
        return views.build(Partition, self._transport.json("GET", f"{_path(deployment)}/{quote(key, safe='')}"))

    def add(self, deployment: str, keys: Sequence[str]) -> Sequence[str]:
        """Add dynamic partitions to a deployment; return the keys that are new. Raises as `summary`."""
        added: list[str] = self._transport.json("POST", _path(deployment), body={"keys": [*keys]})["added"]
        return added

    def _all(self, deployment: str) -> Iterator[Partition]:
        first: int | None = 0
        while first is not None:
            page = self._page(deployment, first, 1000)
            yield from (views.build(Partition, row) for row in page["partitions"])
            first = page["next"]

    def _page(self, deployment: str, first: int, limit: int) -> dict[str, Any]:
        return self._transport.json("GET", _path(deployment), query={"first": first, "limit": limit})


def _path(deployment: str) -> str:
    return f"/v1/deployments/{quote(deployment, safe='')}/partitions"
