"""Conditions, branches and exit handlers: compiled form, and errors with the user's line."""

from __future__ import annotations

from typing import Any

import pytest
import sdk_sample_graphs as samples
from sdk_user_modules import UserModules

from penstock import DefinitionError, on_exit, on_failure, one_of, otherwise, pipeline, when
from penstock_core.pipeline import ir, ir_check
from penstock_core.pipeline.conditions import AllOf, AnyOf, Compare, Not, Truth, describe
from penstock_core.pipeline.ir import Phase, Rule
from penstock_core.pipeline.values import Ending, Inline, OneOf, Output, Param, Pick

GIVEN = samples.Best(0.5, "x", ["y"])


def nodes(made: Any) -> dict[str, ir.Node]:
    compiled = made.compile()
    ir_check.check(compiled)
    return {node.key: node for node in compiled.nodes}


def test_blocks_nest_and_otherwise_negates() -> None:
    @pipeline
    def p(limit: float = 0.9) -> None:
        best = samples.select(["a"], [0.5])
        with when(best.accuracy >= limit):
            samples.tell("good")
            with when(best.accuracy > 0.99):
                samples.tell("very good")
            with otherwise():
                samples.tell("good enough")
        with otherwise():
            samples.tell("bad")
        samples.tell("always")

    found = nodes(p)
    accuracy = Pick(Output("select"), ("accuracy",))
    good = Compare("ge", accuracy, Param("limit"))
    very = Compare("gt", accuracy, Inline(0.99))
    assert found["tell"].when == good
    assert found["tell-2"].when == AllOf((good, very))
    assert found["tell-3"].when == AllOf((good, Not(very)))
    assert found["tell-4"].when == Not(good)
    assert found["tell-5"].when is None
    assert ir.dependencies(found["tell-2"]) == ["select"]


def test_comparisons_and_their_combinations() -> None:
    @pipeline
    def p(n: int, on: bool, name: str = "") -> None:
        best, flag = samples.select(["a"], [0.5]), samples.flag()
        for condition in (
            n == 3,
            n != 3,
            n > 3,
            n <= best.accuracy,
            (n > 1) & (n < 5) & on,
            (n > 1) & flag | ~on,
            ~((name == "x") | (best.name == name)),
            best.tags[1] == "new",
            samples.measure("a")["auc"] > 0.5,
            samples.choose(True) == samples.Mode.FAST,
            samples.kind() == "b",
            best.tags == ["a", "b"],
            samples.anything() == None,  # noqa: E711 - a condition on a result
            samples.anything().depth.of[2] > "x",
        ):
            with when(condition):
                samples.square(1)
        with when(flag):
            samples.square(1)

    squares = [node for node in p.compile().nodes if node.key.startswith("square")]
    assert [describe(node.when) for node in squares if node.when] == [
        "n == 3",
        "n != 3",
        "n > 3",
        "n <= select.accuracy",
        "n > 1 and n < 5 and on",
        "(n > 1 and flag) or not (on)",
        "not (name == 'x' or select.name == name)",
        "select.tags[1] == 'new'",
        "measure.auc > 0.5",
        "choose == 'FAST'",
        "kind == 'b'",
        "select.tags == ['a', 'b']",
        "anything == None",
        "anything-2.depth.of[2] > 'x'",
        "flag",
    ]
    assert squares[4].when == AllOf(
        (Compare("gt", Param("n"), Inline(1)), Compare("lt", Param("n"), Inline(5)), Truth(Param("on")))
    )
    assert isinstance(squares[5].when, AnyOf)


def test_fields_and_items_can_be_inputs() -> None:
    @pipeline
    def p(given: samples.Best = GIVEN) -> Any:
        best = samples.select(["a"], [0.5])
        samples.tell(best.name)
        samples.tell(best.tags[0]).after(best.accuracy)
        samples.square(samples.report(3).rows)
        samples.square(samples.count(3)["good"])
        samples.square.map(samples.anything()["rows"])
        samples.tell(given.name)
        inner(given)
        inner(samples.Best(0.5, "literal"))
        return best.accuracy

    @pipeline
    def inner(best: samples.Best) -> None:
        samples.tell(best.name)

    found = nodes(p)
    assert found["tell"].inputs == {"text": Pick(Output("select"), ("name",))}
    assert found["tell-2"].inputs == {"text": Pick(Output("select"), ("tags", 0))}
    assert found["tell-2"].after == ("select",)
    assert found["square"].inputs == {"x": Pick(Output("report"), ("rows",))}
    assert found["square-2"].inputs == {"x": Pick(Output("count"), ("good",))}
    assert found["square-3"].inputs == {"x": Pick(Output("anything"), ("rows",))}
    assert found["tell-3"].inputs == {"text": Pick(Param("given"), ("name",))}
    assert found["inner/tell"].inputs == {"text": Pick(Param("given"), ("name",))}
    assert found["inner-2/tell"].inputs == {"text": Inline("literal")}
    assert p.compile().outputs == {"result": Pick(Output("select"), ("accuracy",))}


