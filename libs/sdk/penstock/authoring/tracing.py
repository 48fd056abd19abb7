"""Records the calls of steps while the body of a pipeline runs once with references in the place of values."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from penstock import codec, frames, hints
from penstock.authoring import references
from penstock.authoring.references import Outputs, Reference
from penstock.hints import assign, check
from penstock_core import values
from penstock_core.errors import DefinitionError

if TYPE_CHECKING:
    from penstock.authoring.pipelines import Pipeline
    from penstock.authoring.steps import Step


@dataclass
class Draft:
    """A call of a step, as it becomes a node."""

    key: str
    step: str
    inputs: dict[str, values.Binding]
    file: str | None
    line: int | None
    after: list[str] = field(default_factory=list[str])


@dataclass
class Graph:
    """A traced pipeline: its step calls, its steps by name, its outputs, and how these make the value it returns."""

    drafts: list[Draft]
    steps: dict[str, Step[..., Any]]
    outputs: dict[str, values.Binding]
    assemble: Callable[[dict[str, Any]], Any]


_active: ContextVar[Tracer | None] = ContextVar("penstock_tracer", default=None)


def active() -> Tracer | None:
    """The compilation whose pipeline's body runs now."""
    return _active.get()


class Tracer:
    """One compilation of one pipeline."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.drafts: dict[str, Draft] = {}
        self.steps: dict[str, Step[..., Any]] = {}
        self._names: dict[int, str] = {}
        self._calls: dict[str, int] = {}

    @contextmanager
    def activate(self) -> Generator[None]:
        """Calls of steps are recorded here for the time of a `with` block."""
        token = _active.set(self)
        try:
            yield
        finally:
            _active.reset(token)

    # ------------------------------------------------------------------------------------------------- step calls

    def record(self, step: Step[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record a call of a step; returns what stands for its outputs."""
        file, line = frames.caller()
        key = self._free_key(step.name)
        call = _Call(self, key, file, line)
        draft = Draft(key, self._name(step), call.bind_all(step, args, kwargs), file, line)
        self.drafts[key] = draft
        outputs = {name: Reference(self, values.Output(key, name), hint, draft) for name, hint in step.outputs.items()}
        named = step.signature.named
        return outputs["result"] if named is None else Outputs(self, draft, outputs, named)

    def _free_key(self, name: str) -> str:
        number = self._calls.get(name, 0) + 1
        while (key := name if number == 1 else f"{name}-{number}") in self.drafts:
            number += 1
        self._calls[name] = number
        return key

    def _name(self, step: Step[..., Any]) -> str:
        """The name under which a step's definition stands; steps of different modules may have the same name."""
        name = self._names.get(id(step))
        if name is None:
            number = 1
            while (name := step.name if number == 1 else f"{step.name}-{number}") in self.steps:
                number += 1
            self._names[id(step)] = name
            self.steps[name] = step
        return name


