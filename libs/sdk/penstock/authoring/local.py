"""Runs a traced pipeline in this process: in order of dependencies, one step after the other, with live objects."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from penstock import codec, contexts, inputs
from penstock.authoring import pipelines
from penstock.authoring.drafts import Draft
from penstock.authoring.steps import Step
from penstock.authoring.tracing import Graph
from penstock.contexts import Context, using
from penstock.serialize import loading
from penstock_core import conditions, retry, values
from penstock_core.errors import InputError
from penstock_core.facts import ErrorInfo, Outcome

if TYPE_CHECKING:
    from penstock.authoring.pipelines import Pipeline

MAX_DELAY = 0.05
"""Longest wait in seconds before a retry: whoever runs locally waits in front of it."""


def run(pipeline: Pipeline, graph: Graph, given: Mapping[str, Any]) -> Any:
    """Run a traced pipeline; see `Pipeline.local`."""
    live = inputs.live_inputs(pipeline, given)
    run = _Run(pipeline, {**{name: one.default for name, one in pipeline.signature.inputs.items()}, **live})
    for draft in pipelines.in_order(graph):
        run.execute(draft, graph.steps[draft.step])
    return graph.assemble({name: run.resolve(binding, Any) for name, binding in graph.outputs.items()})


class _Run:
    def __init__(self, pipeline: Pipeline, params: dict[str, Any]) -> None:
        self.pipeline = pipeline
        self.params = params
        self.results: dict[tuple[str, str], Any] = {}

    def execute(self, draft: Draft, step: Step[..., Any]) -> None:
        hints = step.hints
        arguments = {name: self.resolve(binding, hints[name]) for name, binding in draft.inputs.items()}
        outputs = step.split(self.call(draft, step, arguments))
        self.results.update({(draft.key, name): value for name, value in outputs.items()})

    def call(self, draft: Draft, step: Step[..., Any], arguments: dict[str, Any]) -> Any:
        policy = step.settings["retry"]
        attempt = 1
        context = self.context(draft)
        while True:
            try:
                with using(context):
                    result = step.function(**arguments)
                    return asyncio.run(_wait_for(result)) if inspect.isawaitable(result) else result
            except Exception as error:
                history = retry.History(run_id="local", key=draft.key, attempt=attempt, failures=attempt, losses=0)
                decision = retry.decide(policy, history, Outcome.FAILED, _describe(error))
                if not decision.again:
                    error.add_note(f"raised in step {draft.key!r} of pipeline {self.pipeline.name!r}")
                    raise
                time.sleep(min(decision.delay, MAX_DELAY))
                attempt += 1
                context = context.again()

    def context(self, draft: Draft) -> Context:
        """Logs to where the caller's own context logs, so that tests find it in `context()` afterwards."""
        outer = contexts.context()
        return Context(step=draft.key, pipeline=self.pipeline.name, sink=outer.sink)

    def resolve(self, binding: values.Binding, hint: Any) -> Any:
        from penstock import hints

        match binding:
            case values.Inline(value):
                return codec.decode(value, hint)
            case values.Param(name):
                return self.params[name]
            case values.Output(node, output):
                return self.results[node, output]
            case values.BoundItems(items):
                return loading.gather([self.resolve(one, hints.item(hint, i)) for i, one in enumerate(items)], hint)
            case values.BoundFields(fields):
                inner = hints.entry(hint)[1]
                return loading.spread({name: self.resolve(one, inner) for name, one in fields.items()}, hint)
            case _:
                raise InputError(f"{conditions.name_of(binding)} has no value outside the platform")


async def _wait_for(awaitable: Any) -> Any:
    return await awaitable


def _describe(error: BaseException) -> ErrorInfo:
    bases = tuple(cls.__name__ for cls in type(error).__mro__[1:])
    return ErrorInfo(type=type(error).__name__, message=str(error), bases=bases)
