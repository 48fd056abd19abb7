"""What a call of a pipeline inside a pipeline takes in and gives back.

The inner body runs with the call's arguments as its parameters. It sees of them what it would see if it
ran alone, references of the declared types, so a pipeline that compiles alone compiles inside another. What it
returns is handed out as what a step returns: references that `.after` knows as one call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock import hints
from penstock.authoring.trace import references
from penstock.authoring.trace.calls import CallBinder, contains_reference
from penstock.authoring.trace.references import OutputDict, OutputList, Outputs, OutputTuple, Reference, Spread
from penstock.hints import assignability
from penstock_core.pipeline import values

if TYPE_CHECKING:
    from penstock.authoring.trace.drafts import Group, PipelineDefinition


def parameters(
    call: CallBinder, pipeline: PipelineDefinition, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Reference]:
    """References for the inner body's parameters, bound to the call's arguments and to defaults."""
    inputs = pipeline.signature.inputs
    given = call.given(inputs, args, kwargs)
    found: dict[str, Reference] = {}
    for name, one in inputs.items():
        what = f"parameter {name!r} of {call.what}"
        if name in given:
            value = given[name]
        else:
            # Its own error first: a default that cannot travel is wrong at the definition, not at the call.
            pipeline.parameter(one)
            value = one.default
        binding = call.bind(value, one.hint, what)
        hint = one.hint
        if isinstance(value, Reference) and Any in hints.members(hint):
            hint = references.target(value)[1]
        found[name] = Reference(call.tracer, binding, hint, text=what)
    return found


class OuterOutputs:
    """Makes of what an inner pipeline returned what the outer one gets."""

    def __init__(self, call: CallBinder, group: Group) -> None:
        self.call = call
        self.group = group

    def nothing(self) -> Reference:
        """For a pipeline that returns nothing: it can still be waited for."""
        return Reference(self.call.tracer, values.Inline(None), type(None), self.group, f"the end of {self.group.what}")

    def value(self, value: Any, hint: Any, path: str = "") -> Any:
        """The same shape with new references, each of the declared type where one is declared."""
        tracer, group = self.call.tracer, self.group
        text = f"output {path!r} of {group.what}" if path else f"the result of {group.what}"
        if isinstance(value, Reference):
            hint = _narrow(references.target(value)[1], hint)
            return Reference(tracer, self.call.reference(value, hint, text), hint, group, text)
        if isinstance(value, Spread):
            return Spread(self.value(references.spread(value), list[hint], path))
        if isinstance(value, Outputs):
            inner, named = references.whole(value)
            return self.fields(inner, named, path)
        if not contains_reference(value) and not (path == "" and _has_fields(value)):
            hint = type(value) if Any in hints.members(hint) else hint
            return Reference(tracer, self.call.literal(value, hint, text), hint, group, text)
        if hints.is_named_tuple(type(value)):
            return self.fields(value._asdict(), type(value), path)
        if isinstance(value, dict):
            entry = hints.entry(_member(hint, dict))[1]
            return OutputDict({key: self.value(one, entry, _join(path, key)) for key, one in value.items()}).of(
                tracer, group
            )
        shape = OutputList if isinstance(value, list) else OutputTuple
        option = _member(hint, type(value))
        return shape(
            self.value(one, hints.item(option, index), _join(path, index)) for index, one in enumerate(value)
        ).of(tracer, group)

    def fields(self, inner: dict[str, Any], named: type, path: str) -> Outputs:
        """A NamedTuple of references."""
        declared = hints.fields(named)
        wrapped = {name: self.value(one, declared[name], _join(path, name)) for name, one in inner.items()}
        return Outputs(self.call.tracer, self.group, wrapped, named)


def _has_fields(value: object) -> bool:
    """Whether each entry of a pipeline's return value is a separate output."""
    return isinstance(value, dict) or hints.is_named_tuple(type(value))


def _join(path: str, name: object) -> str:
    return f"{path}.{name}" if path else str(name)


def _narrow(source: Any, declared: Any) -> Any:
    """What is declared, where it says more than nothing; else what the step itself says."""
    if Any in hints.members(declared) or not assignability.is_assignable(source, declared):
        return source
    return declared


def _member(hint: Any, cls: type) -> Any:
    """The member of a union that collections of a class may be of."""
    return next(
        (option for option in hints.members(hint) if option is not Any and assignability.is_assignable(cls, option)),
        Any,
    )
