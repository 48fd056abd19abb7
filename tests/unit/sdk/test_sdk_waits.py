"""Waiting steps: compiled form, and errors with the user's line."""

from __future__ import annotations

import datetime
from typing import Any, NamedTuple

import pytest
import sdk_sample_graphs as samples
from sdk_user_modules import UserModules

from penstock import DefinitionError, ask, pipeline, run_pipeline, sleep, sleep_until, wait_for_event, when
from penstock_core.pipeline import ir, ir_check
from penstock_core.pipeline.conditions import Compare
from penstock_core.pipeline.ir import Kind, MapSpec
from penstock_core.pipeline.values import Inline, Output, Param, Pick


class Scores(NamedTuple):
    mean: float
    rows: int


@pipeline
def scoring(model: str, day: int = 1) -> Scores:
    one = samples.train([day], day)
    return Scores(one.score, samples.square(day))


def compiled(made: Any) -> tuple[dict[str, ir.Node], dict[str, ir.StepSpec]]:
    found = made.compile()
    ir_check.check(found)
    return {node.key: node for node in found.nodes}, found.steps


def test_questions() -> None:
    @pipeline
    def p(question: str = "Which?") -> str:
        answer = ask("Publish?", timeout="2d", default="no").after(samples.square(1))
        with when(answer == "yes"):
            samples.tell(answer)
        which = ask(question, choices=["a", samples.tell("b")], name="which")
        return samples.tell(which)

    nodes, steps = compiled(p)
    assert nodes["ask"].inputs == {
        "question": Inline("Publish?"),
        "choices": Inline(["yes", "no"]),
        "default": Inline("no"),
    }
    assert nodes["ask"].after == ("square",)
    assert nodes["tell"].when == Compare("eq", Output("ask"), Inline("yes"))
    assert nodes["which"].inputs["question"] == Param("question")
    spec = steps["ask"]
    assert (spec.kind, spec.entrypoint, spec.timeout) == (Kind.ASK, "", 172_800.0)
    assert [(port.name, port.type) for port in spec.outputs] == [("result", "Literal['yes', 'no']")]
    assert spec.file == __file__
    assert steps["which"].timeout is None


def test_events() -> None:
    @pipeline
    def p(dataset: str, several: list[str]) -> Any:
        event = wait_for_event("com.acme.labels.ready", key=dataset, timeout="7d")
        wait_for_event("com.acme.started")
        samples.tell(event["url"])
        return wait_for_event.partial("com.acme.labels.ready", name="labels", timeout=60).map(key=several)

    nodes, steps = compiled(p)
    assert nodes["wait_for_event"].inputs == {"type": Inline("com.acme.labels.ready"), "key": Param("dataset")}
    assert nodes["wait_for_event-2"].inputs == {"type": Inline("com.acme.started")}
    assert nodes["tell"].inputs == {"text": Pick(Output("wait_for_event"), ("url",))}
    assert nodes["labels"].mapped == MapSpec(over=("key",))
    assert (steps["labels"].kind, steps["labels"].timeout) == (Kind.EVENT, 60.0)
    assert steps["wait_for_event"].outputs[0].type == "dict[str, Any]"


def test_durations_and_times() -> None:
    moment = datetime.datetime(2026, 3, 1, 8, tzinfo=datetime.UTC)

    @pipeline
    def p(seconds: float, start: datetime.datetime) -> None:
        samples.square(1).after(sleep("10m"))
        sleep(seconds, name="pause")
        sleep_until(moment)
        sleep_until("2026-03-01T09:00:00+01:00")
        sleep_until(1.5)
        sleep_until(start)

    nodes, steps = compiled(p)
    assert nodes["sleep"].inputs == {"seconds": Inline(600.0)}
    assert nodes["square"].after == ("sleep",)
    assert nodes["pause"].inputs == {"seconds": Param("seconds")}
    untils = [node.inputs["until"] for key, node in nodes.items() if key.startswith("sleep_until")]
    assert untils == [Inline(moment.timestamp()), Inline(moment.timestamp()), Inline(1.5), Param("start")]
    assert {spec.kind for name, spec in steps.items() if name != "square"} == {Kind.SLEEP}


