"""Decisions on events, and windows of triggers, in the stream `DECISIONS`."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence

from nats.aio.msg import Msg

from penstock_adapters import metrics
from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.revisions import Message, append_all
from penstock_contracts import deployment_codec, subjects
from penstock_core.deployments import windows
from penstock_core.deployments.decisions import EventDecided
from penstock_core.deployments.windows import WINDOW_FACTS, WindowFact, WindowState
from penstock_core.errors import UnavailableError

TRIES = 100
"""Times that an event is collected again because another one was faster, before giving up."""

_KEPT = 10_000
"""States of windows that are kept in memory."""


class DecisionLog:
    """Appends decisions once, and keeps the windows. `source` names the writer in the CloudEvents envelope."""

    def __init__(self, bus: Bus, source: str) -> None:
        self._bus = bus
        self._source = source
        self._states: OrderedDict[tuple[str, str, str, str], tuple[WindowState, int]] = OrderedDict()

    async def decide(self, decision: EventDecided) -> EventDecided:
        """Append a decision, and return the one that counts: this one, or an earlier one on the same event.

        Raises:
            UnavailableError: the log does not answer; deciding again is safe.
        """
        if await append_all(self._bus, [self._message(decision)]):
            metrics.DECISIONS.labels(decision.outcome.value).inc()
            return decision
        found = await self.decided(decision.project, decision.event.digest, decision.deployment, decision.trigger)
        return found[0] if found else decision

    async def decided(self, project: str, digest: str, deployment: str = "*", trigger: str = "*") -> list[EventDecided]:
        """Return the decisions on an event, of all deployments or of one trigger."""
        at = f"decisions.{project}.{deployment}.{digest}.{trigger}"
        return [fact for message in await self._bus.read(subjects.DECISIONS, at) if (fact := _decision(message))]

    async def of_deployment(self, project: str, deployment: str, after: int = 0) -> list[tuple[int, EventDecided]]:
        """Return the stored decisions of a deployment, oldest first, with their sequences."""
        at = subjects.decisions(project, deployment)
        messages = await self._bus.read(subjects.DECISIONS, at, after)
        return [(_sequence(message), fact) for message in messages if (fact := _decision(message))]

    async def windows(self, project: str, deployment: str, trigger: str, key: str) -> WindowState:
        """Return the windows of a trigger and key, as new as the last acknowledged fact."""
        name = (project, deployment, trigger, key)
        state, seq = self._states.get(name) or (WindowState(*name), 0)
        at = subjects.windows(project, deployment, trigger, windows.key_digest(key))
        for message in await self._bus.read(subjects.DECISIONS, at, seq):
            fact = _read(message)
            seq = _sequence(message)
            if isinstance(fact, WINDOW_FACTS):
                windows.evolve(state, fact)
        self._states[name] = state, seq
        self._states.move_to_end(name)
        while len(self._states) > _KEPT:
            self._states.popitem(last=False)
        return state

    async def collect(
        self,
        project: str,
        deployment: str,
        trigger: str,
        key: str,
        decide: Callable[[WindowState], Sequence[WindowFact]],
    ) -> tuple[Sequence[WindowFact], WindowState]:
        """Decide on the windows of a key and append the facts, all or none.

        Returns:
            The facts that were appended, and the windows after them.

        Raises:
            UnavailableError: the log does not answer; deciding again is safe.
        """
        for tried in range(TRIES):
            state = await self.windows(project, deployment, trigger, key)
            facts = decide(state)
            if not facts or await append_all(self._bus, [self._message(fact) for fact in facts]):
                return facts, windows.fold(state, facts)
            await asyncio.sleep(0.002 * tried)
        raise UnavailableError(f"the windows of trigger {trigger!r} changed too often during this request: try again")

    def _message(self, fact: EventDecided | WindowFact) -> Message:
        return Message(
            deployment_codec.subject(fact), deployment_codec.encode(fact), deployment_codec.headers(fact, self._source)
        )


def _read(message: Msg) -> object:
    headers = message.headers or {}
    return deployment_codec.read(headers["Nats-Subject"], headers.get("ce-type", ""), message.data)


def _decision(message: Msg) -> EventDecided | None:
    fact = _read(message)
    return fact if isinstance(fact, EventDecided) else None


def _sequence(message: Msg) -> int:
    return int((message.headers or {})["Nats-Sequence"])