def test_one_of_joins_branches() -> None:
    @pipeline
    def p(n: int) -> str:
        with when(n > 1):
            many = samples.train([1], 1)
            text = samples.tell("many")
        with otherwise():
            few = samples.train([1], 2)
            other = samples.tell("few")
        fitted = one_of(many, few)
        samples.select([fitted.model], [fitted.score])
        samples.note(one_of(text, None))
        return samples.tell(one_of(text, other, "none"))

    found = nodes(p)
    assert found["tell-3"].inputs == {"text": OneOf((Output("tell"), Output("tell-2"), Inline("none")))}
    assert ir.dependencies(found["select"]) == ["train", "train-2"]
    assert found["note"].inputs == {"text": OneOf((Output("tell"), Inline(None)))}


def test_a_condition_applies_to_pipelines_called_in_its_block() -> None:
    @pipeline
    def inner(n: int) -> int:
        with when(n > 1):
            samples.square(n)
        return samples.add(n)

    @pipeline
    def outer(n: int) -> None:
        with when(n < 9):
            inner(samples.square(n))

    found = nodes(outer)
    low = Compare("lt", Param("n"), Inline(9))
    assert found["inner/square"].when == AllOf((low, Compare("gt", Output("square"), Inline(1))))
    assert found["inner/add"].when == low


def test_trigger_rules_and_exit_handlers() -> None:
    @pipeline
    def p(n: int = 1) -> str:
        told = samples.tell("x")
        samples.note.with_options(trigger_rule="all_done")(told)
        samples.note.with_options(trigger_rule="any_failed", name="alarm")("x").after(told)
        with on_failure() as failure:
            samples.tell(failure.error)
        with on_exit() as ending, when(ending.outcome != "succeeded"):
            last = samples.note(told, error=ending.error)
            samples.tell(last)
        return told

    compiled = p.compile()
    found = nodes(p)
    assert list(found) == ["tell", "note", "alarm", "tell-2", "note-2", "tell-3"], "the end comes last"
    assert (found["note"].rule, found["alarm"].rule, found["tell"].rule) == (
        Rule.ALL_DONE,
        Rule.ANY_FAILED,
        Rule.ALL_SUCCEEDED,
    )
    assert (found["tell-2"].phase, found["note-2"].phase) == (Phase.ON_FAILURE, Phase.ON_EXIT)
    assert found["tell-2"].inputs == {"text": Ending("error")}
    assert found["note-2"].inputs == {"text": Output("tell"), "error": Ending("error")}
    assert found["note-2"].when == Compare("ne", Ending("outcome"), Inline("succeeded"))
    assert compiled.steps["alarm"].entrypoint == "sdk_sample_graphs:note"


def test_handlers_of_an_inner_pipeline_are_not_part_of_its_order() -> None:
    @pipeline
    def inner() -> None:
        samples.tell("main")
        with on_exit():
            samples.tell("end")

    @pipeline
    def outer() -> None:
        samples.note("x").after(inner())
        with on_exit():
            simple()

    @pipeline
    def simple() -> None:
        samples.tell("simple")

    found = nodes(outer)
    assert found["note"].after == ("inner/tell",)
    assert found["inner/tell-2"].phase is Phase.ON_EXIT
    assert found["simple/tell"].phase is Phase.ON_EXIT


def test_outside_a_pipeline() -> None:
    for made in (lambda: when(True), otherwise, on_exit, on_failure, lambda: one_of(1, 2)):
        with pytest.raises(DefinitionError, match="can only be used inside a pipeline body") as caught:
            made()
        assert caught.value.file == __file__


