"""A pipeline called inside a pipeline: its steps in the IR, what it takes and returns, order, and local runs."""

from __future__ import annotations

from typing import Any

import pytest
import sdk_sample_subpipelines_a as other
import sdk_sample_subpipelines_b as samples

from penstock import DefinitionError, Pipeline, pipeline, step
from penstock.authoring.trace import pipeline_tracer
from penstock_core.ids import check_step_key
from penstock_core.pipeline import ir, ir_check
from penstock_core.pipeline.values import BoundFields, BoundItems, Inline, Output, Param


def nodes(compiled: ir.Pipeline) -> dict[str, ir.Node]:
    ir_check.check(compiled)
    return {check_step_key(node.key): node for node in compiled.nodes}


def test_each_call_has_its_own_namespace() -> None:
    compiled = samples.both.compile()
    found = nodes(compiled)
    assert list(found) == [
        *("load", "features/split", "features/total", "features-2/split", "features-2/total"),
        *("size", "total", "add"),
    ]
    assert found["load"].inputs == {"n": Param("n")}
    assert found["features/split"].inputs == {"numbers": Output("load"), "at": Inline(2)}
    assert found["features-2/split"].inputs == {"numbers": Output("load"), "at": Inline(3)}
    assert found["features-2/total"].inputs == {"numbers": Output("features-2/split", "train")}
    assert found["size"].inputs == {
        "parts": BoundFields({name: Output("features/split", name) for name in ("train", "test")})
    }
    assert found["add"].inputs == {
        "numbers": BoundItems((Output("features/total"), Output("features-2/total"), Output("size"))),
        "named": BoundFields({"tail": Output("total")}),
    }
    assert set(compiled.steps) == {"load", "split", "total", "size", "add"}
    assert [port.name for port in compiled.params] == ["n"]


def test_a_node_has_the_line_of_the_inner_pipeline() -> None:
    inner = nodes(samples.both.compile())["features-2/split"]
    assert inner.file == samples.__file__
    assert inner.line == nodes(samples.features.compile())["split"].line


def test_pipelines_nest() -> None:
    compiled = samples.nested.compile()
    found = nodes(compiled)
    assert list(found)[:4] == ["load", "middle/features/split", "middle/features/total", "middle/total"]
    parts = BoundItems(tuple(Output("middle/features/split", name) for name in ("train", "test")))
    whole = BoundFields({"total": Output("middle/total"), "parts": parts, "n": Inline(7)})
    assert found["show"].inputs == {"value": whole}
    assert found["show-2"].inputs == {"value": parts}
    assert found["show-3"].inputs == {"value": Output("middle/features/split", "test")}
    assert found["add"].inputs == {"numbers": BoundItems((Output("middle/total"), Inline(7)))}
    assert compiled.outputs == {"sum": Output("add"), "all": whole}


def test_steps_with_the_same_name_from_two_modules_stay_separate() -> None:
    compiled = samples.same_names.compile()
    found = nodes(compiled)
    entrypoints = {key: compiled.steps[node.step].entrypoint for key, node in found.items()}
    assert entrypoints["source/load"] == entrypoints["load-2"] == f"{other.__name__}:load"
    assert entrypoints["load"] == f"{samples.__name__}:load"
    assert all(spec.name == name for name, spec in compiled.steps.items())
    assert samples.same_names.local(n=3) == [3, 3, 3]


def test_a_step_and_a_pipeline_with_the_same_name_stay_separate() -> None:
    @pipeline(name="load")
    def inner(n: int) -> Any:
        return samples.total(samples.load(n))

    @pipeline
    def outer() -> Any:
        return [samples.load(1), inner(2), samples.load(3), inner(4)]

    assert list(nodes(outer.compile())) == [
        *("load", "load-2/load", "load-2/total", "load-3", "load-4/load", "load-4/total"),
    ]


def test_local_runs_inner_pipelines() -> None:
    assert samples.both.local(n=6) == (0 + 1) + (0 + 1 + 2) + 6 + (3 + 4 + 5)
    total = sum(range(2, 5))
    assert samples.nested.local(n=5) == {
        "sum": total + 7,
        "all": {"total": total, "parts": [[0, 1], [2, 3, 4]], "n": 7},
    }
    assert samples.listed.local(n=4) == 1 + 6 + 0
    assert samples.both(6) == samples.both.local(n=6)


def test_a_pipeline_runs_the_same_alone_and_nested() -> None:
    alone = samples.wrap_path.local()
    assert alone == ["PosixPath x", "PosixPath x", "PosixPath y", "PosixPath z"]
    assert samples.paths.local() == {"given": alone, "default": alone, "passed": 3}


def test_order_between_pipelines_and_steps() -> None:
    found = nodes(samples.ordered.compile())
    first, middle = ("notes-2/note", "notes-2/note-2"), ("notes/note", "notes/note-3")
    assert found["notes-2/note-2"].after == ("notes-2/note-3",)
    # All first steps of one wait for all last steps of the other.
    assert set(found["notes/note"].after) == set(first)
    assert found["notes/note-2"].after == ("notes/note-3",)
    assert set(found["notes/note-3"].after) == set(first)
    assert set(found["note"].after) == {middle[0], "notes/note-2"}
    samples.ran.clear()
    samples.ordered.local()
    assert samples.ran == ["c", "then", "d", "a", "then", "b", "last"]