@dataclass
class _Call:
    """One call of a step: binds what it was given, and knows where the user made it."""

    tracer: Tracer
    key: str
    file: str | None
    line: int | None

    def wrong(self, message: str) -> DefinitionError:
        return DefinitionError(message, self.file, self.line)

    def bind_all(
        self, step: Step[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> dict[str, values.Binding]:
        inputs = step.signature.inputs
        if len(args) > len(inputs):
            raise self.wrong(f"step {self.key!r} takes {len(inputs)} inputs, but {len(args)} were given")
        given = dict(zip(inputs, args, strict=False))
        for name, value in kwargs.items():
            if name not in inputs:
                raise self.wrong(f"step {self.key!r} has no input {name!r} (its inputs: {', '.join(inputs) or 'none'})")
            if name in given:
                raise self.wrong(f"input {name!r} of step {self.key!r} is given twice")
            given[name] = value
        for name, parameter in inputs.items():
            if parameter.required and name not in given:
                raise self.wrong(f"step {self.key!r} misses its input {name!r} ({hints.show(parameter.hint)})")
        return {
            name: self.bind(given[name], parameter.hint, f"input {name!r} of step {self.key!r}")
            for name, parameter in inputs.items()
            if name in given
        }

    def bind(self, value: Any, hint: Any, what: str) -> values.Binding:
        """Where an input comes from; what is given must fit `hint`."""
        if isinstance(value, Reference):
            return self.reference(value, hint, what)
        if isinstance(value, Outputs):
            return self.outputs(value, hint, what)
        if holds_reference(value):
            return self.collection(value, hint, what)
        return self.literal(value, hint, what)

    def reference(self, value: Reference, hint: Any, what: str) -> values.Binding:
        if references.parts(value)[0] is not self.tracer:
            raise self.wrong(f"{what}: {value!r} belongs to another pipeline, or to an earlier compilation of this one")
        binding, source = references.target(value)
        if not assign.fits(source, hint):
            raise self.wrong(f"{what} takes {hints.show(hint)}, but {value!r} is {hints.show(source)}")
        return binding

    def outputs(self, value: Outputs, hint: Any, what: str) -> values.Binding:
        inner, named = references.whole(value)
        if named not in [hints.klass(option) for option in hints.members(hint)]:
            raise self.wrong(
                f"{what} takes {hints.show(hint)}, but was given {value!r}: give one of them, such as "
                f".{next(iter(inner), 'name')}"
            )
        fields = hints.fields(named)
        return values.BoundFields({name: self.bind(one, fields[name], what) for name, one in inner.items()})

    def collection(self, value: Any, hint: Any, what: str) -> values.Binding:
        """A list, tuple or dictionary in which references stand: its items are bound one by one."""
        if not isinstance(value, list | tuple | dict):
            raise self.wrong(f"{what}: references cannot stand in a {type(value).__name__}; use a list or a dictionary")
        shape: Any = dict if isinstance(value, dict) else type(value)
        errors: list[DefinitionError] = []
        for option in hints.members(hint):
            if not assign.fits(shape, option) and not (isinstance(value, list) and assign.fits(tuple, option)):
                continue
            try:
                return self.items(value, option, what)
            except DefinitionError as error:
                errors.append(error)
        raise (
            errors[0]
            if errors
            else self.wrong(f"{what} takes {hints.show(hint)}, but was given a {type(value).__name__} of references")
        )

    def items(self, value: Any, hint: Any, what: str) -> values.Binding:
        if isinstance(value, dict):
            entries = cast("dict[Any, Any]", value)
            odd = [key for key in entries if not isinstance(key, str)]
            if odd:
                raise self.wrong(f"{what}: keys of a dictionary of references must be texts, not {odd[0]!r}")
            inner = hints.entry(hint)[1]
            return values.BoundFields(
                {key: self.bind(entry, inner, f"{what}, key {key!r}") for key, entry in entries.items()}
            )
        if hints.is_named_tuple(type(value)):
            fields = hints.fields(type(value))
            return values.BoundFields(
                {name: self.bind(getattr(value, name), one, f"{what}, field {name!r}") for name, one in fields.items()}
            )
        entries = cast("list[Any]", value)
        return values.BoundItems(
            tuple(self.bind(one, hints.item(hint, i), f"{what}, item {i}") for i, one in enumerate(entries))
        )

    def literal(self, value: Any, hint: Any, what: str) -> values.Binding:
        found = check.problem(value, hint)
        if found is not None:
            raise self.wrong(f"{what} takes {hints.show(hint)}, but {found}")
        try:
            data = codec.plain(value, hint)
        except codec.NotJson as error:
            raise self.wrong(
                f"{what}: {hints.brief(value)} cannot be written into the pipeline, because {error}. "
                "Make it in a step, or give plain data"
            ) from error
        if not isinstance(data, bool | int | float | None) and len(json.dumps(data)) > values.INLINE_LIMIT:
            raise self.wrong(
                f"{what}: the value is larger than {values.INLINE_LIMIT // 1024} KiB: load it in a step instead"
            )
        return values.Inline(data)


def holds_reference(value: Any) -> bool:
    """Whether references stand in lists, tuples, sets and dictionaries, directly or deeper."""
    if isinstance(value, Reference | Outputs):
        return True
    if isinstance(value, list | tuple | set | frozenset):
        return any(holds_reference(entry) for entry in cast("list[Any]", value))
    if isinstance(value, dict):
        return any(holds_reference(entry) for entry in cast("dict[Any, Any]", value).values())
    return False


# ------------------------------------------------------------------------------------------------------------ bodies


def trace(pipeline: Pipeline) -> Graph:
    """Run a pipeline's body once and record it.

    Raises:
        DefinitionError: the body is wrong, or raised something.
    """
    if active() is not None:
        raise DefinitionError("a pipeline cannot be compiled inside the body of another", *frames.caller())
    signature = pipeline.signature
    tracer = Tracer(pipeline)
    given = {name: Reference(tracer, values.Param(name), one.hint) for name, one in signature.inputs.items()}
    try:
        with tracer.activate():
            returned = pipeline.function(**given)
    except DefinitionError:
        raise
    except Exception as error:
        file, line = frames.where(error)
        raise DefinitionError(
            f"pipeline {pipeline.name!r} raised {type(error).__name__} while it was compiled: {error}",
            file or pipeline.file,
            line or pipeline.line,
        ) from error
    outputs, assemble = _returned(pipeline, tracer, returned)
    return Graph(list(tracer.drafts.values()), tracer.steps, outputs, assemble)


def _returned(
    pipeline: Pipeline, tracer: Tracer, returned: Any
) -> tuple[dict[str, values.Binding], Callable[[dict[str, Any]], Any]]:
    """The outputs of a pipeline: one reference, a NamedTuple or dictionary of them, or nothing."""
    call = _Call(tracer, pipeline.name, pipeline.file, pipeline.line)
    what, hint = f"what pipeline {pipeline.name!r} returns", pipeline.signature.returns
    if returned is None:
        found = check.problem(None, hint)
        if found is not None:
            raise call.wrong(
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
    if not holds_reference(returned):
        raise call.wrong(
            f"pipeline {pipeline.name!r} returns {hints.brief(returned)}: it can return what a step returned, "
            "a NamedTuple or a dictionary of such results, or nothing"
        )
    return {"result": call.bind(returned, hint, what)}, lambda outputs: outputs["result"]
