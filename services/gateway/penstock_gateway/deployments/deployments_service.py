"""Deployments as the API reads and changes them. Invalid definitions are refused before they are stored."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from penstock_adapters import cron_expressions
from penstock_adapters.cel import CelEvaluator
from penstock_adapters.nats.deployment_log import DeploymentLog
from penstock_adapters.nats.known_pools import KnownPools
from penstock_contracts.deployments import (
    DeploymentBody,
    DeploymentChange,
    DeploymentList,
    DeploymentView,
    RevisionList,
    RevisionView,
    RollbackBody,
    TicksView,
    parse_definition,
)
from penstock_core import capacity, ids, json_schema, requests
from penstock_core.deployments import definition as definitions
from penstock_core.deployments import definition_problems, event_types, late, low_latency, state, webhooks
from penstock_core.deployments.definition import CronTrigger, Definition, Mode, WebhookTrigger
from penstock_core.deployments.facts import (
    DeploymentApplied,
    DeploymentDeleted,
    DeploymentFact,
    DeploymentPaused,
    DeploymentResumed,
)
from penstock_core.deployments.matching import ExpressionError
from penstock_core.deployments.partitions import PartitionKind, PartitionSet
from penstock_core.deployments.state import Actor, Deployment, NoDeploymentError
from penstock_core.errors import InvalidInputsError
from penstock_core.pipeline.ir import Port
from penstock_core.pipeline.values import Stored
from penstock_gateway.access.tokens import Tokens
from penstock_gateway.artifacts.artifact_transfer import Artifacts
from penstock_gateway.errors import UnprocessableError
from penstock_gateway.events.event_types_service import EventTypeRegistry
from penstock_gateway.named_secrets import DeploymentSecrets
from penstock_gateway.notifications.sender import NotificationSender
from penstock_gateway.registry import model_inputs
from penstock_gateway.registry.model_registry import Registry
from penstock_gateway.versions.pipeline_versions import PipelineVersions

TICKS_LIMIT = 1_000
"""Most ticks that are computed ahead, per trigger."""

_KINDS: dict[type[DeploymentFact], str] = {
    DeploymentApplied: "applied",
    DeploymentPaused: "paused",
    DeploymentResumed: "resumed",
    DeploymentDeleted: "deleted",
}


class Deployments:
    """The deployments of one project."""

    def __init__(
        self,
        log: DeploymentLog,
        versions: PipelineVersions,
        models: Registry,
        artifacts: Artifacts,
        pools: KnownPools,
        evaluator: CelEvaluator,
        sender: NotificationSender,
        secrets: DeploymentSecrets,
        tokens: Tokens,
        event_types: EventTypeRegistry,
        project: str,
    ) -> None:
        self.log = log
        self.project = project
        self._versions = versions
        self._models = models
        self._artifacts = artifacts
        self._pools = pools
        self._evaluator = evaluator
        self._sender = sender
        self._secrets = secrets
        self._tokens = tokens
        self._event_types = event_types

    async def list(self) -> DeploymentList:
        """Return the deployments that are not deleted, by name."""
        found = sorted((await self.log.all()).items())
        return DeploymentList(
            deployments=[_view(one) for (project, _), one in found if project == self.project and one.exists]
        )

    async def get(self, name: str) -> DeploymentView:
        """Return a deployment.

        Raises:
            NoDeploymentError: it does not exist.
        """
        return _view(await self._known(name))

    async def history(self, name: str) -> RevisionList:
        """Return all revisions of a deployment, also of a deleted one.

        Raises:
            NoDeploymentError: there never was one.
        """
        deployment = await self.log.get(self.project, name)
        if not deployment.facts:
            deployment.require()
        return RevisionList(name=name, revisions=[_revision(fact) for fact in deployment.facts.values()])

    async def apply(self, name: str, body: DeploymentBody, by: str) -> DeploymentView:
        """Create or update a deployment that would work now.

        Raises:
            InvalidInputsError: with everything that is wrong in the definition.
            NotFoundError: the pipeline or its version does not exist.
            ConflictError: the deployment is at another revision.
        """
        ids.check_name(name, "deployment")
        definition = parse_definition(body.definition)
        actor = Actor(by=by, at=time.time())
        if body.candidate is not None and not body.dry_run:
            message = "only applies to a dry run: publish the version first"
            raise UnprocessableError(f"candidate {message}", errors=[("candidate", message)])
        definition = await self._checked(name, definition, body.candidate)
        if body.dry_run:
            deployment = await self.log.get(self.project, name)
            facts = state.apply(deployment, definition, actor, body.revision)
            known = deployment.current
            return DeploymentView(
                name=name,
                revision=deployment.revision,
                definition=definition,
                paused=known is not None and known.paused,
                changed=bool(facts),
            )
        await self._revoke_old_tokens(name)
        changed, deployment = await self.log.change(
            self.project, name, lambda found: state.apply(found, definition, actor, body.revision)
        )
        return _view(deployment, changed)

    async def roll_back(self, name: str, body: RollbackBody, by: str) -> DeploymentView:
        """Restore the definition of an earlier revision.

        Raises:
            NoDeploymentError: the deployment or the revision does not exist.
            ConflictError: the deployment is at another revision.
        """
        actor = Actor(by=by, at=time.time())
        await self._revoke_old_tokens(name)
        changed, deployment = await self.log.change(
            self.project, name, lambda found: state.roll_back(found, body.to, actor, body.revision)
        )
        return _view(deployment, changed)

    async def pause(self, name: str, body: DeploymentChange, by: str) -> DeploymentView:
        """Pause a deployment: its triggers start no runs.

        Raises:
            NoDeploymentError: it does not exist.
            ConflictError: the deployment is at another revision.
        """
        return await self._change(name, DeploymentPaused, body, by)

    async def resume(self, name: str, body: DeploymentChange, by: str) -> DeploymentView:
        """Resume a paused deployment. Raises as `pause`."""
        return await self._change(name, DeploymentResumed, body, by)

    async def delete(self, name: str, body: DeploymentChange, by: str) -> None:
        """Delete a deployment and the tokens of its endpoint; its history stays. Raises as `pause`."""
        actor = Actor(by=by, at=time.time())
        await self.log.change(
            self.project,
            name,
            lambda found: state.change(found, DeploymentDeleted, body.reason, actor, body.revision),
        )
        await self._tokens.revoke_all(self.project, name)

    async def next_ticks(self, name: str, count: int) -> TicksView:
        """Return the next ticks of the cron triggers of a deployment.

        Raises:
            NoDeploymentError: it does not exist.
        """
        definition = (await self._known(name)).require()
        return TicksView(
            ticks={trigger.name: [*_ticks(trigger, name, count)] for trigger in _cron_triggers(definition)}
        )

    async def _change(
        self,
        name: str,
        kind: type[DeploymentPaused] | type[DeploymentResumed],
        body: DeploymentChange,
        by: str,
    ) -> DeploymentView:
        actor = Actor(by=by, at=time.time())
        changed, deployment = await self.log.change(
            self.project, name, lambda found: state.change(found, kind, body.reason, actor, body.revision)
        )
        return _view(deployment, changed)

    async def _revoke_old_tokens(self, name: str) -> None:
        """Revoke the tokens of a deleted deployment before one of its name exists again.

        Its deletion does so, too, unless the gateway is killed between the two.
        """
        if not (await self.log.get(self.project, name)).exists:
            await self._tokens.revoke_all(self.project, name)

    async def _known(self, name: str) -> Deployment:
        deployment = await self.log.get(self.project, name)
        deployment.require()
        return deployment

    # ------------------------------------------------------------------------------------------------------------ check

    async def _checked(self, name: str, definition: Definition, candidate: int | None = None) -> Definition:
        """Return a definition with complete references to artifacts; refuse one that could never start a run.

        Args:
            name: of the deployment.
            definition: its definition.
            candidate: a version of the pipeline that counts as the latest published one.
        """
        problems = definition_problems.problems(definition)
        for n, trigger in enumerate(definition.triggers):
            at = f"triggers[{n}]"
            problems += [(f"{at}.{path}", message) for path, message in self._expression_problems(trigger)]
            if isinstance(trigger, WebhookTrigger):
                usable = partial(webhooks.check_secret, trigger.verification)
                found = await self._secrets.problems(trigger, self.project, name, usable)
                problems += [(f"{at}.{field}", message) for field, message in found]
            if isinstance(trigger, CronTrigger):
                problems += [(f"{at}.{field}", message) for field, message in cron_expressions.check(trigger)]
        if definition.late is not None:
            zone = cron_expressions.check(CronTrigger(name="late", cron="@daily", tz=definition.late.tz))
            problems += [(f"late.{field}", message) for field, message in zone]
        for n, rule in enumerate(definition.notify):
            found = await self._sender.problems(rule, self.project, name)
            problems += [(f"notify[{n}].{field}", message) for field, message in found]
        if problems:
            raise InvalidInputsError(f"Invalid deployment {name!r}", problems)
        version = await self._versions.get(definition.pipeline, definition.version or candidate)
        found = await self._versions.publications(definition.pipeline)
        published = {*(found.versions if found else ()), *(() if candidate is None else (candidate,))}
        if version.version not in published:
            message = f"version {version.version} of pipeline {definition.pipeline!r} is an experiment"
            raise UnprocessableError(message, "publish it with `penstock register FILE`", errors=[("version", message)])
        params = version.pipeline.params
        problems = [*_mapping_problems(params, definition)]
        problems += late.step_problems(definition.late, version.pipeline)
        resolved = await model_inputs.resolve(
            self._models, version, {**definition.inputs, **_sample(definition, params)}
        )
        fixed = tuple(port if port.name in resolved.given else replace(port, required=False) for port in params)
        values, wrong = requests.check_parameters(fixed, resolved)
        if definition.mode is Mode.LOW_LATENCY:
            problems += low_latency.problems(version.pipeline)
        for role, number in definition.other_versions.items():
            if number not in published:
                problems.append((f"{role}.version", f"version {number} of {definition.pipeline!r} is not published"))
            else:
                other = await self._versions.get(definition.pipeline, number)
                problems += [(f"{role}.{path}", text) for path, text in low_latency.problems(other.pipeline)]
        available = await self._pools.available(version.pipeline)
        problems += capacity.problems(version.pipeline, available, version.declared())
        if wrong or problems:
            raise InvalidInputsError(f"Invalid deployment {name!r}", [*wrong, *problems])
        await self._artifacts.check_inputs(values)
        # References to artifacts are stored complete. Models are resolved for each run.
        given = {
            parameter: asdict(values[parameter])
            if isinstance(values[parameter], Stored) and parameter not in (resolved.models or {})
            else plain
            for parameter, plain in definition.inputs.items()
        }
        return replace(definition, inputs=given)

    def _expression_problems(self, trigger: definitions.Trigger) -> Iterator[tuple[str, str]]:
        for path, expression in definitions.expressions(trigger):
            try:
                self._evaluator.check(expression, "bool" if path == "filter" else "")
            except ExpressionError as error:
                yield path, str(error)
                continue
            for type in definitions.subscription("d", trigger).types:
                if (schema := self._event_types.schema(type)) is not None:
                    yield from (
                        (path, f"{found} in events of type {type}") for found in self._misfits(expression, schema)
                    )

    def _misfits(self, expression: str, schema: dict[str, Any]) -> list[str]:
        """What an expression reads that events with a schema do not have, or have with another type."""
        if unknown := [*event_types.expression_problems(expression, schema)]:
            return unknown
        try:
            self._evaluator.check_types(expression, event_types.cel_types(schema))
        except ExpressionError as error:
            return [str(error)]
        return []


def _mapping_problems(params: tuple[Port, ...], definition: Definition) -> Iterator[tuple[str, str]]:
    """Mappings to unknown parameters, and parameters that nothing sets."""
    known = {port.name: port for port in params}
    mapped = definition.partitions.inputs if definition.partitions else {}
    for name in mapped:
        if name not in known:
            yield f"partitions.inputs.{name[:100]}", json_schema.unknown(name, known, "parameter")
        if name in definition.inputs:
            yield f"inputs.{name[:100]}", "is an input that the partition sets: set it once"
    for n, trigger in enumerate(definition.triggers):
        shape = definitions.subscription("d", trigger)
        for name in shape.inputs:
            if name not in known:
                yield f"triggers[{n}].inputs.{name[:100]}", json_schema.unknown(name, known, "parameter")
        if shape.inputs_from:
            continue
        missing = [
            name
            for name, port in known.items()
            if port.required and name not in {*definition.inputs, *shape.inputs, *mapped}
        ]
        for name in missing:
            yield (
                f"triggers[{n}].inputs",
                f"parameter {name!r} has no default: map it to the event, or give the deployment an input",
            )


def _sample(definition: Definition, params: tuple[Port, ...]) -> dict[str, Any]:
    """The inputs that the first partition sets, by which the types of their parameters are checked."""
    declared = definition.partitions
    if declared is None or declared.by is PartitionKind.DYNAMIC:
        return {}
    found = PartitionSet(declared)
    known = {port.name for port in params}
    return {name: value for name, value in found.inputs(found.at(0)).items() if name in known}


def _view(deployment: Deployment, changed: bool = False) -> DeploymentView:
    current = deployment.current
    if current is None or current.definition is None:
        raise NoDeploymentError(f"there is no deployment {deployment.name!r}")
    fact = deployment.facts[current.revision]
    ticks = {trigger.name: [*_ticks(trigger, deployment.name, 1)] for trigger in _cron_triggers(current.definition)}
    return DeploymentView(
        name=deployment.name,
        revision=deployment.revision,
        definition=current.definition,
        paused=current.paused,
        by=fact.by,
        at=fact.at,
        next={} if current.paused else {name: found[0] for name, found in ticks.items() if found},
        changed=changed,
    )


def _revision(fact: DeploymentFact) -> RevisionView:
    return RevisionView(
        revision=fact.revision,
        change=_KINDS[type(fact)],
        by=fact.by,
        at=fact.at,
        reason=getattr(fact, "reason", ""),
        restores=fact.restores if isinstance(fact, DeploymentApplied) else 0,
        definition=fact.definition if isinstance(fact, DeploymentApplied) else None,
    )


def _cron_triggers(definition: Definition) -> list[CronTrigger]:
    return [trigger for trigger in definition.triggers if isinstance(trigger, CronTrigger)]


def _ticks(trigger: CronTrigger, deployment: str, count: int) -> Iterator[float]:
    after = time.time()
    for _ in range(count):
        found = cron_expressions.trigger_tick(trigger, after)
        if found is None:
            return
        yield found + cron_expressions.delay(trigger, deployment, found)
        after = found
