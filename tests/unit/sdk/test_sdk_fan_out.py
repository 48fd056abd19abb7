"""Fan-out: what `map`, `grid` and `partial` compile to, and errors with the user's line."""

from __future__ import annotations

from typing import Any

import pytest
import sdk_sample_graphs as samples
from sdk_user_modules import UserModules

from penstock import DefinitionError, pipeline
from penstock_core.pipeline import ir, ir_check
from penstock_core.pipeline.ir import MapSpec
from penstock_core.pipeline.values import BoundItems, BoundLists, Inline, Output, Param


def nodes(compiled: ir.Pipeline) -> dict[str, ir.Node]:
    ir_check.check(compiled)
    return {node.key: node for node in compiled.nodes}


def test_partial_and_map_become_a_mapped_node() -> None:
    compiled = samples.tuning.compile()
    found = nodes(compiled)
    assert list(found) == ["numbers", "train", "train-2", "select"]
    assert found["train"].inputs == {"data": Output("numbers"), "depth": Param("depths")}
    assert found["train"].mapped == MapSpec(over=("depth",), mode="zip")
    assert found["train-2"].inputs == {
        "data": Output("numbers"),
        "depth": Param("depths"),
        "rate": Inline([0.1, 1.0]),
    }
    assert found["train-2"].mapped == MapSpec(over=("depth", "rate"), mode="grid")
    assert found["select"].inputs == {"models": Output("train", "model"), "scores": Output("train", "score")}
    assert found["select"].mapped is None
    assert list(compiled.steps) == ["numbers", "train", "select"], "options of calls make no other definition"
    assert compiled.outputs["scores"] == Output("train-2", "score")


def test_lists_may_be_literals_parameters_references_results_and_mapped_results() -> None:
    @pipeline
    def p(given: list[int]) -> None:
        one, two = samples.square(1), samples.square(2)
        samples.square.map(x=[1, 2])
        samples.square.map((1, 2))
        samples.square.map(range(3))
        samples.square.map(given)
        samples.square.map([one, 5, two])
        samples.square.map(samples.square.map([]))
        samples.add.map([1, 2], y=[3, 4])
        samples.total.map([given, [1], samples.numbers(2)])
        samples.square.map(samples.anything())

    inputs = [node.inputs.get("x", node.inputs.get("values")) for node in _traced(p) if node.mapped is not None]
    assert inputs[:5] == [
        Inline([1, 2]),
        Inline([1, 2]),
        Inline([0, 1, 2]),
        Param("given"),
        BoundItems((Output("square"), Inline(5), Output("square-2"))),
    ]
    assert inputs[5:7] == [Inline([]), Output("square-8")]
    assert inputs[8] == BoundItems((Param("given"), Inline([1]), Output("numbers")))


def test_lists_of_unknown_length_are_joined() -> None:
    @pipeline
    def p(given: list[int], pair: tuple[int, ...]) -> Any:
        mapped = samples.square.map(given)
        one = samples.square(1)
        found = [0]
        found += mapped
        samples.total([*mapped, one, 5, *given])
        samples.total(mapped + given)
        samples.total([1] + mapped + [one])  # noqa: RUF005 - what is tested
        samples.total(found)
        samples.total([*pair])
        samples.square.map([*mapped, one])
        samples.square.map(mapped + [2])  # noqa: RUF005 - what is tested
        return [*mapped, *given]

    compiled = p.compile()
    mapped, given, one = Output("square"), Param("given"), Output("square-2")
    inputs = [node.inputs.get("x", node.inputs.get("values")) for node in compiled.nodes[2:]]
    assert inputs == [
        BoundLists((mapped, BoundItems((one, Inline(5))), given)),
        BoundLists((mapped, given)),
        BoundLists((BoundItems((Inline(1),)), mapped, BoundItems((one,)))),
        BoundLists((BoundItems((Inline(0),)), mapped)),
        BoundLists((Param("pair"),)),
        BoundLists((mapped, BoundItems((one,)))),
        BoundLists((mapped, BoundItems((Inline(2),)))),
    ]
    assert compiled.outputs == {"result": BoundLists((mapped, given))}
    assert p.local(given=[2, 3], pair=(1,)) == [4, 9, 2, 3]


MEASURED = [
    "len([*square.map([1]), 1])",
    "found = [*square.map([1]), 1]\n    total(found)\n    len(found)  # here",
    "found = []\n    found += square.map([1])\n    for one in found:  # here\n        square(1)",
    "total([1] if [*square.map([1])] else [2])",
    "square([0, *square.map([1]), 1][2])",
    "[square(one) for one in [1, *square.map([1])]]",
    "len(square.map([1]) + [1])",
    "len([1] + square.map([1]))",
    "len(list([*[*square.map([1]), 1], 2]))",
    "for i, one in enumerate([*square.map([1]), 1]):  # here\n        square(i)",
    "if not [*square.map([1])]:  # here\n        square(1)",
    "total([1, *square.map([1])][1:])",
    "found = [*square.map([1]), 1]\n    last = found.pop()  # here",
]


