"""Placeholders for values while a pipeline is compiled.

A `Reference` is one value that the run will know: a parameter, an output of a step, or a part of one. `Outputs` are
the several outputs of one step, or of one call of a pipeline. They can be given to steps and pipelines, and compared
for `when`, and nothing else: see `traps`.
"""

from __future__ import annotations

import collections.abc
import typing
from collections.abc import Iterator
from typing import Any, NoReturn, cast

from penstock import codec, hints, tracebacks
from penstock.authoring.trace import comparisons, field_hints, joined_list_check
from penstock.authoring.trace.comparisons import Comparable
from penstock.authoring.trace.drafts import Compilation, Draft, Group
from penstock.authoring.trace.placeholders import Placeholder, refuse
from penstock_core.errors import DefinitionError
from penstock_core.pipeline import values


class Reference(Comparable):
    """A placeholder for one value of the run. `text` describes it where its binding does not.

    Of small results, fields and items are references too: `best.accuracy`, `metrics["auc"]`, `scores[0]`.
    """

    __slots__ = ()

    def __init__(
        self,
        tracer: Compilation,
        binding: values.Binding,
        hint: Any,
        owner: Draft | Group | None = None,
        text: str = "",
    ) -> None:
        self._tracer = tracer
        self._binding = binding
        self._hint = hint
        self._owner = owner
        self._text = text

    def _describe(self) -> str:
        if self._text:
            return self._text
        match self._binding:
            case values.Param(name):
                return f"parameter {name!r}"
            case values.Output(node, "result"):
                return f"the result of step {node!r}"
            case values.Output(node, output):
                return f"output {output!r} of step {node!r}"
            case _:
                return "a reference"

    def after(self, *others: Any) -> Reference:
        """Let this step start only when the steps of `others` have succeeded; returns the reference itself."""
        _after(self, others)
        return self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return _pick(self, name, attribute=True)

    def __iter__(self) -> Iterator[Any]:
        """The items of a tuple of known length: `low, high = limits()`; for `[*scores, 1.0]`, all of a list as one."""
        operation = tracebacks.operation()
        items = self._parts(operation)
        if operation in _SPREADING and isinstance(items[0], Spread):
            _check_unmeasured(self)
        return iter(items)

    def __len__(self) -> int:
        return len(self._parts(tracebacks.operation()))

    def _parts(self, operation: str) -> list[Any]:
        hint = hints.strip(target(self)[1])
        items = typing.get_args(hint) if hints.class_of(hint) is tuple else ()
        if items and items[-1] is not Ellipsis:
            return [self[index] for index in range(len(items))]
        if operation not in _SPREADING or not (is_list(hint) or hints.class_of(hint) is tuple):
            refuse(self, "walked through or measured")
        return [Spread(self)]

    def __add__(self, other: Any) -> list[Any]:
        joined = [*_list(self), *_list(other, self)]
        _check_unmeasured(self)
        return joined

    def __radd__(self, other: Any) -> list[Any]:
        joined = [*_list(other, self), *_list(self)]
        _check_unmeasured(self)
        return joined

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, int) and not isinstance(key, bool) and key < 0:
            raise DefinitionError(f"items of {self!r} do not support negative indexes: [{key}]", *tracebacks.caller())
        if not isinstance(key, int | str) or isinstance(key, bool):
            refuse(self, "indexed with anything but one index or one name")
        return _pick(self, key, attribute=False)


def _check_unmeasured(reference: Reference) -> None:
    """Refuse to join a list whose length the code around it reads."""
    frame = tracebacks.user_frame()
    found = joined_list_check.measured(frame) if frame is not None else None
    if frame is not None and found is not None:
        raise DefinitionError(
            f"{reference!r} has no value yet while the pipeline is compiled, so the number of items of a list that "
            f"contains all of its items is unknown: '{found[0]}' depends on it. Pass the list to a step, and do this "
            "inside the step",
            frame.f_code.co_filename,
            found[1],
        )


_SPREADING = frozenset({"LIST_EXTEND", "BINARY_OP"})
"""Operations that copy the items of a list into another: `[*scores, 1.0]`, `found += scores`."""

_LISTS: tuple[Any, ...] = (list, collections.abc.Sequence, collections.abc.MutableSequence)


class Spread(Placeholder):
    """All items of a list whose length the run will know, as one element of a list that is given to a step."""

    __slots__ = ("_reference",)

    def __init__(self, reference: Reference) -> None:
        self._reference = reference

    def _describe(self) -> str:
        return f"*({self._reference!r})"


def spread(found: Spread) -> Reference:
    """The list of which these are all items; for this package only."""
    return found._reference  # pyright: ignore[reportPrivateUsage]


def is_list(hint: Any) -> bool:
    """Whether values of a hint are lists, as far as it shows."""
    return all(option is Any or hints.class_of(option) in _LISTS for option in hints.members(hint))


def _list(given: Any, other: Reference | None = None) -> list[Any]:
    """The items of an operand of `+`: a list, or a reference of one."""
    if isinstance(given, Reference):
        hint = hints.strip(target(given)[1])
        if hint is not Any and is_list(hint):
            return [Spread(given)]
        refuse(given, "calculated with")
    if isinstance(given, list):
        return cast("list[Any]", given)
    refuse(given if other is None else other, "calculated with")


