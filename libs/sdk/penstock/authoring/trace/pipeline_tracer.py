"""Compilation: run the body of a pipeline once with placeholders and record the calls of steps."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, cast

from penstock import hints, tracebacks
from penstock.authoring.trace import body_check, inlined_pipelines, mapped_calls, references
from penstock.authoring.trace.calls import CallBinder, contains_reference
from penstock.authoring.trace.drafts import Compilation, Definition, Draft, Group, PipelineDefinition
from penstock.authoring.trace.placeholders import is_compiling
from penstock.authoring.trace.references import Outputs, Reference
from penstock.hints import value_check
from penstock_core.errors import DefinitionError
from penstock_core.pipeline import ir, ir_check, values
from penstock_core.pipeline.conditions import AllOf, Condition


@dataclass
class Graph:
    """A traced pipeline: its step calls, its steps by name, its outputs, and how these make the value it returns."""

    drafts: list[Draft]
    steps: dict[str, Definition]
    outputs: dict[str, values.Binding]
    assemble: Callable[[dict[str, Any]], Any]


MAX_KEY = 200
"""Longest key of a step in a pipeline, in characters; see `ids.check_step_key`."""

MAX_CALLS = 2 * ir_check.MAX_NODES
"""Most calls of steps and pipelines in one compilation."""

_active: ContextVar[Tracer | None] = ContextVar("penstock_tracer", default=None)


def active() -> Tracer | None:
    """Return the compilation whose body is running, if any."""
    return _active.get()


@dataclass
class Scope:
    """The body of one pipeline, the outermost or one inside: its name space and the calls made in it and deeper."""

    pipeline: PipelineDefinition
    prefix: str = ""
    drafts: list[Draft] = field(default_factory=list[Draft])
    used_keys: set[str] = field(default_factory=set[str])
    calls: dict[str, int] = field(default_factory=dict[str, int])

    def unique_key(self, name: str) -> str:
        """The name itself, or with a number when it was used in this body before; with the prefix of the body."""
        number = self.calls.get(name, 0) + 1
        while (own := name if number == 1 else f"{name}-{number}") in self.used_keys:
            number += 1
        self.calls[name] = number
        self.used_keys.add(own)
        key = self.prefix + own
        if len(key) > MAX_KEY:
            raise DefinitionError(
                f"step key {key[:60] + '…' + key[-40:]!r} would have {len(key)} characters; the limit is {MAX_KEY}. "
                "Use shorter names, or nest fewer pipelines",
                *tracebacks.caller(),
            )
        return key


@dataclass(frozen=True, slots=True)
class Block:
    """A `with` block in the body of a pipeline: condition and phase of the steps in it."""

    scope: Scope
    condition: Condition | None = None
    phase: ir.Phase = ir.Phase.MAIN


@dataclass(frozen=True, slots=True)
class ClosedBlock:
    """A `when` block that was just closed: `otherwise` must follow before anything else is recorded."""

    condition: Condition
    within: tuple[Block, ...]
    scope: Scope
    recorded: int


class Tracer(Compilation):
    """One compilation of one pipeline, with the bodies of the pipelines that it calls.

    Attributes:
        steps: definitions of the called steps by name.
        scopes: the bodies that are running, the outermost first.
        blocks: the open `with` blocks of all bodies.
        passed: the `when` block that was closed last.
    """

    def __init__(self, pipeline: PipelineDefinition) -> None:
        self.steps: dict[str, Definition] = {}
        self.scopes = [Scope(pipeline)]
        self.blocks: list[Block] = []
        self.passed: ClosedBlock | None = None
        self._recorded = 0
        self._names: dict[object, str] = {}
        self._phases: dict[str, ir.Phase] = {}

    @contextmanager
    def activate(self) -> Generator[None]:
        """Calls of steps are recorded here for the time of a `with` block."""
        token, compiling = _active.set(self), is_compiling.set(True)
        try:
            yield
        finally:
            is_compiling.reset(compiling)
            _active.reset(token)

    def _place(self) -> tuple[str | None, int | None]:
        """Where the user makes the call that is being recorded, one of so many."""
        place = tracebacks.caller()
        self._recorded += 1
        if self._recorded > MAX_CALLS:
            # Now, not when all is recorded: pipelines that call others twice each double at every level.
            name = self.scopes[0].pipeline.name
            raise DefinitionError(f"pipeline {name!r} has more than {MAX_CALLS} step calls, which is the limit", *place)
        return place

    def record(self, step: Definition, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record a call of a step; return placeholders for its outputs."""
        call, key = self._call(step)
        draft = self._draft(step, key, call, call.bind_all(step.signature.inputs, args, kwargs))
        return self._outputs(draft, step.signature.outputs, step.signature.named)

    def record_mapped(self, step: Definition, mapped: mapped_calls.MappedArguments) -> Any:
        """Record a call of a step for each of many items; return placeholders for the lists of its outputs."""
        call, key = self._call(step)
        inputs, over = mapped_calls.bind(call, step, mapped)
        draft = self._draft(step, key, call, inputs, over)
        return self._outputs(draft, *mapped_calls.mapped_output_hints(step, over))

    def _call(self, step: Definition) -> tuple[CallBinder, str]:
        file, line = self._place()
        key = self.scopes[-1].unique_key(step.name)
        return CallBinder(self, f"step {key!r}", file, line, lenient=self._lenient(step)), key

    def _lenient(self, step: Definition) -> Callable[[str], str] | None:
        """Why the steps that a call of `step` reads, by key, may have no result."""
        rule = step.call_options.rule
        if rule is not ir.Rule.ALL_SUCCEEDED:
            return lambda _: f"because of the trigger rule {rule.value!r}"
        if self.phase() is not ir.Phase.MAIN:
            why = "because this step runs at the end of every run"
            return lambda key: why if self._phases[key] is ir.Phase.MAIN else ""
        return None

    def _draft(
        self,
        step: Definition,
        key: str,
        call: CallBinder,
        inputs: dict[str, values.Binding],
        mapped: ir.MapSpec | None = None,
    ) -> Draft:
        draft = Draft(
            key,
            self._name(step),
            inputs,
            call.file,
            call.line,
            when=self.condition(),
            rule=step.call_options.rule,
            phase=self.phase(),
            mapped=mapped,
        )
        self._phases[key] = draft.phase
        self.scopes[-1].drafts.append(draft)
        return draft

    def _outputs(self, draft: Draft, found: dict[str, Any], named: type | None) -> Any:
        outputs = {name: Reference(self, values.Output(draft.key, name), hint, draft) for name, hint in found.items()}
        return outputs["result"] if named is None else Outputs(self, draft, outputs, named)

    def condition(self) -> Condition | None:
        """What must hold for the steps that are recorded now: the conditions of all blocks around them."""
        found = tuple(block.condition for block in self.blocks if block.condition is not None)
        return AllOf(found) if len(found) > 1 else found[0] if found else None

    def phase(self) -> ir.Phase:
        """When the steps that are recorded now have their turn."""
        return next((block.phase for block in self.blocks if block.phase is not ir.Phase.MAIN), ir.Phase.MAIN)

    def exit_block(self, block: Block) -> None:
        """Close a `with` block."""
        self.blocks.remove(block)
        self.passed = None
        if block.condition is not None:
            self.passed = ClosedBlock(block.condition, tuple(self.blocks), block.scope, self._recorded)

    def last_closed_condition(self) -> Condition | None:
        """The condition of the `when` block that ended right before, in the same body and block."""
        passed = self.passed
        if passed is None or passed.recorded != self._recorded:
            return None
        here = passed.within == tuple(self.blocks) and passed.scope is self.scopes[-1]
        return passed.condition if here else None

    def inline(self, pipeline: PipelineDefinition, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record the calls of a pipeline inside this one; return placeholders for its return value."""
        file, line = self._place()
        path = [one.pipeline for one in self.scopes]
        if pipeline in path:
            circle = " -> ".join(one.name for one in [*path[path.index(pipeline) :], pipeline])
            raise DefinitionError(
                f"pipeline {pipeline.name!r} calls itself: {circle}. A pipeline is expanded where it is called, "
                "so this recursion would never end",
                file,
                line,
            )
        outer = self.scopes[-1]
        key = outer.unique_key(pipeline.name)
        call = CallBinder(self, f"pipeline {key!r}", file, line, "parameter")
        given = inlined_pipelines.parameters(call, pipeline, args, kwargs)
        scope = Scope(pipeline, f"{key}/")
        self.scopes.append(scope)
        try:
            returned = _body(pipeline, given)
            _returned(pipeline, self, returned)
        finally:
            self.scopes.pop()
            outer.drafts.extend(scope.drafts)
        handed = inlined_pipelines.OuterOutputs(call, Group(key, scope.drafts, self.phase()))
        return handed.nothing() if returned is None else handed.value(returned, pipeline.signature.returns)

    def _name(self, step: Definition) -> str:
        """The name under which a step's definition stands; steps of different modules may have the same name."""
        name = self._names.get(step.identity)
        if name is None:
            number = 1
            while (name := step.name if number == 1 else f"{step.name}-{number}") in self.steps:
                number += 1
            self._names[step.identity] = name
            self.steps[name] = step
        return name


# ------------------------------------------------------------------------------------------------------------ bodies


def trace(pipeline: PipelineDefinition) -> Graph:
    """Run a pipeline's body once and record it.

    Raises:
        DefinitionError: the body is wrong, or raised something.
    """
    if active() is not None:
        raise DefinitionError(
            f"a pipeline cannot be compiled inside the body of another pipeline: call it instead, as in "
            f"{pipeline.function.__name__}(...)",
            *tracebacks.caller(),
        )
    tracer = Tracer(pipeline)
    inputs = pipeline.signature.inputs
    with tracer.activate():
        returned = _body(
            pipeline, {name: Reference(tracer, values.Param(name), one.hint) for name, one in inputs.items()}
        )
    outputs, assemble = _returned(pipeline, tracer, returned)
    return Graph(tracer.scopes[0].drafts, tracer.steps, outputs, assemble)


def _body(pipeline: PipelineDefinition, given: dict[str, Reference]) -> Any:
    """What the function of a pipeline returns."""
    body_check.check(pipeline.function, f"pipeline {pipeline.name!r}")
    try:
        return pipeline.function(**given)
    except DefinitionError:
        raise
    except Exception as error:
        file, line = tracebacks.where(error)
        raise DefinitionError(
            f"pipeline {pipeline.name!r} raised {type(error).__name__} while it was compiled: {error}{_hint(error)}",
            file or pipeline.file,
            line or pipeline.line,
        ) from error


def _hint(error: Exception) -> str:
    """Explain the name of a placeholder in an error of Python's own, such as that of `json.dumps`."""
    if Reference.__name__ not in str(error).split():
        return ""
    return (
        f". {Reference.__name__} is the type of parameters and results while the pipeline is compiled, when they have "
        "no value yet: pass them to a step, and do this inside the step"
    )


def _returned(
    pipeline: PipelineDefinition, tracer: Tracer, returned: Any
) -> tuple[dict[str, values.Binding], Callable[[dict[str, Any]], Any]]:
    """The outputs of a pipeline: one reference, a NamedTuple or dictionary of them, or nothing."""
    call = CallBinder(tracer, f"pipeline {pipeline.name!r}", pipeline.file, pipeline.line)
    what, hint = f"what pipeline {pipeline.name!r} returns", pipeline.signature.returns
    if returned is None:
        found = value_check.problem(None, hint)
        if found is not None:
            raise call.definition_error(
                f"pipeline {pipeline.name!r} is declared to return {hints.show(hint)}, but returns nothing"
            )
        return {}, lambda outputs: None
    if isinstance(returned, Outputs):
        named = references.whole(returned)[1]
        bound = call.bind(returned, named if hint is Any else hint, what)
        return cast("values.BoundFields", bound).fields, lambda outputs: cast("Any", named)(**outputs)
    if isinstance(returned, dict) or hints.is_named_tuple(type(returned)):
        if not returned:
            return {}, lambda outputs: outputs
        bound = call.collection(returned, hint, what)
        make: Any = dict if isinstance(returned, dict) else type(returned)
        return cast("values.BoundFields", bound).fields, lambda outputs: make(**outputs)
    if not contains_reference(returned):
        raise call.definition_error(
            f"pipeline {pipeline.name!r} returns {hints.short_repr(returned)}: it can return the result of a step, "
            "a NamedTuple or dictionary of such results, or nothing"
        )
    return {"result": call.bind(returned, hint, what)}, lambda outputs: outputs["result"]
