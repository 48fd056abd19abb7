"""Registers an output of a step of any run as a version of a model: what was not asked for by the step itself."""

from __future__ import annotations

import time

from penstock_contracts.models import Refusal, RegisteredModel, RegisterModelBody
from penstock_core import ids
from penstock_core.pipeline.values import ArtifactRef, Stored, Value
from penstock_core.registry import decide
from penstock_core.registry.decide import Actor, Decision, Origin, Promotion, VersionDetails
from penstock_core.registry.errors import ConflictError, NotFoundError
from penstock_core.registry.facts import ModelRegistered, check_alias
from penstock_core.registry.state import Model
from penstock_core.run.machine import SUCCESSFUL_STATUSES, StepState
from penstock_gateway.artifacts.artifact_transfer import missing
from penstock_gateway.http.problems import ProblemError
from penstock_gateway.registry import model_views as views
from penstock_gateway.runs.run_states import FoldedRun
from penstock_gateway.service import GatewayService

_NAMES_SHOWN = 20


async def register(service: GatewayService, name: str, body: RegisterModelBody) -> RegisteredModel:
    """Make a version of a model; the same output of the same attempt is the same version.

    Raises:
        ProblemError: 404 no such run, step, output or artifact; 409 the step has no result; 422 it is no artifact.
        RegistryError: the alias cannot be had.
    """
    ids.check_name(name, "model")
    if body.alias is not None:
        check_alias(body.alias)
    elif body.gate or body.force:
        raise ProblemError(422, "A gate guards an alias", "say which: alias", errors=[("alias", "is missing")])
    folded = await service.folded(body.run_id)
    step = _step(folded, body.step)
    artifact = _artifact(await service.whole(folded, _value(step, body.output)), body.output)
    if await service.artifacts.size(artifact.sha256) is None:
        raise missing(artifact.sha256)
    run = folded.requested
    origin = Origin(
        artifact=artifact,
        run_id=step.from_run or run.run_id,
        key=step.key,
        attempt=max(step.attempt, 1),
        output=body.output,
        pipeline=run.pipeline,
        pipeline_version=run.version,
        code=folded.state.plan.specs[step.node].code,
    )
    about = VersionDetails(
        metrics=dict(step.metrics if body.metrics is None else body.metrics),
        params=dict(step.params),
        tags=body.tags,
        description=body.description,
    )
    wish = None
    if body.alias is not None:
        wish = Promotion(alias=body.alias, version=0, reason=body.reason, gate=body.gate, force=body.force)
    return await _change(service, name, origin, about, wish, Actor(body.by, time.time()))


async def _change(
    service: GatewayService, name: str, origin: Origin, about: VersionDetails, wish: Promotion | None, who: Actor
) -> RegisteredModel:
    def decided(model: Model) -> Decision:
        return decide.register(model, origin, about, who, wish)

    decision, model = await service.registry.log.change(service.registry.project, name, decided)
    refused = decision.refused
    return RegisteredModel(
        version=views.version(model, model.versions[decision.version]),
        created=any(isinstance(fact, ModelRegistered) for fact in decision.facts),
        refused=Refusal(alias=refused.alias, gate=refused.gate, clauses=list(refused.clauses)) if refused else None,
    )


def _step(folded: FoldedRun, key: str) -> StepState:
    ids.check_step_key(key)
    step = folded.state.find(key)
    if step is None:
        known = ", ".join(list(folded.state.steps)[:_NAMES_SHOWN]) or "none"
        raise NotFoundError(f"run {folded.requested.run_id} has no step {key!r}", f"its steps: {known}")
    if step.status not in SUCCESSFUL_STATUSES:
        raise ConflictError(
            f"step {key!r} of run {folded.requested.run_id} is {step.status.value}",
            "only what a step that has succeeded gave can be registered",
        )
    if step.mapped is not None:
        raise ConflictError(f"step {key!r} is mapped: it has many results", f"name one of its items, such as {key}[0]")
    return step


def _value(step: StepState, output: str) -> Value:
    values = {**step.artifacts, **step.outputs}
    if output in values:
        return values[output]
    if output == "result" and len(step.outputs) == 1:
        return next(iter(step.outputs.values()))
    raise NotFoundError(f"step {step.key!r} has no output {output!r}", f"it has: {', '.join(values) or 'none'}")


def _artifact(value: Value, output: str) -> ArtifactRef:
    if isinstance(value, Stored):
        return value.artifact
    raise ProblemError(
        422,
        f"Output {output!r} is no artifact",
        "it is small plain data, or has several parts: register it from inside the step, with "
        "context().register_model(…), or give one file, folder or object",
        errors=[("output", "is no artifact")],
    )
