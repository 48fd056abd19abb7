"""Registers an output of a step of any run as a version of a model, after the fact."""

from __future__ import annotations

import time

from penstock_contracts.models import Refusal, RegisteredModel, RegisterModelBody
from penstock_core import ids
from penstock_core.pipeline.values import ArtifactRef, Stored, Value
from penstock_core.registry import decide
from penstock_core.registry.decide import Actor, Decision, Origin, Promotion, VersionDetails
from penstock_core.registry.facts import ModelRegistered, check_alias
from penstock_core.registry.state import Model
from penstock_core.run.machine import SUCCESSFUL_STATUSES, StepState
from penstock_gateway.artifacts.artifact_transfer import Artifacts, missing
from penstock_gateway.errors import ConflictError, NotFoundError, UnprocessableError
from penstock_gateway.registry import model_views as views
from penstock_gateway.registry.model_registry import Registry
from penstock_gateway.runs.run_reader import RunReader
from penstock_gateway.runs.run_states import FoldedRun
from penstock_gateway.runs.steps import no_step
from penstock_gateway.versions.pipeline_versions import PipelineVersions


class ModelRegistration:
    """Registers outputs of steps as model versions."""

    def __init__(self, reader: RunReader, models: Registry, versions: PipelineVersions, artifacts: Artifacts) -> None:
        self._reader = reader
        self._models = models
        self._versions = versions
        self._artifacts = artifacts

    async def register(self, name: str, body: RegisterModelBody, by: str) -> RegisteredModel:
        """Register a version; the same output of the same attempt is the same version.

        Raises:
            NotFoundError: the run, step, output or artifact does not exist.
            ConflictError: the step has no result.
            UnprocessableError: the output is not an artifact.
            RegistryError: the alias cannot be moved.
        """
        ids.check_name(name, "model")
        if body.alias is not None:
            check_alias(body.alias)
        elif body.gate or body.force:
            raise UnprocessableError("`gate` and `force` need an alias", "set alias", errors=[("alias", "is missing")])
        run = await self._reader.get(body.run_id)
        step = _step(run, body.step)
        artifact = _artifact(await self._reader.resolve(run, _value(step, body.output)), body.output)
        if await self._artifacts.size(artifact.sha256) is None:
            raise missing(artifact.sha256)
        origin = Origin(
            artifact=artifact,
            run_id=step.from_run or run.requested.run_id,
            key=step.key,
            attempt=max(step.attempt, 1),
            output=body.output,
            pipeline=run.requested.pipeline,
            pipeline_version=run.requested.version,
            code=run.state.plan.specs[step.node].code,
            experiment=await self._versions.is_experiment(run.requested.pipeline, run.requested.version),
        )
        details = VersionDetails(
            metrics=dict(step.metrics if body.metrics is None else body.metrics),
            non_finite=dict(step.non_finite if body.metrics is None else {}),
            params=dict(step.params),
            tags=body.tags,
            description=body.description,
        )
        promotion = None
        if body.alias is not None:
            promotion = Promotion(alias=body.alias, version=0, reason=body.reason, gate=body.gate, force=body.force)
        actor = Actor(by, time.time())

        def decided(model: Model) -> Decision:
            return decide.register(model, origin, details, actor, promotion)

        decision, model = await self._models.log.change(self._models.project, name, decided)
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
        raise no_step(folded, key)
    if step.status not in SUCCESSFUL_STATUSES:
        raise ConflictError(
            f"Step {key!r} of run {folded.requested.run_id} is {step.status.value}",
            "only outputs of successful steps can be registered",
        )
    if step.mapped is not None:
        raise ConflictError(f"Step {key!r} is mapped", f"name one of its items, such as {key}[0]")
    return step


def _value(step: StepState, output: str) -> Value:
    values = {**step.artifacts, **step.outputs}
    if output in values:
        return values[output]
    if output == "result" and len(step.outputs) == 1:
        return next(iter(step.outputs.values()))
    raise NotFoundError(f"Step {step.key!r} has no output {output!r}", f"its outputs: {', '.join(values) or 'none'}")


def _artifact(value: Value, output: str) -> ArtifactRef:
    if isinstance(value, Stored):
        return value.artifact
    raise UnprocessableError(
        f"Output {output!r} is not an artifact",
        "it is small plain data, or has several parts: register it inside the step with "
        "context().register_model(…), or return one file, folder or object",
        errors=[("output", "is not an artifact")],
    )
