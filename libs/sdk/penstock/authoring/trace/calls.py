"""Binds the arguments of a call: references, literals, lists and dictionaries of them, each held against its hint."""

from __future__ import annotations

import itertools
import json
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from penstock import codec, hints
from penstock.authoring.trace import references
from penstock.authoring.trace.comparisons import Condition
from penstock.authoring.trace.drafts import Compilation
from penstock.authoring.trace.references import Outputs, Reference, Spread
from penstock.hints import assignability, value_check
from penstock.hints.signature import Input
from penstock_core.errors import DefinitionError
from penstock_core.pipeline import values


@dataclass
class CallBinder:
    """One call of a step or of a pipeline: binds what it was given, and knows where the user made it.

    `what` and `word` are for errors: `step 'train'` has an `input`, `pipeline 'features'` a `parameter`. `lenient`
    says why a step that it reads, by key, may have no result, if it may: then its value is None.
    """

    tracer: Compilation
    what: str
    file: str | None
    line: int | None
    word: str = "input"
    lenient: Callable[[str], str] | None = None

    def definition_error(self, message: str) -> DefinitionError:
        """An error at the user's call."""
        return DefinitionError(message, self.file, self.line)

    def given(self, inputs: Mapping[str, Input], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments by name: each known, given once, none missing."""
        if len(args) > len(inputs):
            raise self.definition_error(f"{self.what} takes {len(inputs)} {self.word}s, but {len(args)} were given")
        given = dict(zip(inputs, args, strict=False))
        for name, value in kwargs.items():
            if name not in inputs:
                known = ", ".join(inputs) or "none"
                raise self.definition_error(f"{self.what} has no {self.word} {name!r} (its {self.word}s: {known})")
            if name in given:
                raise self.definition_error(f"{self.word} {name!r} of {self.what} is given twice")
            given[name] = value
        for name, one in inputs.items():
            if one.required and name not in given:
                raise self.definition_error(f"{self.what} requires {self.word} {name!r} ({hints.show(one.hint)})")
        return {name: given[name] for name in inputs if name in given}

    def bind_all(
        self, inputs: Mapping[str, Input], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> dict[str, values.Binding]:
        """Where each given input comes from."""
        return {
            name: self.bind(value, inputs[name].hint, f"{self.word} {name!r} of {self.what}")
            for name, value in self.given(inputs, args, kwargs).items()
        }

    def bind(self, value: Any, hint: Any, what: str) -> values.Binding:
        """Where an input comes from; what is given must fit `hint`."""
        if isinstance(value, Reference):
            return self.reference(value, hint, what)
        if isinstance(value, Outputs):
            return self.outputs(value, hint, what)
        if isinstance(value, Spread):
            raise self.definition_error(
                f"{what}: {value!r} can only be inside a list, as in [*scores, 1.0]: the number of its items is unknown"
            )
        if isinstance(value, Condition):
            raise self.definition_error(
                f"{what}: {value!r} can only be given to when(): compare inside the step instead"
            )
        if contains_reference(value):
            return self.collection(value, hint, what)
        return self.literal(value, hint, what)

    def reference(self, value: Reference, hint: Any, what: str) -> values.Binding:
        """Where a reference comes from; its hint must fit."""
        if references.parts(value)[0] is not self.tracer:
            raise self.definition_error(
                f"{what}: {value!r} belongs to another pipeline or to an earlier compilation of this one"
            )
        binding, source = references.target(value)
        if not assignability.is_assignable(source, hint):
            raise self.definition_error(f"{what} takes {hints.show(hint)}, but {value!r} is {hints.show(source)}")
        reasons = (self.lenient(source.node) for source in values.sources(binding)) if self.lenient else ()
        reason = next((reason for reason in reasons if reason), "")
        if reason and not assignability.is_assignable(type(None), hint):
            raise self.definition_error(
                f"{what} takes {hints.show(hint)}, but {value!r} may be None, {reason}: declare it as "
                f"{hints.show(hint)} | None"
            )
        if isinstance(binding, values.Inline) and hint != source:
            # A literal that went through a pipeline's parameter was written for that one's hint, not for this reader's.
            return values.Inline(codec.plain(codec.decode(binding.value, source), hint))
        return binding

    def outputs(self, value: Outputs, hint: Any, what: str) -> values.Binding:
        """Several outputs given as one: their NamedTuple must be what is expected."""
        inner, named = references.whole(value)
        if named not in [hints.class_of(option) for option in hints.members(hint)]:
            raise self.definition_error(
                f"{what} takes {hints.show(hint)}, but was given {value!r}: pass one of them, such as "
                f".{next(iter(inner), 'name')}"
            )
        fields = hints.fields(named)
        return values.BoundFields({name: self.bind(one, fields[name], what) for name, one in inner.items()})

    def collection(self, value: Any, hint: Any, what: str) -> values.Binding:
        """A list, tuple or dictionary in which references stand: its items are bound one by one."""
        if not isinstance(value, list | tuple | dict):
            raise self.definition_error(
                f"{what}: references cannot be inside a {type(value).__name__}; use a list or a dictionary"
            )
        shape: Any = type(value)
        if not hints.is_named_tuple(shape):
            # The plain class, not one made to be returned by pipelines.
            shape = dict if isinstance(value, dict) else list if isinstance(value, list) else tuple
        errors: list[DefinitionError] = []
        for option in hints.members(hint):
            if not assignability.is_assignable(shape, option) and not (
                isinstance(value, list) and assignability.is_assignable(tuple, option)
            ):
                continue
            try:
                return self.items(value, option, what)
            except DefinitionError as error:
                errors.append(error)
        raise (
            errors[0]
            if errors
            else self.definition_error(
                f"{what} takes {hints.show(hint)}, but was given a {shape.__name__} of references"
            )
        )

    def items(self, value: Any, hint: Any, what: str) -> values.Binding:
        """The items of a collection, each bound under its own hint."""
        if isinstance(value, dict):
            entries = cast("dict[Any, Any]", value)
            odd = [key for key in entries if not isinstance(key, str)]
            if odd:
                raise self.definition_error(
                    f"{what}: keys of a dictionary of references must be strings, not {odd[0]!r}"
                )
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
        if any(isinstance(one, Spread) for one in entries):
            return self.lists(entries, hint, what)
        return values.BoundItems(
            tuple(self.bind(one, hints.item(hint, i), f"{what}, item {i}") for i, one in enumerate(entries))
        )

    def lists(self, entries: Sequence[Any], hint: Any, what: str) -> values.Binding:
        """The items of a list, some of which are all items of other lists."""
        if hints.class_of(hint) is tuple and typing.get_args(hint)[-1:] not in ((), (Ellipsis,)):
            raise self.definition_error(f"{what} takes {hints.show(hint)}, but the number of items given is unknown")
        inner = hints.item(hint)
        parts: list[values.Binding] = []
        for several, found in itertools.groupby(enumerate(entries), lambda one: isinstance(one[1], Spread)):
            if several:
                parts += [self.spread(one, inner, f"{what}, item {i}") for i, one in found]
            else:
                parts.append(values.BoundItems(tuple(self.bind(one, inner, f"{what}, item {i}") for i, one in found)))
        return values.BoundLists(tuple(parts))

    def spread(self, value: Spread, hint: Any, what: str) -> values.Binding:
        """A list of which all items are items of another; each must fit `hint`."""
        reference = references.spread(value)
        source = references.target(reference)[1]
        for option in hints.members(source):
            if not assignability.is_assignable(hints.item(option), hint):
                raise self.definition_error(
                    f"{what} takes {hints.show(hint)}, but {reference!r} is {hints.show(source)}"
                )
        return self.reference(reference, source, what)

    def literal(self, value: Any, hint: Any, what: str) -> values.Binding:
        """A plain value: it is written into the pipeline."""
        found = value_check.problem(value, hint)
        if found is not None:
            raise self.definition_error(f"{what} takes {hints.show(hint)}, but {found}")
        try:
            data = codec.plain(value, hint)
        except codec.NotJsonError as error:
            raise self.definition_error(
                f"{what}: {hints.short_repr(value)} cannot be stored in the pipeline definition: {error}. "
                "Create it in a step, or pass plain data"
            ) from error
        if not isinstance(data, bool | int | float | None) and len(json.dumps(data)) > values.INLINE_LIMIT:
            raise self.definition_error(
                f"{what}: the value is larger than {values.INLINE_LIMIT // 1024} KiB: load it in a step instead"
            )
        return values.Inline(data)


def contains_reference(value: Any) -> bool:
    """Whether references stand in lists, tuples, sets and dictionaries, directly or deeper."""
    if isinstance(value, Reference | Outputs | Condition | Spread):
        return True
    if isinstance(value, list | tuple | set | frozenset):
        return any(contains_reference(entry) for entry in cast("list[Any]", value))
    if isinstance(value, dict):
        return any(contains_reference(entry) for entry in cast("dict[Any, Any]", value).values())
    return False