def _pick(reference: Reference, name: int | str, *, attribute: bool) -> Reference:
    """A field or an item of a value."""
    tracer, owner = parts(reference)
    binding, hint = target(reference)
    try:
        inner = field_hints.part(hint, name, attribute=attribute)
    except field_hints.NoFieldError as error:
        if not str(error):
            refuse(reference, f"accessed by attribute {name!r}" if attribute else f"indexed with {name!r}")
        raise DefinitionError(f"{reference!r} is {hints.show(hint)}, which {error}", *tracebacks.caller()) from None
    text = f"{reference!r}, {f'field {name!r}' if isinstance(name, str) else f'item {name}'}"
    match binding:
        case values.Inline(data):
            picked: values.Binding = _inside(data, hint, name, inner)
        case values.Pick(of, path):
            picked = values.Pick(of, (*path, name))
        case _:
            picked = values.Pick(binding, (name,))
    return Reference(tracer, picked, inner, owner, text)


def _inside(data: Any, hint: Any, name: int | str, inner: Any) -> values.Inline:
    """A part of a literal that went through a pipeline's parameter."""
    whole = codec.decode(data, hint)
    try:
        found = getattr(whole, name) if isinstance(name, str) and not isinstance(whole, dict) else whole[name]
    except (LookupError, AttributeError, TypeError):
        raise DefinitionError(f"{hints.short_repr(whole)} has no {name!r}", *tracebacks.caller()) from None
    return values.Inline(codec.plain(found, inner))


class Outputs(Placeholder):
    """The outputs of a step that returns a NamedTuple: `parts.train`, or `train, test = split(table)`.

    The outputs of a pipeline call may contain `Outputs` and collections besides references.
    """

    __slots__ = ("_named", "_owner", "_references", "_tracer")

    def __init__(
        self, tracer: Compilation, owner: Draft | Group | None, references: dict[str, Any], named: type
    ) -> None:
        self._tracer = tracer
        self._owner = owner
        self._references = references
        self._named = named

    def _describe(self) -> str:
        return f"the outputs ({', '.join(self._references)}) of {self._what()}"

    def _what(self) -> str:
        return self._owner.what if self._owner is not None else "one_of()"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        if name in self._references:
            return self._references[name]
        raise DefinitionError(
            f"{self._what()} has no output {name!r} (its outputs: {', '.join(self._references)})",
            *tracebacks.caller(),
        )

    def __iter__(self) -> Iterator[Any]:
        return iter(self._references.values())

    def __len__(self) -> int:
        return len(self._references)

    def __getitem__(self, key: int | str) -> Any:
        if isinstance(key, int) and -len(self._references) <= key < len(self._references):
            return list(self._references.values())[key]
        return self.__getattr__(str(key))

    def after(self, *others: Any) -> Outputs:
        """Let this step start only when the steps of `others` have succeeded; returns the outputs themselves."""
        _after(self, others)
        return self


class _OutputCollection:
    """A collection of references that a call of a pipeline returned; it is the plain one, and can come `.after`."""

    _tracer: Compilation
    _owner: Draft | Group

    def of(self, tracer: Compilation, owner: Draft | Group) -> Any:
        """Say which call returned it; returns itself."""
        self._tracer, self._owner = tracer, owner
        return self

    def after(self, *others: Any) -> Any:
        """Let the steps of this pipeline start only when those of `others` have succeeded; returns itself."""
        _after(cast("Any", self), others)
        return self


class OutputList(_OutputCollection, list[Any]):
    """A list that a call of a pipeline returned."""


class OutputTuple(_OutputCollection, tuple[Any, ...]):
    """A tuple that a call of a pipeline returned."""


class OutputDict(_OutputCollection, dict[str, Any]):
    """A dictionary that a call of a pipeline returned; its entries are attributes too: `found.model`."""

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        if name.startswith("_"):
            raise AttributeError(name)
        _unknown(self, name)

    def __missing__(self, name: object) -> NoReturn:
        _unknown(self, name)


def _unknown(outputs: OutputDict, name: object) -> NoReturn:
    owner = parts(outputs)[1]
    what = owner.what if owner is not None else "it"
    raise DefinitionError(f"{what} has no output {name!r} (its outputs: {', '.join(outputs)})", *tracebacks.caller())


def parts(placeholder: Reference | Outputs | _OutputCollection) -> tuple[Compilation, Draft | Group | None]:
    """The compilation and the call that a reference belongs to; for this package only."""
    return placeholder._tracer, placeholder._owner  # pyright: ignore[reportPrivateUsage]


def target(reference: Reference) -> tuple[values.Binding, Any]:
    """The binding and the hint of a reference; for this package only."""
    return comparisons.inspect_reference(reference)[1:]


def whole(outputs: Outputs) -> tuple[dict[str, Any], type]:
    """The references of a step's outputs and their NamedTuple class; for this package only."""
    return outputs._references, outputs._named  # pyright: ignore[reportPrivateUsage]


def _after(placeholder: Reference | Outputs | _OutputCollection, others: tuple[Any, ...]) -> None:
    tracer, owner = parts(placeholder)
    if owner is None:
        raise DefinitionError(
            f"{placeholder!r} is not a result of a step: only steps can run after others", *tracebacks.caller()
        )
    earlier: dict[str, None] = {}
    for other in others:
        if not isinstance(other, Reference | Outputs | _OutputCollection):
            _not_a_step(other)
        other_tracer, before = parts(other)
        if before is None or other_tracer is not tracer:
            _not_a_step(other)
        earlier.update((draft.key, None) for draft in _require_calls(before, before.last_calls()))
    for draft in _require_calls(owner, owner.first_calls()) if others else ():
        draft.after.extend(key for key in earlier if key not in draft.after)


def _not_a_step(other: object) -> NoReturn:
    raise DefinitionError(f".after() takes what steps of this pipeline return, not {other!r}", *tracebacks.caller())


def _require_calls(owner: Draft | Group, found: list[Draft]) -> list[Draft]:
    """Refuse an order without effect: one side has no calls."""
    if isinstance(owner, Group) and not owner.ordered():
        raise DefinitionError(f"{owner.what} calls no step, so .after() has no effect", *tracebacks.caller())
    return found
