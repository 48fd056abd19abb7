"""Check that the steps of a pipeline agree on the sizes of the limits that they share."""

from __future__ import annotations

from penstock_core.errors import DefinitionError
from penstock_core.pipeline.ir import Pipeline, StepSpec


def check(pipeline: Pipeline) -> None:
    """Check that all steps declare the same size for the same limit.

    Raises:
        DefinitionError: two differ; with the file and line of the second.
    """
    sizes: dict[str, StepSpec] = {}
    for spec in pipeline.steps.values():
        if spec.concurrency is None or spec.concurrency_max is None:
            continue
        first = sizes.setdefault(spec.concurrency, spec)
        if first.concurrency_max != spec.concurrency_max:
            raise DefinitionError(
                f"step {spec.name!r} has concurrency '{spec.concurrency}:{spec.concurrency_max}', but step "
                f"{first.name!r} has '{first.concurrency}:{first.concurrency_max}': one limit has one size",
                spec.file,
                spec.line,
            )
