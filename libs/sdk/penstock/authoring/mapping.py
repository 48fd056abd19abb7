"""How users ask for fan-out: `step.map(…)`, `step.grid(…)`, and `step.partial(…)` before either."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from penstock.authoring import options
from penstock.authoring.trace import pipeline_tracer
from penstock.authoring.trace.mapped_calls import MappedArguments

if TYPE_CHECKING:
    from penstock.authoring.steps import Step
    from penstock.authoring.trace.drafts import Definition


class Mappable:
    """What can be done for each item of lists."""

    def _record_mapped(self, given: MappedArguments) -> Any:
        raise NotImplementedError

    def map(self, *args: Any, **lists: Any) -> Any:
        """Do the step once for each item of lists, which are taken side by side and must be of equal length.

        Args:
            *args: lists for the inputs in their order.
            **lists: lists by input: literals, parameters of the pipeline, results hinted `list[…]`, results of other
                mapped steps, or lists of results.

        Returns:
            The list of the results, in order; for a step with several outputs, a list of each.

        Raises:
            DefinitionError: it is used outside a pipeline's body, or the inputs do not fit.
        """
        return self._record_mapped(MappedArguments("zip", {}, args, lists))

    def grid(self, *args: Any, **lists: Any) -> Any:
        """Do the step for all combinations of the items of lists; the last input changes fastest. See `map`."""
        return self._record_mapped(MappedArguments("grid", {}, args, lists))


def fan_out(step: Definition, given: MappedArguments) -> Any:
    """Record a mapped call in the pipeline whose body runs now."""
    tracer = pipeline_tracer.active()
    if tracer is None:
        raise options.definition_error(
            f"{given.word}() belongs into the body of a pipeline; elsewhere call the step as the function that it is"
        )
    return tracer.record_mapped(step, given)


class Partial(Mappable):
    """A step with some of its inputs given: call it with the others, or `map` it over them."""

    def __init__(self, step: Step[..., Any], fixed: dict[str, Any]) -> None:
        self._step = step
        self._fixed = fixed

    def __repr__(self) -> str:
        return f"<{self._step!r} with {', '.join(self._fixed) or 'no inputs'} given>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the step with the inputs that are given and these."""
        free = [name for name in self._step.signature.inputs if name not in self._fixed]
        if len(args) > len(free):
            raise options.definition_error(f"{self!r} takes {len(free)} more inputs, but {len(args)} were given")
        self._check_new(kwargs)
        twice = next((name for name in free[: len(args)] if name in kwargs), None)
        if twice is not None:
            raise options.definition_error(f"input {twice!r} of step {self._step.name!r} is given twice")
        call: Callable[..., Any] = self._step
        return call(**self._fixed, **dict(zip(free, args, strict=False)), **kwargs)

    def partial(self, *args: Any, **inputs: Any) -> Partial:
        """Give further inputs."""
        free = [name for name in self._step.signature.inputs if name not in self._fixed]
        if len(args) > len(free):
            raise options.definition_error(f"{self!r} takes {len(free)} more inputs, but {len(args)} were given")
        named = dict(zip(free, args, strict=False))
        self._check_new(inputs)
        both = next((name for name in inputs if name in named), None)
        if both is not None:
            raise options.definition_error(f"input {both!r} of step {self._step.name!r} is given twice")
        return Partial(self._step, {**self._fixed, **named, **inputs})

    def with_options(self, **changed: Any) -> Partial:
        """The same with other options of the step; see `Step.with_options`."""
        return Partial(self._step.with_options(**changed), self._fixed)

    def _record_mapped(self, given: MappedArguments) -> Any:
        return fan_out(self._step, MappedArguments(given.mode, self._fixed, given.args, given.lists))

    def _check_new(self, inputs: dict[str, Any]) -> None:
        for name in inputs:
            if name in self._fixed:
                raise options.definition_error(f"input {name!r} of step {self._step.name!r} is given twice")
            if name not in self._step.signature.inputs:
                known = ", ".join(self._step.signature.inputs) or "none"
                raise options.definition_error(f"step {self._step.name!r} has no input {name!r} (its inputs: {known})")
