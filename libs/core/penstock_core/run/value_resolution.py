"""What bindings stand for in a run: the values that attempts are given, lists that steps are mapped over, conditions.

In: the state of a run and a binding. Out: a value as it travels. What is inline is opened here; what lies in artifacts
is only named, for the reader to open.
"""

from __future__ import annotations

from typing import Any, ClassVar

from penstock_core.errors import PenstockError
from penstock_core.pipeline import tagged, values
from penstock_core.pipeline.conditions import ConditionError, name_of
from penstock_core.pipeline.values import Binding, Value
from penstock_core.run.state import SUCCESSFUL_STATUSES, RunState, StepState

COLLECTED_FROM = 1_000
"""Results of items from which a list of them is named by reference."""


class UnresolvableBindingError(PenstockError):
    """A binding names a part that the value does not have, or a list that is none."""

    user_fault: ClassVar[bool] = True


def resolve(state: RunState, binding: Binding, *, by_reference: bool = False) -> Value:
    """The value a binding stands for. Inline results become references to the log when `by_reference` is set.

    Raises:
        Unresolvable: it picks a part that is not there.
    """
    match binding:
        case values.Param(name):
            inputs = state.requested.inputs if state.requested else {}
            return inputs.get(name, values.Inline(None))
        case values.Output(node, output):
            return _result(state, state.steps[node], output, by_reference=by_reference)
        case values.Pick(of, path):
            try:
                found = pick(resolve(state, of), path)
                if by_reference and values.weight(found) > values.ITEM_LIMIT:
                    found = pick(resolve(state, of, by_reference=True), path)
            except tagged.NoSuchPartError as error:
                raise UnresolvableBindingError(f"{name_of(binding)}: {error}") from error
            return found
        case values.OneOf(options):
            chosen = next((one for one in options if has_result(state, one)), options[0])
            return resolve(state, chosen, by_reference=by_reference)
        case values.Ending(what):
            outcome, error = state.ending or ("", None)
            return values.Inline(str(outcome) if what == "outcome" else error)
        case values.BoundItems(items):
            return values.Items(tuple(resolve(state, item, by_reference=by_reference) for item in items))
        case values.BoundFields(fields):
            return values.Fields({k: resolve(state, v, by_reference=by_reference) for k, v in fields.items()})
        case values.Inline():
            return binding


def has_result(state: RunState, binding: Binding) -> bool:
    """Whether all steps that a binding reads have results."""
    return all(state.steps[source.node].status in SUCCESSFUL_STATUSES for source in values.sources(binding))


def weight(state: RunState, bindings: dict[str, Binding]) -> int:
    """An upper estimate of the results that `bindings` read, each as often as it is read."""
    return sum(state.steps[source.node].weight for item in bindings.values() for source in values.sources(item))


def _result(state: RunState, step: StepState, output: str, *, by_reference: bool) -> Value:
    if step.status not in SUCCESSFUL_STATUSES:
        return values.Inline(None)
    if step.mapped is not None and not step.mapped.source:
        if step.mapped.count > COLLECTED_FROM or step.mapped.weight > values.REQUEST_LIMIT or by_reference:
            return values.Collected(values.CollectedRef(key=step.key, count=step.mapped.count, output=output))
        return values.Items(tuple(item_result(state, step, index, output) for index in range(step.mapped.count)))
    value = step.outputs.get(output, values.Inline(None))
    if by_reference and isinstance(value, values.Inline | values.Items | values.Fields) and step.attempt:
        return values.ResultOf(values.ResultRef(key=step.key, attempt=step.attempt, output=output))
    return value


def item_result(state: RunState, step: StepState, index: int, output: str, *, by_reference: bool = False) -> Value:
    """The result of an item of a mapped step: itself, or named where the results together are large."""
    if step.mapped is None or step.mapped.source:
        return pick(step.outputs.get(output, values.Inline(None)), (index,))
    item = step.mapped.items.get(index)
    if item is None or item.status not in SUCCESSFUL_STATUSES:
        return values.Inline(None)
    value = item.outputs.get(output)
    if (value is None or by_reference) and item.attempt:
        return values.ResultOf(values.ResultRef(key=item.key, attempt=item.attempt, output=output))
    return values.Inline(None) if value is None else value


