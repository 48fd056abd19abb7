"""Fan-out: `train.partial(data=data).map(depth=depths)`, `.grid(…)`, and its bindings and result types.

In: a step, the inputs that all items share, and a list for each input that differs. Out: the bindings of the node with
its `ir.MapSpec`, and the hints of its results, which are lists.
"""

from __future__ import annotations

import math
import typing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

from penstock import hints
from penstock.authoring.trace import references
from penstock.authoring.trace.references import Outputs, Reference
from penstock.hints import assignability
from penstock_core.pipeline import ir, values

if TYPE_CHECKING:
    from penstock.authoring.trace.calls import CallBinder
    from penstock.authoring.trace.drafts import Definition


@dataclass(frozen=True, slots=True)
class MappedArguments:
    """Arguments of a mapped call: inputs that all items share, and lists by position and by name."""

    mode: Literal["zip", "grid"]
    fixed: dict[str, Any] = field(default_factory=dict[str, Any])
    args: tuple[Any, ...] = ()
    lists: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def word(self) -> str:
        """How the user wrote it."""
        return "map" if self.mode == "zip" else "grid"


def bind(call: CallBinder, step: Definition, given: MappedArguments) -> tuple[dict[str, values.Binding], ir.MapSpec]:
    """The bindings of a mapped node.

    Raises:
        DefinitionError: an input is unknown, missing, given twice or no list; with the user's line.
    """
    inputs = step.signature.inputs
    free = [name for name in inputs if name not in given.fixed]
    if len(given.args) > len(free):
        raise call.definition_error(
            f"{call.what} has {len(free)} inputs to map over, but {len(given.args)} lists were given"
        )
    named = dict(zip(free, given.args, strict=False))
    twice = next((name for name in given.lists if name in named), None)
    lists = {**named, **given.lists}
    if twice is not None:
        raise call.definition_error(f"input {twice!r} of {call.what} is given twice")
    both = next((name for name in lists if name in given.fixed), None)
    if both is not None:
        raise call.definition_error(f"input {both!r} of {call.what} is given in partial() and in {given.word}()")
    if not lists:
        raise call.definition_error(f"{given.word}() of {call.what} takes at least one list, such as {_example(free)}")
    all_given = call.given(inputs, (), {**given.fixed, **lists})
    bound = {
        name: _list(call, value, inputs[name].hint, name)
        if name in lists
        else call.bind(value, inputs[name].hint, f"input {name!r} of {call.what}")
        for name, value in all_given.items()
    }
    if given.mode == "grid":
        _check_size(call, [bound[name] for name in lists])
    call_options = step.call_options
    mapped = ir.MapSpec(
        over=tuple(lists), mode=given.mode, window=call_options.window, min_success=call_options.min_success
    )
    return bound, mapped


def _example(free: list[str]) -> str:
    return f"{free[0]}=[…]" if free else "…, but partial() has all inputs already"


def _list(call: CallBinder, value: Any, hint: Any, name: str) -> values.Binding:
    """A list, each element of which fits the input."""
    what = f"input {name!r} of {call.what}"
    wants = f"{what} is mapped over, so it takes a list of {hints.show(hint)}"
    if isinstance(value, Reference):
        source = references.target(value)[1]
        if not references.is_list(source):
            advice = (
                ". Give it to partial() if it is the same for all items"
                if assignability.is_assignable(source, hint)
                else ""
            )
            raise call.definition_error(f"{wants}, but {value!r} is {hints.show(source)}{advice}")
        for option in hints.members(source):
            if not assignability.is_assignable(hints.item(option), hint):
                raise call.definition_error(f"{wants}, but {value!r} is {hints.show(source)}")
        # The rule of the step is about single inputs; a list that is not there has no items at all.
        return type(call)(call.tracer, call.what, call.file, call.line).reference(value, source, what)
    if isinstance(value, Outputs):
        names = ", ".join(f".{name}" for name in references.whole(value)[0])
        raise call.definition_error(f"{wants}, but {value!r} are not a list: pass one of them ({names})")
    if isinstance(value, tuple | range):
        value = list(cast("tuple[Any, ...]", value))
    if not isinstance(value, list):
        raise call.definition_error(f"{wants}, but {hints.short_repr(value)} is not a list")
    return call.bind(value, list[hint], what)


def _check_size(call: CallBinder, lists: list[values.Binding]) -> None:
    known = [
        len(cast("list[Any]", one.value)) if isinstance(one, values.Inline) else len(one.items)
        for one in lists
        if isinstance(one, values.Inline | values.BoundItems)
    ]
    if math.prod(known) > ir.MAX_ITEMS:
        raise call.definition_error(
            f"{call.what} would have at least {math.prod(known)} items; the limit is {ir.MAX_ITEMS}"
        )


def mapped_output_hints(step: Definition, mapped: ir.MapSpec) -> tuple[dict[str, Any], type | None]:
    """The hints of the results of all items, and the NamedTuple of lists where a step has several outputs."""
    found = {
        name: list[typing.Optional[hint] if mapped.min_success is not None else hint]  # noqa: UP045 - made at run time
        for name, hint in step.signature.outputs.items()
    }
    named = step.signature.named
    if named is None:
        return found, None
    lists = typing.NamedTuple(f"{named.__name__}Lists", list(found.items()))  # pyright: ignore[reportArgumentType, reportUnknownVariableType, reportGeneralTypeIssues] - from names that are known at run time only
    return found, cast("type", lists)
