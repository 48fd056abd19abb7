"""The logs of registered models on the stream `MODELS`, append-once, and their folds.

A decision on a model folds its log, decides, and appends the next revisions. The broker refuses a revision that was
written meanwhile; then the log is folded again, and the decision is made again. So all decisions on a model are
serialized, also concurrent ones. Several facts of one decision are one atomic batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from nats.aio.msg import Msg

from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.revisions import Message, append_all
from penstock_contracts import model_fact_codec, subjects
from penstock_contracts.fact_codec import UnreadableFact
from penstock_core import ids
from penstock_core.errors import InvalidIdError, PenstockError, UnavailableError
from penstock_core.registry import references, state
from penstock_core.registry.decide import Decision
from penstock_core.registry.errors import NotFoundError
from penstock_core.registry.facts import ModelFact, ModelRegistered
from penstock_core.registry.state import Model

TRIES = 100
"""Times that a decision is repeated because another one was faster, before giving up."""


class ModelLog:
    """The models of all projects. `source` names the writer in the CloudEvents envelope.

    Folded models are cached, and only new facts are read.
    """

    def __init__(self, bus: Bus, source: str) -> None:
        self._bus = bus
        self._source = source
        self._projects: dict[str, _Project] = {}
        bus.on_reconnect(self._forget)

    def _forget(self) -> None:
        """Read all again: the server may have lost what it had."""
        self._projects = {}

    async def get(self, project: str, name: str) -> Model:
        """Return a model; one without versions where it does not exist.

        Raises:
            UnavailableError: the log does not answer.
            InvalidIdError: no model can have this name.
        """
        ids.check_name(name, "model")
        return (await self._read(project)).get(name) or Model(project, name)

    async def resolve(self, project: str, names: Mapping[str, str]) -> dict[str, ModelRegistered | PenstockError]:
        """Resolve references to registered models, by parameter: to a version, or to the error of the lookup.

        See `penstock_core.requests`, which lists the references and takes the result.

        Raises:
            UnavailableError: the log does not answer.
        """
        found: dict[str, ModelRegistered | PenstockError] = {}
        for parameter, text in names.items():
            try:
                reference = references.parse(text)
                found[parameter] = (await self.get(project, reference.model)).find(reference)
            except (InvalidIdError, NotFoundError) as error:
                found[parameter] = error
        return found

    async def all(self, project: str) -> list[Model]:
        """All models of a project that have a version, by name."""
        found = await self._read(project)
        return [found[name] for name in sorted(found) if found[name].exists]

    async def held(self, project: str) -> set[str]:
        """The digests of all artifacts that registered versions are made of, archived ones too.

        None of them may be deleted. That of a folder is its manifest; the objects that it refers to must be kept, too.
        """
        return state.held(await self.all(project))

    async def change(self, project: str, name: str, decide: Callable[[Model], Decision]) -> tuple[Decision, Model]:
        """Decide on a model and append the facts; returns the decision that counts, and the model after it.

        Raises:
            RegistryError: what `decide` raises.
            UnavailableError: the log does not answer, or others keep changing the model; trying again is safe.
        """
        for tried in range(TRIES):
            model = await self.get(project, name)
            decision = decide(model)
            if not decision.facts:
                return decision, model
            if await self.append(decision.facts):
                return decision, self._folded(decision.facts)
            # A lagging replica may answer the next read, too: wait a little.
            await asyncio.sleep(0.002 * tried)
        raise UnavailableError(f"model {name!r} changed too often during this request: try again")

    async def append(self, facts: Sequence[ModelFact]) -> bool:
        """Append the facts of one decision, all or none; False when a revision was taken.

        Raises:
            UnavailableError: the server did not confirm; deciding again shows whether they were written.
            BusError: a final refusal, for example because a fact is too large.
        """
        return await append_all(
            self._bus,
            [
                Message(
                    model_fact_codec.subject(fact),
                    model_fact_codec.encode(fact),
                    model_fact_codec.headers(fact, self._source),
                )
                for fact in facts
            ],
        )

    def _folded(self, facts: Sequence[ModelFact]) -> Model:
        """Apply appended facts to the model: a read may not return them at once."""
        model = self._projects.setdefault(facts[0].project, _Project(facts[0].project)).model(facts[0].model)
        for fact in facts:
            if fact.revision == model.revision + 1:
                state.evolve(model, fact.revision, fact)
        return model

    async def _read(self, project: str) -> dict[str, Model]:
        """All models of a project, with new facts applied."""
        ids.check_name(project, "project")
        known = self._projects.setdefault(project, _Project(project))
        async with known.reading:
            for message in await self._bus.read(subjects.MODELS, subjects.models(project), known.seq):
                known.take(message)
        return known.models


class _Project:
    """The models of a project as far as they were read."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.models: dict[str, Model] = {}
        self.seq = 0
        self.reading = asyncio.Lock()

    def model(self, name: str) -> Model:
        return self.models.setdefault(name, Model(self.name, name))

    def take(self, message: Msg) -> None:
        headers = message.headers or {}
        self.seq = int(headers["Nats-Sequence"])
        at = headers["Nats-Subject"]
        revision = subjects.parse_model_subject(at)
        if revision is None:
            return
        fact = model_fact_codec.read(at, headers.get("ce-type", ""), message.data)
        state.evolve(self.model(revision[1]), revision[2], None if isinstance(fact, UnreadableFact) else fact)
