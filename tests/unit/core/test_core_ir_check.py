"""`ir_check.check`: errors of a pipeline have the user's file and line."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given

from penstock_core.errors import DefinitionError
from penstock_core.pipeline import ir, ir_check, values
from penstock_core.pipeline.ir import Node, Pipeline, Port, Retry, StepSpec
from penstock_core.pipeline.values import BoundFields, BoundItems, Inline, Output, Param
from penstock_testkit import strategies

PIPELINE = ("flow.py", 40)


def spec(name: str, *inputs: str, **more: Any) -> StepSpec:
    ports = tuple(Port(name=i.strip("?"), required=not i.endswith("?"), type="int") for i in inputs)
    return StepSpec(
        name=name, entrypoint=f"m:{name}", inputs=ports, outputs=(Port(name="result"),), file="steps.py", line=7, **more
    )


def node(key: str, line: int, step: str | None = None, after: tuple[str, ...] = (), **inputs: values.Binding) -> Node:
    return Node(key=key, step=step or key, inputs=inputs, after=after, file="flow.py", line=line)


def pipeline(*nodes: Node, steps: tuple[StepSpec, ...] = (), **more: Any) -> Pipeline:
    known = {s.name: s for s in (spec("load"), spec("train", "data", "depth?"), *steps)}
    settings: dict[str, Any] = {"name": "flow", "params": (Port(name="url"),), "file": "flow.py", "line": 40} | more
    return Pipeline(steps=known, nodes=nodes, **settings)


LOAD = node("load", 41)
TRAIN = node("train", 42, data=Output("load"))


def test_a_complete_pipeline_passes() -> None:
    ir_check.check(
        pipeline(
            LOAD,
            TRAIN,
            node("train-2", 43, "train", after=("train",), data=Param("url"), depth=Inline(3)),
            outputs={
                "best": BoundItems((Output("train"), BoundFields({"again": Output("train-2"), "url": Param("url")})))
            },
        )
    )
    ir_check.check(pipeline())


@given(strategies.pipelines())
def test_generated_pipelines_pass(made: Pipeline) -> None:
    ir_check.check(made)


BROKEN: dict[str, tuple[Pipeline, tuple[str, int], str]] = {
    "nodes and batch": (
        pipeline(steps=(spec("fit", nodes=2, batch=ir.Batch(max=4)),)),
        ("steps.py", 7),
        "step 'fit' has both nodes and batch",
    ),
    "no nodes": (
        pipeline(steps=(spec("fit", nodes=0),)),
        ("steps.py", 7),
        "step 'fit' has nodes 0; it must be from 1 to 64",
    ),
    "an output of what runs at the end": (
        pipeline(LOAD, replace(TRAIN, phase=ir.Phase.ON_EXIT), outputs={"x": BoundItems((Output("train"),))}),
        PIPELINE,
        "output 'x' of pipeline 'flow' reads step 'train', which runs after the main phase",
    ),
    "an output of what runs after a failure": (
        pipeline(
            LOAD,
            replace(TRAIN, phase=ir.Phase.ON_FAILURE),
            outputs={"x": values.OneOf((Output("train"), Inline(None)))},
        ),
        PIPELINE,
        "reads step 'train', which runs after the main phase",
    ),
    "another IR version": (pipeline(LOAD, ir=2), PIPELINE, "IR version 2; this platform reads 1"),
    "a name with a space": (pipeline(LOAD, name="my flow"), PIPELINE, "pipeline name 'my flow'"),
    "a bad step key": (pipeline(replace(LOAD, key="a b")), ("flow.py", 41), "step key 'a b'"),
    "a step key used twice": (pipeline(LOAD, replace(LOAD, line=44)), ("flow.py", 44), "'load' is used twice"),
    "an unknown step definition": (pipeline(node("x", 45)), ("flow.py", 45), "'x' calls unknown step definition 'x'"),
    "a bad pool": (pipeline(LOAD, steps=(spec("load", pool="gpu.big"),)), ("steps.py", 7), "pool 'gpu.big'"),
    "an unknown input": (
        pipeline(LOAD, node("train", 46, data=Output("load"), deep=Inline(1))),
        ("flow.py", 46),
        "'train' has no input 'deep' (its inputs: data, depth)",
    ),
    "an input of a step that has none": (
        pipeline(node("load", 46, data=Inline(1))),
        ("flow.py", 46),
        "'load' has no input 'data' (its inputs: none)",
    ),
    "a missing input": (
        pipeline(node("train", 47, depth=Inline(1))),
        ("flow.py", 47),
        "'train' requires input 'data' (int)",
    ),
    "an unknown step read": (
        pipeline(node("train", 48, data=Output("laod"))),
        ("flow.py", 48),
        "input 'data' of step 'train' reads unknown step 'laod'",
    ),
    "an unknown output read, deep inside": (
        pipeline(LOAD, node("train", 49, data=BoundItems((BoundFields({"a": Output("load", "rows")}),)))),
        ("flow.py", 49),
        "reads unknown output 'rows' of step 'load' (outputs: result)",
    ),
    "an unknown parameter": (
        pipeline(node("train", 50, data=BoundFields({"a": Param("uri")}))),
        ("flow.py", 50),
        "input 'data' of step 'train' reads unknown parameter 'uri'",
    ),
    "a read of a step that has no definition": (
        pipeline(node("ghost", 51), node("train", 52, data=Output("ghost"))),
        ("flow.py", 51),
        "'ghost' calls unknown step definition",
    ),
    "an unknown step to run after": (
        pipeline(node("load", 53, after=("gone",))),
        ("flow.py", 53),
        "'load' runs after unknown step 'gone'",
    ),
    "an unknown step in an output": (
        pipeline(LOAD, outputs={"model": Output("train")}),
        PIPELINE,
        "output 'model' of pipeline 'flow' reads unknown step 'train'",
    ),
    "an unknown parameter in an output": (
        pipeline(LOAD, outputs={"model": Param("x")}),
        PIPELINE,
        "output 'model' of pipeline 'flow' reads unknown parameter 'x'",
    ),
    "a step that waits for itself": (
        pipeline(node("load", 54, after=("load",))),
        ("flow.py", 54),
        "in a cycle: load <- load",
    ),
    "a circle with a tail": (
        pipeline(
            node("a", 55, "train", data=Output("b")),
            node("b", 56, "train", data=Output("c")),
            node("c", 57, "train", data=Output("b")),
            LOAD,
        ),
        ("flow.py", 56),
        "in a cycle: b <- c <- b",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_error_names_the_users_file_and_line(name: str) -> None:
    broken, (file, line), message = BROKEN[name]
    with pytest.raises(DefinitionError) as caught:
        ir_check.check(broken)
    assert (caught.value.file, caught.value.line) == (file, line)
    assert message in caught.value.message
    assert str(caught.value) == f"{file}:{line}: {caught.value.message}"


@pytest.mark.parametrize(
    ("what", "bad"),
    [
        ("retries", spec("load", retry=Retry(retries=-1))),
        ("retries", spec("load", retry=Retry(retries=10_001))),
        ("retry delay", spec("load", retry=Retry(delay=-0.5))),
        ("retry delay", spec("load", retry=Retry(delay=float("nan")))),
        ("longest retry delay", spec("load", retry=Retry(max_delay=float("inf")))),
        ("backoff", spec("load", retry=Retry(backoff=0.5))),
        ("jitter", spec("load", retry=Retry(jitter=1.1))),
        ("timeout", spec("load", timeout=0.0)),
        ("timeout", spec("load", timeout=float("inf"))),
    ],
)
def test_settings_out_of_bounds_name_the_step_and_its_line(what: str, bad: StepSpec) -> None:
    with pytest.raises(DefinitionError, match=rf"steps\.py:7: step 'load' has {what} ") as caught:
        ir_check.check(pipeline(LOAD, steps=(bad,)))
    assert caught.value.line == 7


def test_settings_at_their_bounds_pass() -> None:
    low = Retry(retries=0, delay=0, backoff=1, max_delay=0, jitter=0)
    high = Retry(retries=10_000, delay=ir_check.MAX_SECONDS, backoff=1_000, max_delay=ir_check.MAX_SECONDS, jitter=1)
    for policy, timeout in ((low, 0.001), (high, ir_check.MAX_SECONDS)):
        ir_check.check(pipeline(LOAD, steps=(spec("load", retry=policy, timeout=timeout),)))


def test_too_many_steps_are_refused() -> None:
    nodes = tuple(Node(key=f"n{n}", step="load") for n in range(ir_check.MAX_NODES + 1))
    with pytest.raises(DefinitionError, match=r"flow\.py:40: pipeline 'flow' has 50001 steps; the limit is 50000"):
        ir_check.check(pipeline(*nodes))


def test_a_large_cycle_is_found_quickly() -> None:
    """The search walks each step once: with a walk over the path so far, this took minutes."""
    count = 20_000
    nodes = tuple(Node(key=f"n{n}", step="load", after=(f"n{(n + 1) % count}",)) for n in range(count))
    with pytest.raises(DefinitionError, match="cycle"):
        ir_check.check(pipeline(*nodes))


@pytest.mark.parametrize(
    ("file", "line", "text"),
    [("f.py", 3, "f.py:3: no"), ("f.py", None, "f.py: no"), (None, None, "no"), (None, 3, "no")],
)
def test_a_definition_error_shows_the_known_location(file: str | None, line: int | None, text: str) -> None:
    assert str(DefinitionError("no", file, line)) == text


def test_dependencies_are_each_named_once_in_order() -> None:
    made = node("x", 1, None, ("c", "a"), p=BoundItems((Output("b"), Output("a"))), q=Output("b"), r=Param("url"))
    assert ir.dependencies(made) == ["b", "a", "c"]


@given(strategies.pipelines())
def test_what_is_written_without_defaults_is_the_same_pipeline(made: Pipeline) -> None:
    written = ir.without_defaults(made)
    parts: dict[str, Any] = {
        "steps": {name: StepSpec(**fields) for name, fields in written["steps"].items()},
        "nodes": tuple(Node(**fields) for fields in written["nodes"]),
    }
    assert Pipeline(**{**written, **parts}) == made
    assert "ir" in written and "deadline" not in ir.without_defaults(replace(made, deadline=None))
