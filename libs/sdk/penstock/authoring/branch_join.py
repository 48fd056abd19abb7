"""`one_of`: the first available of several results, after branches of which only one has run."""

from __future__ import annotations

import typing
from typing import Any

from penstock import hints, tracebacks
from penstock.authoring import options
from penstock.authoring.trace import pipeline_tracer, references
from penstock.authoring.trace.calls import CallBinder
from penstock.authoring.trace.placeholders import Placeholder
from penstock.authoring.trace.references import Outputs, Reference
from penstock_core.pipeline import conditions, values


def one_of(first: Any, *others: Any) -> Any:
    """Return the first available of several results; joins the branches of `when` and `otherwise`.

    Args:
        first: a result, or all outputs of a step.
        *others: further results, or a plain value as the last resort.

    Returns:
        A reference; its type is the union of theirs.

    Raises:
        DefinitionError: it is used outside a pipeline body, or with arguments that are not results.
    """
    tracer = pipeline_tracer.active()
    if tracer is None:
        raise options.definition_error("one_of() can only be used inside a pipeline body; in a step, use 'if'")
    given = (first, *others)
    placeholder = [one for one in given if isinstance(one, Reference | Outputs)]
    odd = next(
        (one for one in given if isinstance(one, Placeholder) and not isinstance(one, Reference | Outputs)), None
    )
    if odd is not None or len(given) < 2 or not placeholder or not isinstance(first, Reference | Outputs):
        raise options.definition_error("one_of() takes at least two results of steps; the last may be a plain value")
    plain = next((one for one in given[:-1] if not isinstance(one, Reference | Outputs)), None)
    if plain is not None:
        raise options.definition_error(
            f"one_of(): {hints.short_repr(plain)} is always available, so arguments after it are never used"
        )
    foreign = next((one for one in placeholder if references.parts(one)[0] is not tracer), None)
    if foreign is not None:
        raise options.definition_error(
            f"{foreign!r} belongs to another pipeline or to an earlier compilation of this one"
        )
    call = CallBinder(tracer, "one_of()", *tracebacks.caller())
    if any(isinstance(one, Outputs) for one in given):
        return _of_outputs(call, given)
    return _reference(call, given)


def _reference(call: CallBinder, given: tuple[Any, ...]) -> Reference:
    found = [
        references.target(one) if isinstance(one, Reference) else (call.literal(one, Any, "one_of()"), type(one))
        for one in given
    ]
    kinds = [hint for _, hint in found]
    hint = Any if Any in kinds else typing.Union[tuple(kinds)]  # noqa: UP007 - made at run time
    binding = values.OneOf(tuple(binding for binding, _ in found))
    return Reference(call.tracer, binding, hint, None, conditions.name_of(binding))


def _of_outputs(call: CallBinder, given: tuple[Any, ...]) -> Outputs:
    kinds = {references.whole(one)[1] if isinstance(one, Outputs) else None for one in given}
    if len(kinds) > 1:
        raise call.definition_error(
            "one_of() takes steps with several outputs only if all return the same NamedTuple: pass one output of each"
        )
    named = references.whole(given[0])[1]
    fields = {name: [references.whole(one)[0][name] for one in given] for name in references.whole(given[0])[0]}
    odd = next(
        (name for name, several in fields.items() if not all(isinstance(one, Reference) for one in several)), None
    )
    if odd is not None:
        raise call.definition_error(f"one_of(): output {odd!r} combines several results: pass these to one_of()")
    chosen = {name: _reference(call, tuple(several)) for name, several in fields.items()}
    return Outputs(call.tracer, None, chosen, named)
