"""The methods for fan-out: `step.map(…)`, `step.grid(…)`, and `step.partial(…)` before either."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.authoring import options
from penstock.authoring.trace import pipeline_tracer
from penstock.authoring.trace.mapped_calls import MappedArguments

if TYPE_CHECKING:
    from penstock.authoring.trace.drafts import Definition


class Mappable:
    """A definition that can run once for each item of lists."""

    def _record_mapped(self, given: MappedArguments) -> Any:
        raise NotImplementedError

    def map(self, /, *args: Any, **lists: Any) -> Any:
        """Run the step once for each item of lists of equal length, taken pairwise.

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

    def grid(self, /, *args: Any, **lists: Any) -> Any:
        """Run the step for all combinations of the items of lists; the last input changes fastest. See `map`."""
        return self._record_mapped(MappedArguments("grid", {}, args, lists))


def fan_out(step: Definition, given: MappedArguments) -> Any:
    """Record a mapped call in the pipeline that is being compiled."""
    tracer = pipeline_tracer.active()
    if tracer is None:
        raise options.definition_error(
            f"{given.word}() can only be used inside a pipeline body; elsewhere, call the step as a plain function"
        )
    return tracer.record_mapped(step, given)
