"""Which pipelines a warm worker can run: all of their steps in one process, at once, without the scheduler."""

from __future__ import annotations

from collections.abc import Iterator

from penstock_core.deployments.definition import Problem
from penstock_core.pipeline.ir import Kind, Pipeline, StepSpec


def problems(pipeline: Pipeline) -> list[Problem]:
    """Return what of a pipeline a deployment with mode `low_latency` cannot run, each with its path."""
    found = [(f"steps.{spec.name}", message) for spec in pipeline.steps.values() for message in _step_problems(spec)]
    if not pipeline.steps:
        found.append(("steps", "has no steps: an endpoint with mode 'low_latency' needs one"))
    if pipeline.max_active is not None:
        found.append(("max_active", "limits active runs, which mode 'low_latency' does not: use Endpoint(queue=…)"))
    functions = [spec for spec in pipeline.steps.values() if spec.kind is Kind.FUNCTION]
    if len(pools := sorted({spec.pool for spec in functions})) > 1:
        names = ", ".join(pools)
        found.append(
            ("steps", f"run in the pools {names}; with mode 'low_latency', all run in one process: use one pool")
        )
    if len(environments := sorted({spec.environment or "none" for spec in functions})) > 1:
        names = ", ".join(environments)
        found.append(
            ("steps", f"run in the environments {names}; with mode 'low_latency', all run in one process: use one")
        )
    env: dict[str, str] = {}
    for spec in functions:
        for name, value in spec.env.items():
            if env.setdefault(name, value) != value:
                message = f"sets the environment variable {name} to another value than an earlier step"
                found.append((f"steps.{spec.name}", message))
    return found


def _step_problems(spec: StepSpec) -> Iterator[str]:
    place = f" ({spec.file}:{spec.line})" if spec.file and spec.line else ""
    if spec.kind is not Kind.FUNCTION:
        yield f"waits ({spec.kind.value}){place}, which needs mode 'elastic'"
    if spec.concurrency is not None:
        yield f"has the limit {spec.concurrency!r}{place}: mode 'low_latency' has Endpoint(max_workers=…) instead"
    if spec.nodes > 1:
        yield f"has {spec.nodes} nodes{place}, which needs mode 'elastic'"
    if spec.stream and spec.retry.retries:
        yield f"yields items and has retries{place}: a client cannot take back the items that it has received"
    if spec.secrets:
        yield f"has secrets{place}, which needs mode 'elastic'"
