"""Hypothesis strategies for core types: names, values, bindings, pipelines, policies and facts."""

from __future__ import annotations

from functools import cache
from typing import Any

from hypothesis import strategies as st

from penstock_core.facts import (
    AttemptFinished,
    AttemptQueued,
    AttemptRequested,
    AttemptStarted,
    CancelRequested,
    ClockReached,
    ErrorInfo,
    Fact,
    Outcome,
    RunAdmitted,
    RunFinished,
    RunRequested,
    SlotGranted,
    StepCancelRequested,
    StepExpanded,
    StepReused,
    StepSkipped,
    StepSuspended,
)
from penstock_core.pipeline import values
from penstock_core.pipeline.ir import Kind, Pipeline, Retry
from penstock_core.pipeline.values import ArtifactRef, Binding, ResultRef, Value
from penstock_testkit import generators

RUN = "run0"
"""The run that most generated facts belong to."""

names: st.SearchStrategy[str] = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,11}", fullmatch=True)
"""Names of projects, pipelines, pools, runs."""

step_keys: st.SearchStrategy[str] = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_/-]{0,9}(\[[0-9]{1,3}\])?", fullmatch=True)
"""Keys of steps, such as `features/split-2[3]`."""

digests: st.SearchStrategy[str] = st.text("0123456789abcdef", min_size=64, max_size=64)

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc.\0é", max_size=3), inner, max_size=3),
    max_leaves=6,
)
"""Plain JSON data that every consumer can read: no NaN, no integer beyond 64 bits."""

artifacts: st.SearchStrategy[ArtifactRef] = st.builds(
    ArtifactRef,
    sha256=digests,
    size=st.integers(0, 2**40),
    media_type=st.sampled_from(["application/json", "application/octet-stream"]),
    format=st.sampled_from(["json", "parquet", "npy", "file"]),
    filename=st.sampled_from(["", "table.csv"]),
    unsafe=st.booleans(),
)

value: st.SearchStrategy[Value] = st.recursive(
    st.builds(values.Inline, json_values)
    | st.builds(values.Stored, artifacts)
    | st.builds(
        values.ResultOf, st.builds(ResultRef, key=step_keys, attempt=st.integers(1, 9), output=st.just("result"))
    ),
    lambda inner: (
        st.builds(values.Items, st.lists(inner, max_size=3).map(tuple))
        | st.builds(values.Lists, st.lists(inner, max_size=3).map(tuple))
        | st.builds(values.Fields, st.dictionaries(names, inner, max_size=3))
    ),
    max_leaves=4,
)
"""Values of all kinds that occur in facts."""


def bindings(nodes: list[str]) -> st.SearchStrategy[Binding]:
    """Bindings that read parameters and the outputs of `nodes`."""
    return st.recursive(
        st.builds(values.Inline, json_values)
        | st.builds(values.Param, names)
        | st.builds(values.Output, st.sampled_from(nodes), st.sampled_from(["result", "extra"])),
        lambda inner: (
            st.builds(values.BoundItems, st.lists(inner, max_size=3).map(tuple))
            | st.builds(values.BoundLists, st.lists(inner, max_size=3).map(tuple))
            | st.builds(values.BoundFields, st.dictionaries(names, inner, max_size=3))
        ),
        max_leaves=5,
    )


policies: st.SearchStrategy[Retry] = st.builds(
    Retry,
    retries=st.integers(0, 200),
    delay=st.floats(0, 1e6),
    backoff=st.floats(1, 1000),
    max_delay=st.floats(0, 1e6),
    jitter=st.floats(0, 1),
    on=st.lists(st.sampled_from(["ValueError", "OSError", "Exception"]), max_size=2).map(tuple),
)
"""Retry policies within the bounds that `ir_check.check` sets."""


@st.composite
def pipelines(draw: st.DrawFn, nodes: int = 6) -> Pipeline:
    """Pipelines with 1 to `nodes` steps in any graph, each step with its own policy."""
    return generators.pipeline(lambda n: draw(below(n)), nodes=nodes)


@cache
def below(n: int) -> st.SearchStrategy[int]:
    """Integers from 0 to n - 1."""
    return st.integers(0, n - 1)


