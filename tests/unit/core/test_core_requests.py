"""Run requests: one builder validates them, so that every request path reports the same errors."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_core import access, requests, run_events, tracing
from penstock_core.capacity import Available
from penstock_core.errors import InvalidInputsError
from penstock_core.facts import CacheMode, Caller, RunRequested, StepSuspended
from penstock_core.json_schema import mismatch
from penstock_core.pipeline.ir import Kind, Node, Pipeline, Port, StepSpec
from penstock_core.pipeline.values import ArtifactRef, Inline, Items, ResultOf, ResultRef, Stored
from penstock_core.registry.errors import NotFoundError
from penstock_core.registry.facts import ModelRegistered
from penstock_core.requests import Inputs, Options, Target
from penstock_core.run import child_runs

INT, TEXT = {"type": "integer"}, {"type": "string"}


@pytest.mark.parametrize(
    ("value", "schema", "words"),
    [
        (3, INT, None),
        (3.0, INT, "expected int, got 3.0"),
        (True, INT, "expected int, got true"),
        ("3", INT, 'expected int, got "3"'),
        (None, INT, "expected int, got null"),
        (3, {"type": "number"}, None),
        (2.5, {"type": "number"}, None),
        (False, {"type": "number"}, "expected float, got false"),
        (False, {"type": "boolean"}, None),
        (0, {"type": "boolean"}, "expected bool (true or false), got 0"),
        ("x", TEXT, None),
        (None, {"type": "null"}, None),
        ([1], {"type": "array"}, None),
        ({}, {"type": "array"}, "expected list such as [1, 2], got {}"),
        ([1, "x"], {"type": "array", "items": INT}, '[1]: expected int, got "x"'),
        (
            [[1], [None]],
            {"type": "array", "items": {"type": "array", "items": INT}},
            "[1][0]: expected int, got null",
        ),
        ({"a": 1}, {"type": "object", "additionalProperties": INT}, None),
        ({"a": "1"}, {"type": "object", "additionalProperties": INT}, 'a: expected int, got "1"'),
        ({"a": 1}, {"type": "object", "properties": {"a": TEXT}}, "a: expected str, got 1"),
        (
            {"b": 1},
            {"type": "object", "properties": {}, "additionalProperties": False},
            "b: unknown field (fields: none)",
        ),
        ({}, {"type": "object", "required": ["a"]}, "a: missing"),
        ([{"a": 1}], {"items": {"properties": {"a": TEXT}}}, "[0].a: expected str, got 1"),
        ("b", {"enum": ["a", "b"]}, None),
        ("c", {"enum": ["a", "b"]}, 'expected one of "a", "b", got "c"'),
        (True, {"enum": [1]}, "expected 1, got true"),
        (1, {"const": 1}, None),
        (2, {"const": 1}, "expected 1, got 2"),
        (None, {"anyOf": [INT, {"type": "null"}]}, None),
        ("x", {"anyOf": [INT, {"type": "null"}]}, 'expected int or None, got "x"'),
        (
            [1, "x"],
            {"anyOf": [{"type": "array", "items": TEXT}, {"type": "null"}]},
            "[0]: expected str, got 1",
        ),
        ("x", {"type": ["integer", "string"]}, None),
        (1.5, {"type": ["integer", "string"]}, "expected int or str, got 1.5"),
        ("x" * 100, INT, f'expected int, got text ("{"x" * 39}…)'),
        ("anything", None, None),
        ("anything", {}, None),
        ("anything", {"$ref": "#/$defs/X"}, None),
        ("x", {"type": "odd"}, None),
    ],
)
def test_input_types(value: Any, schema: dict[str, Any] | None, words: str | None) -> None:
    assert mismatch(value, schema) == words


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


KEYWORDS = ["type", "enum", "const", "items", "properties", "required", "additionalProperties", "anyOf"]
SCHEMAS = st.recursive(
    JSON,
    lambda inner: st.dictionaries(st.sampled_from(KEYWORDS), inner | st.lists(inner, max_size=2), max_size=4),
    max_leaves=6,
)


@given(JSON, SCHEMAS)
def test_no_value_or_schema_breaks_the_check(value: Any, schema: Any) -> None:
    """The schema in a registered version may be anything."""
    mismatch(value, schema)
    mismatch([value], {"items": schema})
    mismatch({"a": value}, {"properties": {"a": schema}, "required": ["a"]})


def test_defaults_are_filled_in_pipeline_order() -> None:
    params = (Port(name="a"), Port(name="b", required=False, default=[1]), Port(name="c", required=False))
    found = requests.check_inputs(
        Pipeline(name="p", params=params), Inputs(given={"c": {"artifact": "mine"}, "a": None})
    )
    assert list(found.items()) == [("a", Inline(None)), ("b", Inline([1])), ("c", Inline({"artifact": "mine"}))]


def test_artifact_references() -> None:
    params = (Port(name="a", schema=INT),)
    reference = {"sha256": "0" * 64, "size": 3}
    assert requests.check_inputs(Pipeline(name="p", params=params), Inputs(given={"a": {"artifact": reference}})) == {
        "a": Stored(ArtifactRef(sha256="0" * 64, size=3, media_type="application/octet-stream", format="file"))
    }
    for wrong in ({"sha256": "0" * 64}, reference | {"sha256": "0" * 63}, reference | {"size": "many"}):
        with pytest.raises(InvalidInputsError) as caught:
            requests.check_inputs(Pipeline(name="p", params=params), Inputs(given={"a": {"artifact": wrong}}))
        assert [field for field, _ in caught.value.errors] == ["inputs.a"]


@pytest.mark.parametrize(("length", "fits"), [(64 * 1024 - 2, True), (64 * 1024 - 1, False)])
def test_the_limit_of_an_inline_value(length: int, fits: bool) -> None:
    params = (Port(name="a"),)
    if fits:
        requests.check_inputs(Pipeline(name="p", params=params), Inputs(given={"a": "x" * length}))
    else:
        with pytest.raises(InvalidInputsError):
            requests.check_inputs(Pipeline(name="p", params=params), Inputs(given={"a": "x" * length}))


# ------------------------------------------------------------------------------------------------------------ requests

STEP = StepSpec(name="fit", entrypoint="m:fit")
TRAINING = Pipeline(
    name="training",
    params=(
        Port(name="n", type="int", schema=INT),
        Port(name="label", type="str", required=False, default="a", schema=TEXT),
    ),
    steps={"fit": STEP},
    nodes=(Node(key="fit", step="fit"),),
    deadline=60.0,
)
TARGET = Target(project="default", pipeline=TRAINING, version=3)
MANUAL = Options(trigger={"type": "manual"})
NOW = 1000.0


def errors_of(inputs: Inputs, options: Options = MANUAL) -> dict[str, str]:
    with pytest.raises(InvalidInputsError) as caught:
        requests.build("r1", TARGET, inputs, options, NOW)
    return dict(caught.value.errors)


def test_a_pool_without_executors_is_refused_with_the_pools_that_there_are() -> None:
    step = replace(STEP, pool="gpu", file="flows.py", line=7)
    pipeline = replace(TRAINING, steps={"fit": step})

    def problems(known: Collection[str] | None) -> str:
        available = None if known is None else Available(pools=known)
        target = replace(TARGET, pipeline=pipeline, available=available)
        try:
            requests.build("r1", target, Inputs(given={"n": 1}), MANUAL, NOW)
        except InvalidInputsError as error:
            return error.detail
        return ""

    assert problems(None) == problems(["cpu", "gpu"]) == ""
    where = "steps.fit.pool: no executor serves pool 'gpu' (flows.py:7)"
    assert problems(["default", "cpu"]) == f"{where}; the pools are: cpu, default"
    assert problems([]) == f"{where}; there are no executors"


def test_a_request_includes_defaults_deadline_and_options() -> None:
    options = Options(
        trigger={"type": "manual"},
        requested_by="user:ada",
        labels={"team": "a"},
        priority=2,
        deadline=5.0,
        cache=CacheMode.REFRESH,
        refresh=["fit", "fit"],
    )
    assert requests.build("r1", TARGET, Inputs(given={"n": 1}), options, NOW) == RunRequested(
        run_id="r1",
        project="default",
        pipeline="training",
        version=3,
        inputs={"n": Inline(1), "label": Inline("a")},
        trigger={"type": "manual"},
        labels={"team": "a"},
        priority=2,
        requested_at=NOW,
        deadline=1005.0,
        cache=CacheMode.REFRESH,
        refresh=("fit",),
        requested_by="user:ada",
    )


def test_the_requests_deadline_overrides_the_pipelines() -> None:
    assert requests.build("r1", TARGET, Inputs(given={"n": 1}), MANUAL, NOW).deadline == 1060.0
    never = replace(TARGET, pipeline=replace(TRAINING, deadline=None))
    assert requests.build("r1", never, Inputs(given={"n": 1}), MANUAL, NOW).deadline is None


def test_a_request_records_which_of_its_pools_are_limited() -> None:
    """Scheduler replicas decide by the recorded limits, regardless of later changes."""
    limited = replace(TARGET, limited_pools={"default", "elsewhere"})
    assert requests.build("r1", limited, Inputs(given={"n": 1}), MANUAL, NOW).limited_pools == ("default",)


def test_all_problems_are_listed_at_once() -> None:
    options = Options(trigger={}, labels={"": "x", "a" * 101: "x", "b": "x" * 1001, "fine": "x"}, refresh=["fitt"])
    found = errors_of(Inputs(given={"n": "3", "lable": 1, "label": 2}), options)
    assert list(found) == [
        "inputs.lable",
        "inputs.n",
        "inputs.label",
        "labels.",
        f"labels.{'a' * 100}",
        "labels.b",
        "refresh",
    ]
    assert found["inputs.lable"] == "unknown parameter (parameters: n, label); did you mean 'label'?"
    assert found["refresh"] == "there is no step 'fitt' (steps: fit)"
    with pytest.raises(InvalidInputsError, match=r"^Invalid run request for .*: inputs\.n: missing, expected int"):
        requests.build("r1", TARGET, Inputs(given={}), MANUAL, NOW)


def test_nothing_is_refreshed_with_the_cache_off() -> None:
    assert list(errors_of(Inputs(given={"n": 1}), Options(trigger={}, cache=CacheMode.OFF, refresh=["fit"]))) == [
        "refresh"
    ]


def test_earlier_values_are_used_when_none_is_given() -> None:
    earlier = {"n": Inline(7), "label": Inline("b")}
    found = requests.check_inputs(TRAINING, Inputs(given={"label": "c"}, earlier=earlier))
    assert found == {"n": Inline(7), "label": Inline("c")}
    assert errors_of(Inputs(given={}, earlier={"n": Inline("x")})) == {"inputs.n": 'expected int, got "x"'}
    # The default of the parameter may violate its schema, and an earlier run may have it.
    odd = Pipeline(name="odd", params=(Port(name="n", required=False, schema=INT),))
    assert requests.check_inputs(odd, Inputs(given={}, earlier={"n": Inline(None)})) == {"n": Inline(None)}


def test_references_to_models_are_replaced_by_what_they_resolve_to() -> None:
    given = {"n": "model:churn@best", "label": "model:churn"}
    assert requests.model_references(TRAINING.params, given) == {"n": "churn@best"}  # the label takes text
    ref = ArtifactRef(sha256="a" * 64, size=1, media_type="x", format="pickle")
    best = ModelRegistered(
        project="p", model="churn", revision=4, version=3, artifact=ref, run_id="r0", key="train", attempt=1
    )
    found = requests.check_inputs(TRAINING, Inputs(given=given, models={"n": best}))
    assert found == {"n": Stored(ref), "label": Inline("model:churn")}
    # The run records which version it used, and a rerun with the same inputs does, too.
    first = requests.build("r1", TARGET, Inputs(given=given, models={"n": best}), MANUAL, NOW)
    assert first.models == {"n": "churn:3"}
    earlier = {"earlier": first.inputs, "earlier_models": first.models}
    assert requests.build("r2", TARGET, Inputs(given={}, **earlier), MANUAL, NOW).models == {"n": "churn:3"}
    assert requests.build("r2", TARGET, Inputs(given={"n": 1}, **earlier), MANUAL, NOW).models == {}
    missing = errors_of(Inputs(given=given, models={"n": NotFoundError("there is no model 'churn'")}))
    assert missing == {"inputs.n": "does not refer to a registered model: there is no model 'churn'"}


def test_step_only_values_are_passed_through() -> None:
    value = Items((ResultOf(ResultRef(key="a", attempt=1, output="result")),))
    assert requests.check_inputs(TRAINING, Inputs(given={"n": value}))["n"] is value


def test_a_reference_may_have_every_field_of_an_artifact() -> None:
    assert requests.REFERENCE_TYPES.keys() == {field.name for field in fields(ArtifactRef)}


# --------------------------------------------------------------------------------------------------- doors of a request

PARENT = RunRequested(run_id="r0", project="default", pipeline="parent", version=1, labels={"team": "a"}, priority=3)


def child(inputs: dict[str, Any], models: dict[str, Any] | None = None) -> RunRequested:
    given = {name: Inline(value) for name, value in inputs.items()}
    fact = StepSuspended(run_id="r0", key="call", attempt=1, kind=Kind.RUN, inputs=given, target="training")
    return child_runs.build_request(fact, PARENT, TARGET, models or {}, NOW)


def test_the_request_of_a_child_run_inherits_from_its_parent() -> None:
    found = child({"n": 1})
    assert (found.labels, found.priority, found.deadline) == ({"team": "a"}, 3, 1060.0)
    span = tracing.of_attempt(PARENT, "call", 1).traceparent()
    assert found.trigger == {"type": "run", "run": "r0", "step": "call", "depth": "1", "traceparent": span}
    assert found.caller == Caller(run_id="r0", key="call", attempt=1)
    assert found.requested_by == access.run_step("r0", "call")


def test_child_runs_do_not_hide_a_circle_of_runs() -> None:
    fact = StepSuspended(run_id="r0", key="call", attempt=1, kind=Kind.RUN, inputs={"n": Inline(1)}, target="training")
    started = replace(PARENT, trigger={"type": "event", "deployment": "d", "hops": "7"})
    found = child_runs.build_request(fact, started, TARGET, {}, NOW)
    assert run_events.hops_of(found.trigger) == {"hops": 7}


@given(st.dictionaries(st.sampled_from(["n", "label", "other"]), JSON))
def test_a_client_and_a_step_get_the_same_answer(inputs: dict[str, Any]) -> None:
    answers: list[Any] = []
    for build in (lambda: requests.build("r1", TARGET, Inputs(given=inputs), MANUAL, NOW), lambda: child(inputs)):
        try:
            answers.append(build().inputs)
        except InvalidInputsError as error:
            answers.append((str(error), error.errors))
    assert answers[0] == answers[1]


def test_a_rejected_child_run_fails_its_step_with_the_same_error() -> None:
    fact = StepSuspended(run_id="r0", key="call", attempt=1, kind=Kind.RUN, target="training")
    with pytest.raises(InvalidInputsError) as caught:
        child({"n": "3"})
    error = child_runs.refused(fact, caught.value, NOW).error
    assert error is not None
    assert (error.type, error.message) == ("RunRefused", f"the run cannot be started: {caught.value}")