# ----------------------------------------------------------------------------------------------------- parts of values


def pick(value: Value, path: tuple[int | str, ...]) -> Value:
    """A part of a value: itself where it is at hand, else named.

    Raises:
        NoSuchPart: the value, as far as it is at hand, has no such part.
    """
    for depth, part in enumerate(path):
        match value:
            case values.Inline(data):
                value = values.Inline(tagged.element(data, part))
            case values.Items(items):
                if not isinstance(part, int) or not -len(items) <= part < len(items):
                    raise tagged.NoSuchPartError(f"a list of {len(items)} has no element [{part!r}]")
                value = items[part]
            case values.Fields(fields):
                if part not in fields:
                    has = ", ".join(map(repr, list(fields)[:10]))
                    raise tagged.NoSuchPartError(f"there is no field {part!r} (the fields: {has})")
                value = fields[str(part)]
            case values.Element(of, inner):
                return values.Element(of, (*inner, *path[depth:]))
            case _:
                return values.Element(value, path[depth:])
    return value


def length(state: RunState, binding: Binding) -> int:
    """How many elements a list has over which a step is mapped.

    Raises:
        Unresolvable: it is no list, or nobody knows its length without opening it.
    """
    if isinstance(binding, values.Output):
        step = state.steps[binding.node]
        if step.mapped is not None and step.status in SUCCESSFUL_STATUSES:
            return step.mapped.count
    value = resolve(state, binding)
    match value:
        case values.Items(items):
            return len(items)
        case values.Collected(ref):
            return ref.count
        case values.Inline(data) if (entries := tagged.sequence(data)) is not None:
            return len(entries)
        case values.Inline(data):
            raise UnresolvableBindingError(f"{name_of(binding)} is no list but a {tagged.kind(data)}")
        case values.Stored(artifact) if artifact.items is not None:
            return artifact.items
        case values.Stored(artifact):
            raise UnresolvableBindingError(
                f"{name_of(binding)} is no list but a {artifact.python_type or artifact.format}"
            )
        case _:
            raise UnresolvableBindingError(
                f"{name_of(binding)} is no list that is known to the scheduler: give it from a step"
            )


def element(state: RunState, binding: Binding, index: int, *, by_reference: bool = False) -> Value:
    """An element of such a list. Inline results become references to the log when `by_reference` is set.

    Raises:
        Unresolvable: there is none.
    """
    try:
        match binding:
            case values.Output(node, output) if state.steps[node].mapped is not None:
                return item_result(state, state.steps[node], index, output, by_reference=by_reference)
            case values.BoundItems(items):
                return resolve(state, items[index], by_reference=by_reference)
            case _:
                return pick(resolve(state, binding, by_reference=by_reference), (index,))
    except tagged.NoSuchPartError as error:
        raise UnresolvableBindingError(f"{name_of(binding)}: {error}") from error


# ---------------------------------------------------------------------------------------------------------- conditions


def read(state: RunState, binding: Binding) -> Any:
    """The plain value of a binding for a condition.

    Raises:
        ConditionError: it is not there, or lies in an artifact, which only the user's code opens.
    """
    try:
        return _plain(binding, resolve(state, binding))
    except UnresolvableBindingError as error:
        raise ConditionError(str(error)) from error
    except RecursionError:
        raise ConditionError(f"{name_of(binding)} is nested too deep for a condition") from None


def _plain(binding: Binding, value: Value) -> Any:
    match value:
        case values.Inline(data):
            return tagged.plain(data)
        case values.Items(items):
            return [_plain(binding, item) for item in items]
        case values.Fields(fields):
            return {name: _plain(binding, item) for name, item in fields.items()}
        case _:
            raise ConditionError(
                f"{name_of(binding)} is kept as an artifact, which a condition cannot read: "
                "return the number or text that it depends on as an output of its own"
            )