HEAD = """\
from __future__ import annotations
import datetime, enum, math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict
import numpy as np, pandas as pd
from pydantic import BaseModel
from penstock import on_exit, on_failure, one_of, otherwise, pipeline, step, when

class Mode(enum.Enum):
    FAST = 1

class Parts(NamedTuple):
    train: list[int]
    test: list[int]

@dataclass
class Best:
    accuracy: float
    name: str = ""

class Report(BaseModel):
    rows: int

class Counts(TypedDict):
    good: int

@step
def number(n: int = 1) -> int: ...

@step
def text(x: str = "") -> str: ...

@step
def best(of: Any = None) -> Best: ...

@step
def maybe() -> Best | None: ...

@step
def report() -> Report: ...

@step
def counts() -> Counts: ...

@step
def metrics() -> dict[str, float]: ...

@step
def mode() -> Mode: ...

@step
def kind() -> Literal["a", "b"]: ...

@step
def pair() -> tuple[int, str]: ...

@step
def table() -> pd.DataFrame: ...

@step
def array() -> np.ndarray: ...

@step
def file() -> Path: ...

@step
def split() -> Parts: ...

@step
def flag() -> bool: ...

@step
def late(x: int | None = None) -> int: ...

@step
def take(x: Any = None) -> Any: ...

"""

USES = [
    ("if number() > 3: pass", "the condition 'number > 3' has no value yet while the pipeline is compiled"),
    ("if number() > 3: pass", "use 'with when(...):' instead of 'if'"),
    ("if flag(): pass", "the result of step 'flag' has no value yet"),
    ("if n: pass", "parameter 'n' has no value yet"),
    ("while not flag(): pass", "so Python cannot evaluate it as true or false here"),
    ("number() > 3 and flag()", "& | ~ with parentheses, as in (a > 1) & (b < 2), instead of 'and'"),
    ("number() or 1", "so Python cannot evaluate it as true or false here"),
    ("1 < number() < 3", "the condition 'number > 1' has no value yet"),
    ("number() in [1, 2]", "the condition 'number == 1' has no value yet"),
    ("sorted([number(), number()])", "so Python cannot evaluate it as true or false here"),
    ("max(number(), 3)", "so Python cannot evaluate it as true or false here"),
    ("assert number() == 3", "so Python cannot evaluate it as true or false here"),
    (
        "flag() & number() > 3",
        "& combines conditions, but the result of step 'number' is not a condition. Put each comparison in",
    ),
    ("number() > 3 & number()", "& combines conditions, but the result of step 'number-2' is not a condition"),
    ("flag() & 1", "& combines conditions, but 1 (int) is not a condition"),
    ("(n > 1) | 'x'", "| combines conditions, but 'x' (str) is not a condition"),
    ("~number()", "~ combines conditions, but the result of step 'number' is not a condition"),
    ("(number() > 3) + 1", "the condition 'number > 3' has no value yet while the pipeline is compiled"),
    ("(number() > 3) == True", "cannot be compared here"),
    ("take(number() > 3)", "input 'x' of step 'take': the condition 'number > 3' can only be given to when()"),
    ("number() > '3'", "the result of step 'number' is int and cannot be compared (>) with '3' (str)"),
    ("number() > None", "cannot be compared (>) with None"),
    ("number() > text()", "cannot be compared (>) with the result of step 'text', which is str"),
    ("number() == '3'", "the result of step 'number' is int, so it is never equal to '3' (str)"),
    ("text() != 3", "so it is never equal to 3 (int)"),
    ("mode() == 'FAST'", "the result of step 'mode' is Mode, so it is never equal to 'FAST' (str)"),
    ("mode() > Mode.FAST", "cannot be compared (>)"),
    ("kind() == 'c'", "is Literal['a', 'b'], so it is never equal to 'c' (str)"),
    ("best() > 3", "the result of step 'best' is Best and cannot be compared (>) with 3 (int)"),
    ("metrics()['auc'] > 'x'", "the result of step 'metrics', field 'auc' is float and cannot be compared (>)"),
    ("number() == math.nan", "nan (float) cannot be used in a condition"),
    ("take() == datetime.date(2026, 1, 1)", "cannot be used in a condition"),
    ("take() == object()", "cannot be used in a condition: use numbers, strings, members of enumerations"),
    ("table() == 3", "the result of step 'table' has no value yet while the pipeline is compiled"),
    ("array() > 3", "so it cannot be compared or used in a condition here. Pass it to a step"),
    ("file() == 'x'", "cannot be compared or used in a condition here"),
    ("number() == split()", "the outputs (train, test) of step 'split' has no value yet"),
    ("best().acuracy", "the result of step 'best' is Best, which has no field 'acuracy' (its fields: accuracy, name)"),
    ("maybe().acuracy", "the result of step 'maybe' is Best | None, which has no field 'acuracy'"),
    ("report().row", "which has no field 'row' (its fields: rows)"),
    ("counts()['bad']", "which has no field 'bad' (its fields: good)"),
    ("counts().good", "which is a dictionary: use ['good']"),
    ("metrics().auc", "the result of step 'metrics' is dict[str, float], which is a dictionary: use ['auc']"),
    ("metrics()[0]", "which has string keys, not 0"),
    ("pair()[2]", "the result of step 'pair' is tuple[int, str], which has no item 2 (it has 2)"),
    ("pair()[-1]", "items of the result of step 'pair' do not support negative indexes: [-1]"),
    ("pair()[0:1]", "indexed with anything but one index or one name"),
    ("table().columns", "accessed by attribute 'columns' here"),
    ("table()['x']", "indexed with 'x' here"),
    ("number()[0]", "indexed with 0 here"),
    ("text(best().accuracy)", "takes str, but the result of step 'best', field 'accuracy' is float"),
    ("with when(True): pass", "when() takes a condition on results, such as best.accuracy >= 0.9, not True (bool)"),
    ("with when(split()): pass", "given to when() here"),
    ("with when(table()): pass", "cannot be compared or used in a condition here"),
    ("with otherwise(): pass", "otherwise() must directly follow a 'with when(...):' block"),
    ("one_of(number())", "one_of() takes at least two results of steps"),
    ("one_of(number() > 3, number())", "one_of() takes at least two results of steps"),
    ("one_of(1, number())", "one_of() takes at least two results of steps"),
    ("one_of(number(), 1, number())", "1 (int) is always available, so arguments after it are never used"),
    ("one_of(number(), split())", "only if all return the same NamedTuple"),
    ("text(one_of(number(), text()))", "takes str, but one_of(number, text) is int | str"),
    ("number().after(one_of(number(), text()))", ".after() takes what steps of this pipeline return"),
    ("number.with_options(trigger_rule='always')", "trigger_rule must be one of 'all_succeeded', 'all_done', 'any"),
    ("number.with_options(trigger_rule='all_done')(number())", "may be None, because of the trigger rule 'all_done'"),
    ("number.with_options(trigger_rule='all_done')(number())", "declare it as int | None"),
]