@pipeline
def named(n: int) -> samples.Parts:
    return samples.split(samples.load(n))


@pytest.mark.parametrize("inner", [samples.features, samples.middle, named, samples.pair, samples.notes])
def test_after_accepts_everything_a_pipeline_returns(inner: Pipeline) -> None:
    arguments = {"numbers": [1], "n": 1, "a": "x", "b": "y"}
    given = {name: arguments[name] for name, one in inner.signature.inputs.items() if one.required}

    @pipeline
    def outer() -> None:
        early = samples.note("early")
        samples.note("late").after(inner(**given).after(early))

    found = nodes(outer.compile())
    inside = {key: node for key, node in found.items() if "/" in key}
    firsts = {key for key, node in inside.items() if not set(ir.dependencies(node)) & set(inside)}
    assert firsts
    assert firsts == {key for key, node in inside.items() if "note" in node.after}
    needed = {key for node in inside.values() for key in ir.dependencies(node)}
    assert set(found["note-2"].after) == set(inside) - needed


def test_a_parameter_keeps_its_declared_type_inside() -> None:
    @pipeline
    def inner(value: float, anything=None) -> None:
        samples.show(anything)
        samples.add([value])

    @pipeline
    def outer() -> None:
        inner(samples.total([1]))

    with pytest.raises(DefinitionError, match=r"item 0 takes int, but parameter 'value' of pipeline 'inner' is float"):
        outer.compile()


def test_a_parameter_without_a_hint_has_the_type_of_its_argument() -> None:
    @pipeline
    def inner(anything=None) -> None:
        samples.add([anything])

    @pipeline
    def outer() -> None:
        inner(samples.show(1))

    with pytest.raises(DefinitionError, match=r"item 0 takes int, but parameter 'anything' of pipeline 'inner' is str"):
        outer.compile()
    assert inner.compile().nodes


def as_float(n: int) -> float:
    return samples.total([n])


def as_floats(n: int) -> list[float]:
    return [samples.total([n])]


def as_entries(n: int) -> dict[str, float]:
    return {"0": samples.total([n])}


@pytest.mark.parametrize(
    ("function", "pick", "output"),
    [
        (as_float, lambda found: found, "the result"),
        (as_floats, lambda found: found[0], "output '0'"),
        (as_entries, lambda found: found["0"], "output '0'"),
    ],
)
def test_the_declared_return_type_is_used(function: Any, pick: Any, output: str) -> None:
    inner = pipeline(function)

    @pipeline
    def outer() -> None:
        samples.add([pick(inner(1))])

    with pytest.raises(DefinitionError) as caught:
        outer.compile()
    assert f"item 0 takes int, but {output} of pipeline '{inner.name}' is float" in str(caught.value)


def test_plain_values_can_be_returned_beside_results() -> None:
    @pipeline
    def inner() -> samples.Parts:
        return samples.Parts([1, 2], [3])

    @pipeline
    def outer() -> dict[str, Any]:
        found = inner()
        return {"test": found.test, "size": samples.size(found), "train": samples.total(found.train)}

    assert outer.compile().outputs["test"] == Inline([3])
    assert outer.local() == {"test": [3], "size": 3, "train": 3}


def test_names_that_look_like_repeated_calls_stay_separate() -> None:
    @pipeline(name="one-2")
    def inner() -> None:
        one()

    @pipeline
    def outer() -> None:
        inner()
        one()
        one().after(one(), inner(), one())

    found = nodes(outer.compile())
    assert sorted(found) == ["one", "one-2-2/one", "one-2/one", "one-3", "one-4", "one-5"]


def test_duplicate_dependencies_are_removed() -> None:
    @pipeline
    def inner() -> Any:
        return one()

    @pipeline
    def outer() -> None:
        first = inner()
        second = inner()
        second.after(first, first).after(first)

    assert nodes(outer.compile())["inner-2/one"].after == ("inner/one",)


@step
def one() -> int:
    return 1


def test_long_keys_are_rejected_at_their_call() -> None:
    def wrap(inner: Any) -> Pipeline:
        @pipeline(name="p" * 60)
        def outer() -> Any:
            return inner()

        return outer

    deep = wrap(wrap(wrap(wrap(one))))
    assert [len(key) for key in nodes(deep.compile())] == [3 * 61 + 3]
    with pytest.raises(DefinitionError, match=r"would have 243 characters; the limit is 200") as caught:
        wrap(deep).compile()
    assert caught.value.file == __file__


def test_unbounded_recursion_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline_tracer, "MAX_CALLS", 100)

    def double(inner: Any) -> Pipeline:
        @pipeline
        def twice() -> None:
            inner()
            inner()

        return twice

    grown: Any = one
    for _ in range(6):
        grown = double(grown)
    with pytest.raises(DefinitionError, match=r"pipeline 'twice' has more than 100 step calls"):
        grown.compile()


def test_a_failed_body_leaves_no_compile_state() -> None:
    @pipeline
    def broken() -> None:
        one()
        raise ValueError("no")

    @pipeline
    def outer() -> Any:
        with pytest.raises(DefinitionError, match=r"pipeline 'broken' raised ValueError"):
            broken()
        return one()

    assert [node.key for node in outer.compile().nodes][-1] == "one"
