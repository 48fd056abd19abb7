"""Registered models as the API reads and changes them. The core decides which facts a change appends."""

from __future__ import annotations

import time

from penstock_adapters.nats.model_log import ModelLog
from penstock_contracts.models import (
    ArchiveBody,
    GateBody,
    ModelHistory,
    ModelList,
    ModelVersionView,
    ModelView,
    PromoteBody,
    PromotionResult,
)
from penstock_core.registry import decide, references
from penstock_core.registry.decide import Actor, Decision, Promotion
from penstock_core.registry.facts import LATEST, ModelPromoted, ModelRegistered
from penstock_core.registry.references import Reference
from penstock_core.registry.state import Model, no_model
from penstock_gateway.registry import model_views as views


class Registry:
    """The registered models of one project."""

    def __init__(self, log: ModelLog, project: str) -> None:
        self.log = log
        self.project = project

    async def list(self) -> ModelList:
        """Return all models."""
        return ModelList(models=[views.summary(model) for model in await self.log.all(self.project)])

    async def get(self, name: str) -> ModelView:
        """Return a model with its versions and aliases. A model without versions exists if it has a gate.

        Raises:
            NotFoundError: it does not exist.
        """
        model = await self._known(name)
        return views.model_view(model)

    async def find(self, reference: Reference) -> ModelRegistered:
        """Return the version that a reference resolves to now.

        Raises:
            NotFoundError: it does not exist.
        """
        return (await self.log.get(self.project, reference.model)).find(reference)

    async def version(self, name: str, which: str) -> ModelVersionView:
        """Return a version by its number, or the `latest` published one.

        Raises:
            NotFoundError: it does not exist.
            InvalidIdError: it is neither a number nor `latest`.
        """
        reference = Reference(name) if which == LATEST else references.parse(f"{name}:{which}")
        model = await self.log.get(self.project, name)
        return views.version(model, model.find(reference))

    async def at_alias(self, name: str, alias: str) -> ModelVersionView:
        """Return the version that an alias points at.

        Raises:
            NotFoundError: it does not exist.
        """
        model = await self.log.get(self.project, name)
        return views.version(model, model.find(Reference(name, alias=alias)))

    async def history(self, name: str) -> ModelHistory:
        """Return the history of a model.

        Raises:
            NotFoundError: it does not exist.
        """
        model = await self._known(name)
        return ModelHistory(name=name, history=[views.entry(fact) for fact in model.history])

    async def promote(self, name: str, alias: str, body: PromoteBody, by: str) -> PromotionResult:
        """Point an alias at a version.

        Raises:
            RegistryError: it cannot, or the version does not pass the gate.
            GateError: the gate is invalid.
        """
        promotion = Promotion(
            alias=alias,
            version=body.version,
            reason=body.reason,
            gate=body.gate,
            force=body.force,
            replaces=body.replaces,
        )
        who = _who(by)
        decision, model = await self.log.change(self.project, name, lambda model: decide.promote(model, promotion, who))
        move = next((fact for fact in decision.facts if isinstance(fact, ModelPromoted)), None)
        return PromotionResult(
            alias=views.alias(model, alias),
            previous=move.previous if move else None,
            moved=move is not None,
            clauses=list(move.clauses) if move else [],
        )

    async def delete_alias(self, name: str, alias: str, reason: str, by: str) -> None:
        """Delete an alias.

        Raises:
            NotFoundError: it does not exist.
        """
        who = _who(by)
        await self.log.change(self.project, name, lambda model: decide.remove_alias(model, alias, reason, who))

    async def set_gate(self, name: str, alias: str, body: GateBody, by: str) -> ModelView:
        """Set the gate that every move of an alias has to pass; an empty one deletes it.

        Raises:
            GateError: it is invalid.
        """
        who, gate = _who(by), body.gate.strip()

        def decided(model: Model) -> Decision:
            return decide.set_gate(model, alias, gate, body.reason, who)

        _, model = await self.log.change(self.project, name, decided)
        return views.model_view(model)

    async def archive(self, name: str, version: int, body: ArchiveBody, by: str) -> ModelVersionView:
        """Archive or unarchive a version.

        Raises:
            RegistryError: it does not exist, or an alias points at it.
        """
        who = _who(by)

        def decided(model: Model) -> Decision:
            return decide.archive(model, version, body.reason, who, archived=body.archived)

        _, model = await self.log.change(self.project, name, decided)
        return views.version(model, model.versions[version])

    async def _known(self, name: str) -> Model:
        model = await self.log.get(self.project, name)
        if not model.history:
            raise no_model(name)
        return model


def _who(by: str) -> Actor:
    return Actor(by, time.time())