def test_other_pipelines() -> None:
    @pipeline
    def p(days: list[int]) -> Any:
        free = run_pipeline("other", version=3, timeout="1h", name="again", table="x")
        scored = run_pipeline(scoring, model="m")
        samples.square(scored.rows)
        samples.tell(free)
        return run_pipeline.partial(scoring, model="m").map(day=days)

    nodes, steps = compiled(p)
    assert nodes["again"].inputs == {"table": Inline("x")}
    assert (steps["again"].kind, steps["again"].target, steps["again"].target_version) == (Kind.RUN, "other", 3)
    assert steps["again"].timeout == 3600.0
    assert nodes["scoring"].inputs == {"model": Inline("m")}
    assert (steps["scoring"].target, steps["scoring"].target_version) == ("scoring", None)
    assert [(port.name, port.required) for port in steps["scoring"].inputs] == [("model", True), ("day", False)]
    assert nodes["square"].inputs == {"x": Pick(Output("scoring"), ("rows",))}
    assert nodes["scoring-2"].mapped == MapSpec(over=("day",))


def test_outside_a_pipeline() -> None:
    for make in (lambda: ask("?"), lambda: sleep(1), lambda: wait_for_event("x"), lambda: run_pipeline("x")):
        with pytest.raises(DefinitionError, match="waits can only be used inside a pipeline body") as caught:
            make()
        assert caught.value.file == __file__


HEAD = """\
from __future__ import annotations
import datetime
from penstock import ask, pipeline, run_pipeline, sleep, sleep_until, step, wait_for_event, when

@step
def number() -> int: ...

@step
def text() -> str: ...

@step
def say(x: str) -> None: ...

"""
INNER = """\
@pipeline
def inner(day: int) -> int:
    return number()
"""
WRONG = [
    ("ask(3)", "input 'question' of step 'ask' takes str, but 3 (int) is not str"),
    ("ask(number())", "takes str, but the result of step 'number' is int"),
    ("ask('?', choices=[])", "choices of ask() must be a list of distinct strings"),
    ("ask('?', choices='yes')", "choices of ask() must be a list of distinct strings, not 'yes'"),
    ("ask('?', choices=['a', 'a'])", "choices of ask() must be a list of distinct strings"),
    ("ask('?', default='maybe', timeout=1)", "default 'maybe' is not one of the choices 'yes', 'no'"),
    ("ask('?', default='yes')", "requires timeout=…"),
    ("ask('?', timeout='never')", "timeout must be a duration"),
    ("ask('?', name='a b')", "name 'a b' is not valid"),
    ("ask('?') == 'maybe'", "so it is never equal to 'maybe' (str)"),
    ("wait_for_event('')", "type of wait_for_event() must be a string such as"),
    ("wait_for_event(3)", "type of wait_for_event() must be a string such as"),
    ("wait_for_event('x', key=3)", "input 'key' of step 'wait_for_event' takes str, but 3 (int) is not str"),
    ("wait_for_event.partial('x').map()", "takes at least one list"),
    ("wait_for_event.partial('x').map(['a'])", "map() takes keyword arguments only"),
    ("say(wait_for_event('x'))", "takes str, but the result of step 'wait_for_event' is dict[str, Any]"),
    ("sleep('soon')", "sleep() must be a duration such as '10m'"),
    ("sleep(text())", "input 'seconds' of step 'sleep' takes float, but the result of step 'text' is str"),
    ("sleep_until('tomorrow')", "sleep_until() takes a datetime"),
    ("sleep_until('2026-03-01T08:00:00')", "has no time zone: write it with one"),
    ("sleep_until(datetime.datetime(2026, 3, 1))", "has no time zone"),
    ("sleep_until(text())", "takes datetime | float, but the result of step 'text' is str"),
    ("run_pipeline('a b')", "pipeline of run_pipeline() 'a b' is not valid"),
    ("run_pipeline(3)", "pipeline of run_pipeline() must be a string, not 3 (int)"),
    ("run_pipeline('x', version=0)", "version must be a whole number from 1"),
    ("run_pipeline(inner)", "step 'inner' requires input 'day' (int)"),
    ("run_pipeline(inner, day='x')", "input 'day' of step 'inner' takes int"),
    ("run_pipeline(inner, date=1)", "step 'inner' has no input 'date' (its inputs: day)"),
    ("say(run_pipeline(inner, day=1))", "takes str, but the result of step 'inner' is int"),
    ("run_pipeline.partial(inner).map(day=['a'])", "input 'day' of step 'inner' takes list[int], but item 0"),
]


@pytest.mark.parametrize(("call", "says"), WRONG)
def test_rejected_definitions(user: UserModules, call: str, says: str) -> None:
    assert says in user.refused(f"@pipeline\ndef p(n: int = 1):\n    {call}  # here\n\n{INNER}", HEAD)
