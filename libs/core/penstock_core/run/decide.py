"""`decide(state) -> facts`: which facts to append to a run's log next.

`decide` is deterministic, and its cost is proportional to what changed: it looks only at the frontier, the steps whose
next fact is due. It returns the same facts until they are folded.

Replicas may decide concurrently, one knowing of a cancel and one not yet. Therefore a cancel writes to the same subject
as the decision that it competes with: the end of the attempt, whether that is in flight or only about to be requested,
or the number of items of a mapped step. The log accepts only the first of the two facts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from penstock_core import trace_context
from penstock_core.facts import (
    AttemptFinished,
    AttemptQueued,
    AttemptRequested,
    CacheMode,
    CacheRule,
    ErrorInfo,
    Fact,
    Limit,
    Outcome,
    RunFinished,
    RunRequested,
    StepExpanded,
    StepSkipped,
)
from penstock_core.limits import slot_ledger
from penstock_core.pipeline import conditions, tagged, values
from penstock_core.pipeline.conditions import ConditionError
from penstock_core.pipeline.ir import Kind, Node, Phase, Resources, Rule, StepSpec
from penstock_core.run import mapped_steps, value_resolution
from penstock_core.run.run_outcome import run_outcome_and_reason
from penstock_core.run.state import IN_FLIGHT, SUCCESSFUL_STATUSES, RunState, Status, StepState
from penstock_core.run.suspension import end_of_wait, suspend
from penstock_core.run.value_resolution import UnresolvableBindingError

_MOST_MEMORY = 1 << 50


def decide(state: RunState) -> list[Fact]:
    """Return the facts to append now, in order. Empty if the run waits for something else or has finished."""
    if state.requested is None or state.finished is not None:
        return []
    if state.open == 0:
        return [_run_finished(state)]
    if state.awaits_admission:
        return []
    facts: list[Fact] = []
    for key in state.frontier:
        step = state.find(key)
        if step is not None:
            facts += _next(state, step, state.requested)
    return facts


def _next(state: RunState, step: StepState, run: RunRequested) -> Iterator[Fact]:
    reason = state.stopping(step)
    if reason is not None:
        yield from _fence(state, step, reason)
    elif step.mapped is not None:
        yield from _items(state, step, run)
    elif step.due and step.status in IN_FLIGHT:
        yield _due(state, step)
    elif step.status is Status.WAITING and step.index is None:
        yield _first(state, step, run)
    else:
        yield _attempt(state, step, run)


def _fence(state: RunState, step: StepState, reason: str) -> Iterator[Fact]:
    """End a step whatever it does now, and whatever a replica requests of it that does not know of the cancel yet."""
    error = ErrorInfo(type=mapped_steps.CANCELLED, message=reason)
    if step.mapped is not None:
        yield from _fenced_items(state, step, error)
    elif step.index is None and state.plan.nodes[step.key].mapped is not None:
        yield StepExpanded(run_id=state.run_id, key=step.key, error=error)
    else:
        attempt = step.attempt if step.status in IN_FLIGHT else step.attempt + 1
        yield _cancelled(state, step.key, _free(state, step.key, attempt), error)


def _free(state: RunState, key: str, attempt: int) -> int:
    """Return the first attempt, from this one on, that has no end yet. Unreadable ends count as lost."""
    while (key, attempt) in state.early and state.early[key, attempt].outcome is Outcome.LOST:
        attempt += 1
    return attempt


def _fenced_items(state: RunState, step: StepState, error: ErrorInfo) -> Iterator[Fact]:
    assert step.mapped is not None  # noqa: S101 - asked by the caller
    for index in mapped_steps.next_items(state.plan.nodes[step.key].mapped, step.mapped):
        key = f"{step.key}[{index}]"
        yield _cancelled(state, key, _free(state, key, 1), error)


def _cancelled(state: RunState, key: str, attempt: int, error: ErrorInfo) -> Fact:
    return AttemptFinished(run_id=state.run_id, key=key, attempt=attempt, outcome=Outcome.CANCELLED, error=error)


def _due(state: RunState, step: StepState) -> Fact:
    """Return the end of an attempt whose timer has expired."""
    if step.status is Status.SUSPENDED:
        return end_of_wait(state, step)
    message = "it did not start within its queue timeout"
    if step.status is Status.QUEUED_FOR_LIMIT:
        message += ": no slot of its limits became free"
    return AttemptFinished(
        run_id=state.run_id,
        key=step.key,
        attempt=step.attempt,
        outcome=Outcome.TIMED_OUT,
        error=ErrorInfo(type="QueueTimeout", message=message),
        finished_at=step.start_by or state.now,
    )


# --------------------------------------------------------------------------------------------- before the first attempt


def _first(state: RunState, step: StepState, run: RunRequested) -> Fact:
    """Return the first fact about a step whose dependencies have finished, or that one of them blocks."""
    node = state.plan.nodes[step.key]
    skip = _blocked(state, step, node)
    if skip is not None:
        return skip
    if node.when is not None:
        try:
            holds = conditions.evaluate(node.when, lambda binding: value_resolution.read(state, binding))
        except ConditionError as error:
            return _failed_to_start(state, step.key, "its condition cannot be evaluated", "ConditionError", error)
        if not holds:
            return _expected(state, step, f"its condition is false: {_with_values(state, node.when)}")
    if node.mapped is not None:
        try:
            return StepExpanded(run_id=state.run_id, key=step.key, count=mapped_steps.count(state, node))
        except UnresolvableBindingError as error:
            message = f"it cannot be mapped: {error}"
            return StepExpanded(run_id=state.run_id, key=step.key, error=ErrorInfo(type="MapError", message=message))
    return _attempt(state, step, run)


def _blocked(state: RunState, step: StepState, node: Node) -> StepSkipped | None:
    """Return the skip of a step that does not run because of how others finished."""
    if step.blocker is not None:
        blocker = state.steps[step.blocker]
        how = "failed" if blocker.status is Status.FAILED else f"was {blocker.status}"
        return _skip(state, step, f"step {blocker.key!r} {how}", blocker)
    if node.phase is Phase.ON_FAILURE and (state.ending is None or state.ending[0] is not Outcome.FAILED):
        return _expected(state, step, "the run did not fail")
    if node.rule is Rule.ANY_FAILED and step.cause is None:
        return _expected(state, step, "none of its upstream steps failed")
    if node.rule is Rule.ALL_SUCCEEDED:
        for group in state.plan.groups.get(step.key, ()):
            if not any(all(state.steps[key].status in SUCCESSFUL_STATUSES for key in way) for way in group):
                keys = list(dict.fromkeys(key for way in group for key in way))
                bad = next((state.steps[key] for key in keys if not _is_expected(state.steps[key])), None)
                return _skip(
                    state, step, f"none of {', '.join(map(repr, keys))} succeeded", bad or state.steps[keys[0]]
                )
    return None


def _is_expected(step: StepState) -> bool:
    return step.status in SUCCESSFUL_STATUSES or (step.status is Status.SKIPPED and step.expected)


def _skip(state: RunState, step: StepState, reason: str, blocker: StepState) -> StepSkipped:
    return StepSkipped(
        run_id=state.run_id, key=step.key, reason=reason, cause=blocker.key, expected=_is_expected(blocker)
    )


def _expected(state: RunState, step: StepState, reason: str) -> StepSkipped:
    return StepSkipped(run_id=state.run_id, key=step.key, reason=reason[:1000], expected=True)


def _failed_to_start(state: RunState, key: str, what: str, kind: str, error: Exception) -> StepSkipped:
    message = f"{what}: {error}"[:1000]
    return StepSkipped(run_id=state.run_id, key=key, reason=message, error=ErrorInfo(type=kind, message=message))


def _with_values(state: RunState, condition: conditions.Condition) -> str:
    """Describe a condition together with the values that it read."""
    found: dict[str, str] = {}
    for binding in conditions.bindings(condition):
        if not isinstance(binding, values.Inline):
            try:
                found[conditions.name_of(binding)] = tagged.text(value_resolution.read(state, binding))
            except ConditionError:
                continue
    values_text = ", ".join(f"{name} is {value}" for name, value in found.items())
    return f"{conditions.describe(condition)} ({values_text})" if values_text else conditions.describe(condition)


# ------------------------------------------------------------------------------------------------------------ attempts


def _items(state: RunState, step: StepState, run: RunRequested) -> Iterator[Fact]:
    """Yield the first attempts of the next items, or, once the step cannot succeed, fence those others may request."""
    assert step.mapped is not None  # noqa: S101 - asked by the caller
    if step.mapped.closing:
        error = ErrorInfo(type=mapped_steps.CANCELLED, message="so many items failed that the step cannot succeed")
        yield from _fenced_items(state, step, error)
        return
    node = state.plan.nodes[step.key]
    inputs = mapped_steps.Inputs(state, node)
    for index in mapped_steps.next_items(node.mapped, step.mapped):
        item = StepState(f"{step.key}[{index}]", step.key, index)
        if item.key in state.stops:
            error = ErrorInfo(type=mapped_steps.CANCELLED, message=state.stops[item.key])
            yield _cancelled(state, item.key, _free(state, item.key, 1), error)
        else:
            yield _attempt(state, item, run, inputs)


def _attempt(state: RunState, step: StepState, run: RunRequested, items: mapped_steps.Inputs | None = None) -> Fact:
    """Return the next fact about an attempt: queued for its limits, suspended, or requested from executors."""
    key, node, spec = step.key, state.plan.nodes[step.node], state.plan.specs[step.node]
    queued = step.status is Status.QUEUED_FOR_LIMIT
    attempt = step.attempt if queued else step.attempt + 1
    limits = _limits(run, spec)
    since = max(state.now, step.not_before or 0.0)
    start_by = step.start_by if queued else since + spec.queue_timeout if spec.queue_timeout is not None else None
    try:
        inputs = (
            value_resolution.inputs(state, node.inputs)
            if step.index is None
            else (items or mapped_steps.Inputs(state, node)).of(step.index)
        )
        if spec.kind is not Kind.FUNCTION:
            return suspend(state, key, attempt, spec, inputs, run)
    except UnresolvableBindingError as error:
        if attempt == 1 and not queued:
            return _failed_to_start(state, key, "an input is missing", "InputError", error)
        return _cancelled(state, key, attempt, ErrorInfo(type="InputError", message=f"an input is missing: {error}"))
    if limits and not queued:
        return AttemptQueued(
            run_id=state.run_id,
            key=key,
            attempt=attempt,
            limits=limits,
            priority=run.priority + spec.priority,
            since=since,
            start_by=start_by,
        )
    return AttemptRequested(
        run_id=state.run_id,
        key=key,
        attempt=attempt,
        pool=spec.pool,
        project=run.project,
        pipeline=run.pipeline,
        version=run.version,
        entrypoint=spec.entrypoint,
        inputs=inputs,
        outputs=spec.outputs,
        timeout=spec.timeout,
        resources=_resources(spec, step),
        env=spec.env,
        secrets=spec.secrets,
        seed=spec.seed,
        priority=run.priority + spec.priority,
        not_before=step.not_before,
        start_by=start_by,
        cache=_cache(spec, step, run),
        closing=node.phase is not Phase.MAIN,
        limited=bool(limits),
        environment=spec.environment or "",
        nodes=spec.nodes,
        fresh_pod=spec.fresh_pod,
        trace=trace_context.continued(run.trigger),
    )


def _limits(run: RunRequested, spec: StepSpec) -> tuple[Limit, ...]:
    """Return the limits of which an attempt needs a slot."""
    if spec.kind is not Kind.FUNCTION:
        return ()
    own = (
        (Limit(name=slot_ledger.named(run.project, spec.concurrency), most=spec.concurrency_max),)
        if spec.concurrency is not None
        else ()
    )
    return (*own, Limit(name=f"pool:{spec.pool}")) if spec.pool in run.limited_pools else own


def _resources(spec: StepSpec, step: StepState) -> Resources:
    """Return what the next attempt needs: more memory after attempts that ran out of it."""
    needs = spec.resources
    if needs.memory is None or not step.shortages or needs.memory_growth <= 1:
        return needs
    try:
        grown = min(needs.memory * needs.memory_growth**step.shortages, _MOST_MEMORY)
    except OverflowError:
        grown = _MOST_MEMORY
    return replace(needs, memory=max(int(grown), needs.memory))


def _cache(spec: StepSpec, step: StepState, run: RunRequested) -> CacheRule | None:
    if not spec.cache or run.cache is CacheMode.OFF:
        return None
    refresh = run.cache is CacheMode.REFRESH or not {step.key, step.node, spec.name}.isdisjoint(run.refresh)
    return CacheRule(
        code=spec.code, dynamic_code=spec.dynamic_code, salt=spec.cache_salt, ttl=spec.cache_ttl, refresh=refresh
    )


# ------------------------------------------------------------------------------------------------------- end of the run


def _run_finished(state: RunState) -> RunFinished:
    outcome, error = run_outcome_and_reason(state)
    if outcome is Outcome.SUCCEEDED:
        outputs = state.plan.pipeline.outputs
        by_reference = value_resolution.weight(state, outputs) > values.REQUEST_LIMIT
        try:
            found = {
                name: value_resolution.resolve(state, binding, by_reference=by_reference)
                for name, binding in outputs.items()
            }
            return RunFinished(run_id=state.run_id, outcome=outcome, outputs=found)
        except UnresolvableBindingError as problem:
            outcome, error = Outcome.FAILED, f"an output of the pipeline is missing: {problem}"
    return RunFinished(run_id=state.run_id, outcome=outcome, error=error)