@pytest.mark.parametrize("body", MEASURED)
def test_a_list_of_unknown_length_is_not_measured(user: UserModules, body: str) -> None:
    marked = body if "# here" in body else f"{body}  # here"
    message = user.refused(f"@pipeline\ndef p(n: int = 1):\n    {marked}\n", HEAD)
    assert "the number of items of a list that contains all of its items is unknown" in message


def test_lists_of_unknown_length_are_extended_and_their_names_reused() -> None:
    @pipeline
    def p(given: list[int]) -> int:
        found = [*given, 1]
        found.append(2)
        found += [3]
        more = [*found, 4]
        result = samples.total(more)
        found = [1, 2]
        assert len(found) == 2
        len([*[5], 6])
        return result

    assert p.local(given=[10]) == 20


def test_joined_lists_pass_through_nested_pipelines() -> None:
    @pipeline
    def inner(values: list[int]) -> list[int]:
        return [*samples.square.map(values), 7]

    @pipeline
    def outer(given: list[int]) -> int:
        return samples.total([*inner([*given, 1]), *inner(given)])

    assert outer.local(given=[2, 3]) == 4 + 9 + 1 + 7 + 4 + 9 + 7


def _traced(made: Any) -> tuple[ir.Node, ...]:
    return made.compile().nodes


def test_options_of_mapping() -> None:
    @pipeline
    def p() -> int:
        samples.square.with_options(window=50, min_success=0.9).map([1, 2])
        more = samples.add.partial(y=2).with_options(min_success=1).map(some_numbers())
        samples.square.with_options(min_success=1.0).map([1])
        return samples.tolerant(more)

    def some_numbers() -> Any:
        return samples.numbers(4)

    found = nodes(p.compile())
    assert found["square"].mapped == MapSpec(over=("x",), window=50, min_success=0.9)
    assert found["add"].mapped == MapSpec(over=("x",), min_success=1)
    assert found["square-2"].mapped == MapSpec(over=("x",)), "all of them is what it is without"


def test_several_outputs_unpack_into_lists() -> None:
    @pipeline
    def p() -> Any:
        models, scores = samples.train.partial([1, 2]).map(depth=[1, 2])
        samples.select(models, scores=scores).after(models)
        return models

    assert nodes(p.compile())["select"].inputs == {
        "models": Output("train", "model"),
        "scores": Output("train", "score"),
    }


def test_partial_can_be_called() -> None:
    added = samples.add.partial(y=5)
    assert added(1) == 6
    assert added(x=2) == 7
    assert samples.add.partial(1, y=2)() == 3
    assert repr(added) == "<<step 'add'> with y given>"

    @pipeline
    def p(n: int) -> int:
        return added(n)

    assert nodes(p.compile())["add"].inputs == {"x": Param("n"), "y": Inline(5)}
    with pytest.raises(DefinitionError, match="can only be used inside a pipeline body"):
        samples.square.map([1])
    with pytest.raises(DefinitionError, match="input 'y' of step 'add' is given twice"):
        added(1, y=2)


def test_mapping_in_a_nested_pipeline() -> None:
    @pipeline
    def inner(values: list[int]) -> list[int]:
        return samples.square.map(values)

    @pipeline
    def outer() -> int:
        return samples.total(inner(inner([1, 2])))

    found = nodes(outer.compile())
    assert found["inner/square"].inputs == {"x": Inline([1, 2])}
    assert found["inner-2/square"].inputs == {"x": Output("inner/square")}
    assert found["total"].inputs == {"values": Output("inner-2/square")}


HEAD = """\
from __future__ import annotations
from typing import Any, NamedTuple
from penstock import pipeline, step

class Fit(NamedTuple):
    model: str
    score: float

class Lists(NamedTuple):
    good: list[int]
    bad: list[int]

@step
def load(n: int = 1) -> list[int]: ...

@step
def text() -> str: ...

@step
def split() -> Lists: ...

@step
def train(data: list[int], depth: int = 3, rate: float = 0.5) -> Fit: ...

@step
def square(x: int) -> int: ...

@step
def total(values: list[int]) -> int: ...

@step
def one(fit: Fit) -> int: ...

"""

