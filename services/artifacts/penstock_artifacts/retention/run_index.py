"""All runs as retention needs them, read from the log: request, end, archive, and the runs that they depend on."""

from __future__ import annotations

from dataclasses import replace

from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.follower import Followers, StreamMessage
from penstock_contracts import fact_codec, subjects
from penstock_core.facts import RunArchived, RunDeleted, RunFinished, RunRequested
from penstock_core.retention import RunRecord

_FILTERS = [f"runs.*.*.{tail}" for tail in ("requested", "finished", "archived", "deleted")]


class RunIndex:
    """The records of all runs; `refresh` reads new facts.

    Attributes:
        runs: by id; without deleted runs whose log is purged.
        archived: the facts `archived`, without their digests.
        deleted: deleted runs, and those being deleted, which are among `runs`, too.
        created: when the log was created, as the server reports it.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._followers = Followers(bus)
        self._at = 0
        self._forget()
        self.created = ""

    def _forget(self) -> None:
        self.runs: dict[str, RunRecord] = {}
        self.archived: dict[str, RunArchived] = {}
        self.deleted: dict[str, RunDeleted] = {}
        self._ends: dict[str, tuple[str, float]] = {}
        self._at = 0

    async def refresh(self) -> None:
        """Read the facts since the last call.

        Raises:
            UnavailableError: the log does not answer; what was read so far is kept.
        """
        info = await self._bus.api(f"STREAM.INFO.{subjects.RUNS}")
        if str(info["created"]) != self.created or int(info["state"]["last_seq"]) < self._at:
            self._forget()
            self.created = str(info["created"])
        async with self._followers.follow(subjects.RUNS, _FILTERS, self._at, "retention") as follower:
            async for items in follower.read_to_end():
                for item in items:
                    self._take(item)
                    self._at = item.seq

    def forget_run(self, run_id: str) -> None:
        """Drop a deleted run whose log is purged."""
        for known in (self.runs, self.archived, self._ends):
            known.pop(run_id, None)

    def _take(self, item: StreamMessage) -> None:
        match fact_codec.read(item.subject, item.data):
            case RunRequested() as fact:
                state, finished_at = self._ends.get(fact.run_id, ("", 0.0))
                self.runs[fact.run_id] = RunRecord(
                    run_id=fact.run_id,
                    project=fact.project,
                    pipeline=fact.pipeline,
                    requested_at=fact.requested_at or item.at,
                    state=state,
                    finished_at=finished_at,
                    reuses=fact.reuses,
                    caller=fact.caller.run_id if fact.caller is not None else "",
                    archived=fact.run_id in self.archived,
                )
            case RunFinished() as fact:
                self._ended(fact.run_id, fact.outcome.value, item.at)
            case RunArchived() as fact:
                self.archived[fact.run_id] = replace(fact, digests=None, folders=())
                if fact.run_id in self.runs:
                    self.runs[fact.run_id] = replace(self.runs[fact.run_id], archived=True)
                if fact.finished_at and fact.run_id in self._ends:
                    # A restore has written the end again, at another time.
                    self._ended(fact.run_id, self._ends[fact.run_id][0], fact.finished_at)
            case RunDeleted() as fact:
                self.deleted[fact.run_id] = fact
            case _:
                pass

    def _ended(self, run_id: str, state: str, at: float) -> None:
        self._ends[run_id] = (state, at)
        if run_id in self.runs:
            self.runs[run_id] = replace(self.runs[run_id], state=state, finished_at=at)