errors: st.SearchStrategy[ErrorInfo] = st.builds(
    ErrorInfo,
    type=st.sampled_from(["ValueError", "KeyError", "Timeout", "Lost"]),
    message=st.text(max_size=5),
    bases=st.sampled_from([(), ("LookupError", "Exception")]),
)

_times = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, 1.0, 1e300, -1.0])
_attempts = st.integers(1, 4) | st.integers(1, 1_000_000)
_run_ids = st.sampled_from([RUN, RUN, RUN, RUN, RUN, RUN, "another"])


def facts(pipeline: Pipeline) -> st.SearchStrategy[Fact]:
    """Any fact of a run of `pipeline`, including unknown steps, another run, and absurd attempts and times."""
    known = tuple(node.key for node in pipeline.nodes)
    items = tuple(f"{node.key}[{n}]" for node in pipeline.nodes if node.mapped is not None for n in (0, 1, 2, 7))
    return _facts_about((*known, *known, *known, *items, *items, "unknown", "unknown[0]"))


@cache  # cached: building and validating these strategies per example took a third of the time of such tests
def _facts_about(of: tuple[str, ...]) -> st.SearchStrategy[Fact]:
    keys = st.sampled_from(of)
    outputs = st.dictionaries(st.sampled_from(["result", "extra", "other"]), value, max_size=2)
    run = st.just("p") | names
    return st.one_of(
        st.builds(RunRequested, run_id=_run_ids, project=run, pipeline=run, version=st.integers(), inputs=outputs),
        st.builds(
            AttemptRequested,
            run_id=_run_ids,
            key=keys,
            attempt=_attempts,
            pool=st.just("default"),
            project=run,
            pipeline=run,
            version=st.just(1),
            entrypoint=st.text(max_size=3),
            not_before=st.none() | _times,
        ),
        st.builds(AttemptStarted, run_id=_run_ids, key=keys, attempt=_attempts, executor=names, started_at=_times),
        st.builds(
            AttemptFinished,
            run_id=_run_ids,
            key=keys,
            attempt=_attempts,
            outcome=st.sampled_from(Outcome),
            outputs=outputs,
            error=st.none() | errors,
            finished_at=_times,
            started_at=_times,
        ),
        st.builds(
            StepSkipped,
            run_id=_run_ids,
            key=keys,
            reason=st.text(max_size=3),
            cause=st.none() | keys,
            expected=st.booleans(),
            error=st.none() | errors,
        ),
        st.builds(CancelRequested, run_id=_run_ids, reason=st.text(max_size=3)),
        st.builds(RunFinished, run_id=_run_ids, outcome=st.sampled_from(Outcome), outputs=outputs),
        _waiting_facts(keys, outputs),
    )


def _waiting_facts(
    keys: st.SearchStrategy[str], outputs: st.SearchStrategy[dict[str, Value]]
) -> st.SearchStrategy[Fact]:
    """Facts of mapped steps, limits, waits, the clock and reused results."""
    attempts: dict[str, Any] = {"run_id": _run_ids, "key": keys, "attempt": _attempts}
    return st.one_of(
        st.builds(AttemptQueued, **attempts, since=_times, start_by=st.none() | _times),
        st.builds(SlotGranted, **attempts),
        st.builds(
            StepSuspended,
            **attempts,
            kind=st.sampled_from(Kind),
            until=st.none() | _times,
            inputs=st.dictionaries(st.sampled_from(["default", "seconds"]), value, max_size=2),
        ),
        st.builds(StepExpanded, run_id=_run_ids, key=keys, count=st.integers(-2, 6), error=st.none() | errors),
        st.builds(StepCancelRequested, run_id=_run_ids, key=keys, reason=st.text(max_size=3)),
        st.builds(
            StepReused,
            run_id=_run_ids,
            key=keys,
            from_run=names,
            outputs=outputs,
            count=st.none() | st.integers(-2, 4),
        ),
        st.builds(ClockReached, run_id=_run_ids, at=st.floats(0, 1e10)),
        st.builds(RunAdmitted, run_id=_run_ids),
    )