@pytest.mark.parametrize(("use", "says"), USES)
def test_rejected_definitions(user: UserModules, use: str, says: str) -> None:
    assert says in user.refused(f"@pipeline\ndef p(n: int = 1):\n    {use}  # here\n", HEAD)


BODIES = [
    ("with when(n > 1): number()\n    number()\n    with otherwise(): number()  # here", "must directly follow"),
    (
        "with when(n > 1): number()\n    with when(flag()):\n        with otherwise(): number()  # here",
        "otherwise() must directly follow",
    ),
    (
        "with when(n > 1): number()\n    with otherwise(): pass\n    with otherwise(): number()  # here",
        "directly follow",
    ),
    ("with when(n > 1):\n        with otherwise(): number()  # here", "directly follow"),
    (
        "with on_exit() as e: e.reason  # here",
        "accessed by attribute 'reason', which is neither 'error' nor 'outcome',",
    ),
    ("with on_exit():\n        with on_failure(): number()  # here", "on_failure() cannot be used inside"),
    (
        "with on_exit() as e: pass\n    text(e.outcome)  # here",
        "reads the outcome of the run, which only on_failure and on_exit steps",
    ),
    ("with on_exit() as e: text(e.error)  # here", "takes str, but the error of the run is str | None"),
    ("with on_exit() as e: e.outcome == 'failure'  # here", "so it is never equal to 'failure' (str)"),
    (
        "x = number()\n    with on_exit(): number(x)  # here",
        "may be None, because this step runs at the end of every run",
    ),
    (
        "with on_exit(): x = number()\n    number(x)  # here",
        "step 'number-2' waits for step 'number', which runs after all",
    ),
    ("with on_exit(): x = number()\n    number().after(x)  # here", "which runs after all others"),
    ("with when(kept[0] > 1): number()  # here", "belongs to another pipeline or to an earlier compilation"),
    ("one_of(kept[0], number())  # here", "belongs to another pipeline or to an earlier compilation"),
    ("number() > kept[0]  # here", "belongs to another pipeline"),
]


@pytest.mark.parametrize(("body", "says"), BODIES)
def test_invalid_bodies(user: UserModules, body: str, says: str) -> None:
    message = user.refused(
        f"@pipeline\ndef p(n: int = 1):\n    {body}\n\nkept = []\n\n"
        "@pipeline\ndef other():\n    kept.append(number())\n\nother.compile()\n",
        HEAD,
    )
    assert says in message
