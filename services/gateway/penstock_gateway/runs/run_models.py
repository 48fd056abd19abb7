"""The model versions that a run registered, and what became of the aliases that its steps requested for them."""

from __future__ import annotations

from collections.abc import Iterator

from penstock_adapters.nats.model_log import ModelLog
from penstock_contracts.api import RegisteredByRun
from penstock_core.registry.facts import ModelPromoted, PromotionRefused
from penstock_core.registry.references import Reference
from penstock_core.registry.state import Model
from penstock_gateway.runs.run_states import FoldedRun


class RunModels:
    """Reads the registrations of runs from the logs of models."""

    def __init__(self, models: ModelLog) -> None:
        self._models = models

    async def refresh(self, run: FoldedRun) -> None:
        """Add to a run the versions that its steps registered, in the order of the models' names.

        Raises:
            UnavailableError: a log does not answer.
        """
        names = sorted(run.details.models)
        if not names:
            return
        project, run_id = run.requested.project, run.requested.run_id
        found = [one for name in names for one in _registered(await self._models.get(project, name), run_id)]
        if found != run.models:
            run.models, run.view = found, b""


def _registered(model: Model, run_id: str) -> Iterator[RegisteredByRun]:
    decided = {
        (fact.cause, fact.version): fact
        for fact in model.history
        if isinstance(fact, ModelPromoted | PromotionRefused) and fact.cause
    }
    for version in model.versions.values():
        if version.run_id != run_id:
            continue
        decision = decided.get((f"{version.run_id}/{version.key}/{version.attempt}", version.version))
        yield RegisteredByRun(
            model=model.name,
            version=version.version,
            reference=str(Reference(model.name, version=version.version)),
            step=version.key,
            alias=decision.alias if decision is not None else None,
            promoted=isinstance(decision, ModelPromoted) if decision is not None else None,
            gate=decision.gate if decision is not None else "",
            clauses=list(decision.clauses) if decision is not None else [],
        )
