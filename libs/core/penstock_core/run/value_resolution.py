"""Resolve bindings in a run: the inputs of attempts, the lists of mapped steps, the values of conditions.

In: the state of a run and a binding. Out: a value as facts carry it. Inline values are resolved here. Artifacts stay
references, which their reader loads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from penstock_core.errors import PenstockError
from penstock_core.pipeline import tagged, values
from penstock_core.pipeline.conditions import ConditionError, name_of
from penstock_core.pipeline.values import Binding, Value
from penstock_core.run.state import SUCCESSFUL_STATUSES, RunState, StepState

COLLECTED_FROM = 1_000
"""From this many items on, the list of their results is a reference."""


class UnresolvableBindingError(PenstockError):
    """A binding selects a part that the value does not have, or maps over a value that is not a list."""

    user_fault: ClassVar[bool] = True


def resolve(state: RunState, binding: Binding, *, by_reference: bool = False) -> Value:
    """Return the value of a binding. With `by_reference`, inline results become references to the log.

    Raises:
        UnresolvableBindingError: it selects a part that does not exist.
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
        case values.BoundItems() | values.BoundLists() | values.BoundFields():
            return _collection(state, binding, by_reference=by_reference)
        case values.Inline():
            return binding


def inputs(state: RunState, bindings: dict[str, Binding]) -> dict[str, Value]:
    """Return the values of the inputs of a step; if they are too large for a request, results are references.

    Raises:
        UnresolvableBindingError: one selects a part that does not exist.
    """
    by_reference = weight(state, bindings) > values.REQUEST_LIMIT
    return {name: resolve(state, binding, by_reference=by_reference) for name, binding in bindings.items()}


def _collection(
    state: RunState, binding: values.BoundItems | values.BoundLists | values.BoundFields, *, by_reference: bool
) -> Value:
    found = [resolve(state, one, by_reference=by_reference) for one in values.parts(binding)]
    match binding:
        case values.BoundFields(fields):
            return values.Fields(dict(zip(fields, found, strict=True)))
        case values.BoundItems():
            return values.Items(tuple(found))
        case values.BoundLists(lists):
            for one, value in zip(lists, found, strict=True):
                _check_list(one, value)
            return joined(found)


def has_result(state: RunState, binding: Binding) -> bool:
    """Whether all steps that a binding reads have results."""
    return all(state.steps[source.node].status in SUCCESSFUL_STATUSES for source in values.sources(binding))


def weight(state: RunState, bindings: dict[str, Binding]) -> int:
    """Return an upper estimate of the size of the results that `bindings` read, each counted as often as it is read."""
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
    """Return the result of an item of a mapped step: inline, or a reference if the results together are large."""
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


def joined(lists: Sequence[Value]) -> Value:
    """Return lists one after the other as one: of items where all are known, else as `Lists`."""
    several = [part for one in lists for part in (one.lists if isinstance(one, values.Lists) else (one,))]
    items: list[Value] = []
    for one in several:
        known = _known_items(one)
        if known is None:
            return values.Lists(tuple(several))
        items += known
    return values.Items(tuple(items))


def _known_items(value: Value) -> Sequence[Value] | None:
    match value:
        case values.Items(items):
            return items
        case values.Inline(data) if (entries := tagged.sequence(data)) is not None:
            return [values.Inline(entry) for entry in entries]
        case _:
            return None


def _check_list(binding: Binding, value: Value) -> None:
    """Refuse what is certainly no list; its reader finds out about artifacts."""
    if isinstance(value, values.Fields) or (isinstance(value, values.Inline) and _known_items(value) is None):
        kind = tagged.kind(value.value) if isinstance(value, values.Inline) else "dict"
        raise UnresolvableBindingError(f"{name_of(binding)} is not a list (type: {kind})")


def _count(value: Value) -> int | None:
    """The length of a list, where it is known without loading it."""
    match value:
        case values.Collected(ref):
            return ref.count
        case values.Stored(artifact):
            return artifact.items
        case values.Lists(lists):
            counts = [_count(one) for one in lists]
            return None if None in counts else sum(one for one in counts if one is not None)
        case _:
            known = _known_items(value)
            return None if known is None else len(known)


