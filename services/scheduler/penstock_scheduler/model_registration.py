"""Registers the model versions that successful attempts request: `effects.RegisterModels`.

In: the state of a run, and the end of an attempt in its log. Out: facts in the logs of models. Idempotent: a version is
identified by its attempt and artifact, and an alias requested by an attempt is decided once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from penstock_contracts import fact_codec, subjects
from penstock_core import access
from penstock_core.errors import PenstockError, UnavailableError
from penstock_core.facts import AttemptFinished, Registration, RunRequested
from penstock_core.ports import Recorded
from penstock_core.registry import decide
from penstock_core.registry.decide import Actor, Decision, Origin, Promotion, VersionDetails
from penstock_core.registry.state import Model
from penstock_core.run.effects import RegisterModels
from penstock_core.run.machine import RunState

Park = Callable[[str, bytes, str], Awaitable[None]]


class Models(Protocol):
    """The logs of models."""

    async def get(self, project: str, name: str) -> Model:
        """Return the state of a model."""
        ...

    async def change(self, project: str, name: str, decide: Callable[[Model], Decision]) -> tuple[Decision, Model]:
        """Decide about a model and append the facts that follow."""
        ...


class Facts(Protocol):
    """The log of runs."""

    async def last(self, places: Sequence[str]) -> dict[str, Recorded]:
        """Return the last facts of these subjects, by subject."""
        ...


class PipelineVersions(Protocol):
    """The versions of pipelines."""

    async def is_experiment(self, project: str, pipeline: str, version: int) -> bool:
        """Whether a version is not published now."""
        ...


class Registrar:
    """Registers models. What cannot be registered is sent to the dead-letter stream with `park`, and blocks nothing."""

    def __init__(self, facts: Facts, models: Models, versions: PipelineVersions, park: Park) -> None:
        self._facts = facts
        self._models = models
        self._versions = versions
        self._park = park

    async def register(self, state: RunState, wanted: Sequence[RegisterModels]) -> None:
        """Register what the ends of attempts request. Repeating it writes nothing.

        Raises:
            UnavailableError: a log does not answer; a retry is safe.
        """
        places = [subjects.finished(state.run_id, effect.key, effect.attempt) for effect in wanted]
        recorded = await self._facts.last(places)
        known: dict[str, Model] = {}
        for place in places:
            if place not in recorded:
                raise UnavailableError(f"the end of an attempt at {place} cannot be read yet")
            end = recorded[place].fact
            if not isinstance(end, AttemptFinished):
                continue
            for model in end.models:
                try:
                    await self._one(state, end, model, known)
                except UnavailableError:
                    raise
                except PenstockError as error:
                    why = f"model {model.model!r} is not registered: {error}"
                    await self._park(place, fact_codec.encode(end), why)

    async def _one(self, state: RunState, end: AttemptFinished, wanted: Registration, known: dict[str, Model]) -> None:
        """Register one version. `known` are models as they were a moment ago, to skip what is registered already."""
        run, step = state.requested, state.find(end.key)
        if run is None or step is None:
            return
        if wanted.model not in known:
            known[wanted.model] = await self._models.get(run.project, wanted.model)
        experiment = await self._versions.is_experiment(run.project, run.pipeline, run.version)
        decided = _decision(run, end, wanted, state.plan.specs[step.node].code, experiment)
        if decided(known[wanted.model]).facts:
            _, known[wanted.model] = await self._models.change(run.project, wanted.model, decided)


def _decision(
    run: RunRequested, end: AttemptFinished, wanted: Registration, code: str, experiment: bool
) -> Callable[[Model], Decision]:
    """What is decided on a model for an end that asks for a version of it."""
    origin = Origin(
        artifact=wanted.artifact,
        run_id=end.run_id,
        key=end.key,
        attempt=end.attempt,
        output=wanted.output,
        pipeline=run.pipeline,
        pipeline_version=run.version,
        code=code,
        experiment=experiment,
    )
    about = VersionDetails(
        metrics=end.metrics if wanted.metrics is None else wanted.metrics,
        non_finite=wanted.non_finite,
        params=end.params,
        tags=wanted.tags,
        description=wanted.description,
    )
    who = Actor(access.run_step(run.run_id, end.key), end.finished_at)
    promotion = None
    if wanted.alias:
        cause = origin.attempt_id
        promotion = Promotion(alias=wanted.alias, version=0, reason=wanted.reason, gate=wanted.gate, cause=cause)
    return lambda model: decide.register(model, origin, about, who, promotion)
