"""The logs of deployments on the stream `DEPLOYMENTS`, append-once, and their folds.

A change folds the log, decides, and appends the next revision. The broker refuses a revision that was written
meanwhile; then the log is folded again, and the change is decided again. So all changes of a deployment are ordered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from nats.aio.msg import Msg

from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.revisions import Message, append_all
from penstock_adapters.shared_reads import SharedReads
from penstock_contracts import deployment_codec, subjects
from penstock_core import ids
from penstock_core.deployments import state
from penstock_core.deployments.facts import DEPLOYMENT_FACTS, DeploymentFact
from penstock_core.deployments.state import Deployment
from penstock_core.errors import UnavailableError

TRIES = 100
"""Times that a change is decided again because another one was faster, before giving up."""

Name = tuple[str, str]
"""Project and name of a deployment."""


class DeploymentLog:
    """The deployments of all projects. `source` names the writer in the CloudEvents envelope.

    Folded deployments are cached, and only new facts are read. Concurrent reads share one request.
    """

    def __init__(self, bus: Bus, source: str, changed: Callable[[Deployment], None] = lambda deployment: None) -> None:
        self._bus = bus
        self._source = source
        self._changed = changed
        self._deployments: dict[Name, Deployment] = {}
        self._seq = 0
        self._created = ""
        self._reads = SharedReads(self._fetch)

    async def all(self) -> dict[Name, Deployment]:
        """All deployments, as new as the last acknowledged change. Deleted ones are among them.

        Raises:
            UnavailableError: the log does not answer.
        """
        await self._reads.get(subjects.DEPLOYMENTS)
        return self._deployments

    async def get(self, project: str, name: str) -> Deployment:
        """Return a deployment; one without revisions where it does not exist.

        Raises:
            UnavailableError: the log does not answer.
            InvalidIdError: no deployment can have this name.
        """
        ids.check_name(name, "deployment")
        return (await self.all()).get((project, name)) or Deployment(project, name)

    def known(self, project: str, name: str) -> Deployment:
        """Return a deployment as of the last read; one without revisions if it was not known then."""
        return self._deployments.get((project, name)) or Deployment(project, name)

    async def change(
        self, project: str, name: str, decide: Callable[[Deployment], Sequence[DeploymentFact]]
    ) -> tuple[bool, Deployment]:
        """Decide on a deployment and append the facts.

        Returns:
            Whether anything changed, and the deployment after it.

        Raises:
            DeploymentError, InvalidInputsError: what `decide` raises.
            UnavailableError: the log does not answer, or others keep changing the deployment; trying again is safe.
        """
        for tried in range(TRIES):
            deployment = await self.get(project, name)
            facts = decide(deployment)
            if not facts:
                return False, deployment
            if await append_all(self._bus, [self._message(fact) for fact in facts]):
                return True, await self.get(project, name)
            await asyncio.sleep(0.002 * tried)
        raise UnavailableError(f"deployment {name!r} changed too often during this request: try again")

    def _message(self, fact: DeploymentFact) -> Message:
        return Message(
            deployment_codec.subject(fact), deployment_codec.encode(fact), deployment_codec.headers(fact, self._source)
        )

    async def _fetch(self, stream: str) -> None:
        # The leader's last sequence: a direct read may be answered by a replica that lags.
        info = await self._bus.api(f"STREAM.INFO.{stream}")
        last = int(info["state"]["last_seq"])
        if self._created != info["created"]:
            self._forget()
            self._created = info["created"]
        for tried in range(TRIES):
            if self._seq >= last:
                return
            for message in await self._bus.read(stream, "deployments.>", self._seq):
                self._take(message)
            if self._seq < last and await self._bus.next_seq(stream, "deployments.>", self._seq) is None:
                self._seq = last  # the last messages are lost
            await asyncio.sleep(0.001 * tried)
        raise UnavailableError("the stream of deployments lags behind its leader: try again")

    def _forget(self) -> None:
        """Start again: the stream was created again."""
        known, self._deployments, self._seq = self._deployments, {}, 0
        for name in known:
            self._changed(Deployment(*name))

    def _take(self, message: Msg) -> None:
        headers = message.headers or {}
        self._seq = int(headers["Nats-Sequence"])
        at = headers["Nats-Subject"]
        parsed = subjects.parse_deployment_subject(at)
        if parsed is None:
            return
        project, name, revision = parsed
        fact = deployment_codec.read(at, headers.get("ce-type", ""), message.data)
        known = self._deployments.setdefault((project, name), Deployment(project, name))
        state.evolve(known, revision, fact if isinstance(fact, DEPLOYMENT_FACTS) else None)
        self._changed(known)