WRONG = [
    ("square.map(text())", "takes a list of int, but the result of step 'text' is str"),
    ("square.map(n)", "input 'x' of step 'square' is mapped over, so it takes a list of int, but parameter 'n' is int"),
    ("square.map(n)", "Give it to partial() if it is the same for all items"),
    ("square.map(3)", "takes a list of int, but 3 (int) is not a list"),
    ("square.map({'a': 1})", "but a value of type dict is not a list"),
    ("square.map('abc')", "but 'abc' (str) is not a list"),
    ("square.map(['a'])", "input 'x' of step 'square' takes list[int], but item 0: 'a' (str) is not int"),
    ("square.map([1, text()])", "item 1 takes int, but the result of step 'text' is str"),
    ("square.map([text()])", "item 0 takes int, but the result of step 'text' is str"),
    (
        "square.map(split())",
        "but the outputs (good, bad) of step 'split' are not a list: pass one of them (.good, .bad)",
    ),
    ("train.map(data=load())", "so it takes a list of list[int], but the result of step 'load' is list[int]"),
    ("total.map([1, 2])", "takes list[list[int]], but item 0: 1 (int) is not list[int]"),
    ("train.map(depth=[1])", "step 'train' requires input 'data' (list[int])"),
    ("train.partial(data=[1]).map(depht=[1])", "has no input 'depht' (its inputs: data, depth, rate)"),
    ("train.partial(dta=[1])", "step 'train' has no input 'dta' (its inputs: data, depth, rate)"),
    ("train.partial(data=[1]).map(data=[[1]])", "input 'data' of step 'train' is given in partial() and in map()"),
    ("train.partial(data=[1]).grid(data=[[1]])", "is given in partial() and in grid()"),
    ("train.partial(data=[1]).partial(data=[2])", "input 'data' of step 'train' is given twice"),
    ("train.partial([1], data=[1])", "input 'data' of step 'train' is given twice"),
    ("train.partial([1], 2, 3, 4)", "takes 3 more inputs, but 4 were given"),
    ("train.partial(data=['a']).map(depth=[1])", "input 'data' of step 'train' takes list[int], but item 0"),
    ("train.partial(data=[1]).map()", "map() of step 'train' takes at least one list, such as depth=[…]"),
    ("square.partial(x=1).map()", "partial() has all inputs already"),
    ("square.map([1], x=[2])", "input 'x' of step 'square' is given twice"),
    ("square.map([1], [2])", "has 1 inputs to map over, but 2 lists were given"),
    (
        "train.partial(data=[1]).map(depth=[1, 2], rate=[0.1])",
        "step 'train' is mapped over lists of different lengths: 'depth' has 2, 'rate' has 1",
    ),
    ("train.partial(data=[1]).map(depth=[1, 2], rate=[0.1, text()])", "item 1 takes float, but"),
    (
        "train.partial(data=[1]).grid(depth=list(range(2000)), rate=[0.5] * 2000)",
        "step 'train' would have at least 4000000 items; the limit is 1000000",
    ),
    ("total(square.map([text()]))", "takes int"),
    ("total(square.with_options(min_success=1).map([1]))", "takes list[int], but the result of step 'square' is list["),
    ("square.map(square.with_options(min_success=1).map([1]))", "so it takes a list of int, but"),
    (
        "total(train.partial([1]).map(depth=[1]).score)",
        "takes list[int], but output 'score' of step 'train' is list",
    ),
    ("one(train.partial([1]).map(depth=[1]))", "was given the outputs (model, score) of step 'train'"),
    ("square(square.map([1]))", "input 'x' of step 'square-2' takes int, but the result of step 'square' is list[int]"),
    ("train.partial([1]).map(depth=[1]).mode", "step 'train' has no output 'mode' (its outputs: model, score)"),
    ("square([*square.map([1])][0])", "the number of items of a list that contains all of its items is unknown"),
    ("train([1], *square.map([1]))", "can only be inside a list, as in [*scores, 1.0]"),
    ("square({'a': [*square.map([1])]}['a'][0])", "can only be inside a list, as in [*scores, 1.0]"),
    ("square.map([1]) + text()", "cannot be calculated with"),
    ("text() + square.map([1])", "cannot be calculated with"),
    ("square.map([1]) + (1,)", "cannot be calculated with"),
    ("square(1) + [1]", "cannot be calculated with"),
    ("list(square.map([1]))", "cannot be walked through or measured"),
    ("[x for x in square.map([1])]", "cannot be walked through or measured"),
    ("a, b = square.map([1])", "cannot be walked through or measured"),
    ("[*text()]", "cannot be walked through or measured"),
    ("total([*square.map([1]), text()])", "item 1 takes int, but"),
    (
        "total([1, *train.partial([1]).map(depth=[1]).score])",
        "item 1 takes int, but output 'score' of step 'train' is list",
    ),
    (
        "total([*square.with_options(min_success=1).map([1])])",
        "item 0 takes int, but the result of step 'square' is list[",
    ),
    ("square.with_options(window=0)", "window must be a whole number from 1 to 10000, not 0"),
    ("square.with_options(min_success=1.5)", "min_success must be a whole number of items, or a fraction"),
    ("square.with_options(min_success=True)", "min_success must be a whole number of items, or a fraction"),
    ("square.with_options(min_sucess=1)", "with_options() has no option 'min_sucess': did you mean 'min_success'?"),
]


@pytest.mark.parametrize(("call", "says"), WRONG)
def test_rejected_definitions(user: UserModules, call: str, says: str) -> None:
    message = user.refused(f"@pipeline\ndef p(n: int = 1):\n    {call}  # here\n", HEAD)
    assert says in message