def pick(value: Value, path: tuple[int | str, ...]) -> Value:
    """Return a part of a value: resolved if the value is inline, else as an `Element`.

    Raises:
        NoSuchPartError: the inline part of the value has no such part.
    """
    for depth, part in enumerate(path):
        match value:
            case values.Inline(data):
                value = values.Inline(tagged.element(data, part))
            case values.Items(items):
                value = items[_index(part, len(items))]
            case values.Lists(lists):
                return _pick_from(lists, path[depth:])
            case values.Fields(fields):
                if part not in fields:
                    has = ", ".join(map(repr, list(fields)[:10]))
                    raise tagged.NoSuchPartError(f"there is no field {part!r} (fields: {has})")
                value = fields[str(part)]
            case values.Collected(ref):
                _index(part, ref.count)
                return values.Element(value, path[depth:])
            case values.Element(of, inner):
                return values.Element(of, (*inner, *path[depth:]))
            case _:
                return values.Element(value, path[depth:])
    return value


def _pick_from(lists: Sequence[Value], path: tuple[int | str, ...]) -> Value:
    """A part of several lists, one after the other: of that one in which the index falls, if the lengths are known."""
    index, left = path[0], lists
    while isinstance(index, int) and index >= 0 and left:
        count = _count(left[0])
        if count is None:
            break
        if index < count:
            return pick(left[0], (index, *path[1:]))
        index, left = index - count, left[1:]
    if not left:
        total = sum(_count(one) or 0 for one in lists)
        raise tagged.NoSuchPartError(f"a list of {total} has no element [{path[0]!r}]")
    rest = left[0] if len(left) == 1 else values.Lists(tuple(left))
    return values.Element(rest, (index, *path[1:]))


def _index(part: int | str, count: int) -> int:
    if not isinstance(part, int) or not -count <= part < count:
        raise tagged.NoSuchPartError(f"a list of {count} has no element [{part!r}]")
    return part


def length(state: RunState, binding: Binding) -> int:
    """Return the length of a list to map over.

    Raises:
        UnresolvableBindingError: it is not a list, or its length is unknown without loading it.
    """
    if isinstance(binding, values.BoundLists):
        return sum(length(state, one) for one in binding.lists)
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
            raise UnresolvableBindingError(f"{name_of(binding)} is not a list (type: {tagged.kind(data)})")
        case values.Stored(artifact) if artifact.items is not None:
            return artifact.items
        case values.Stored(artifact):
            raise UnresolvableBindingError(
                f"{name_of(binding)} is not a list (type: {artifact.python_type or artifact.format})"
            )
        case _:
            raise UnresolvableBindingError(
                f"{name_of(binding)} is not a list that the scheduler can read: return it from a step"
            )


def element(state: RunState, binding: Binding, index: int, *, by_reference: bool = False) -> Value:
    """Return an element of such a list. With `by_reference`, inline results become references to the log.

    Raises:
        UnresolvableBindingError: there is no such element.
    """
    try:
        match binding:
            case values.Output(node, output) if state.steps[node].mapped is not None:
                return item_result(state, state.steps[node], index, output, by_reference=by_reference)
            case values.BoundItems(items):
                return resolve(state, items[_index(index, len(items))], by_reference=by_reference)
            case values.BoundLists(lists):
                for one in lists:
                    count = length(state, one)
                    if index < count:
                        return element(state, one, index, by_reference=by_reference)
                    index -= count
                raise tagged.NoSuchPartError("there is no such element")
            case _:
                return pick(resolve(state, binding, by_reference=by_reference), (index,))
    except tagged.NoSuchPartError as error:
        raise UnresolvableBindingError(f"{name_of(binding)}: {error}") from error


# ---------------------------------------------------------------------------------------------------------- conditions


def read(state: RunState, binding: Binding) -> Any:
    """Return the plain value of a binding, for a condition.

    Raises:
        ConditionError: it does not exist, or is an artifact, which only the user's code can load.
    """
    try:
        return _plain(binding, resolve(state, binding))
    except UnresolvableBindingError as error:
        raise ConditionError(str(error)) from error
    except RecursionError:
        raise ConditionError(f"{name_of(binding)} is nested too deeply for a condition") from None


def _plain(binding: Binding, value: Value) -> Any:
    match value:
        case values.Inline(data):
            return tagged.plain(data, members=True)
        case values.Items(items):
            return [_plain(binding, item) for item in items]
        case values.Fields(fields):
            return {name: _plain(binding, item) for name, item in fields.items()}
        case _:
            raise ConditionError(
                f"{name_of(binding)} is stored as an artifact, which a condition cannot read: "
                "return the number or text that it depends on as a separate output"
            )
