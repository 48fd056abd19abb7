"""`Pipeline.local` of fan-out, conditions, rules, handlers and waits: the platform's behaviour, in this process."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd
import pytest
import sdk_sample_graphs as samples

from penstock import (
    InputError,
    ask,
    context,
    on_exit,
    on_failure,
    one_of,
    otherwise,
    pipeline,
    run_pipeline,
    sleep,
    sleep_until,
    step,
    wait_for_event,
    when,
)
from penstock.errors import RunFailedError

done: list[str] = []


@pytest.fixture(autouse=True)
def clean() -> None:
    done.clear()


@step
def mark(text: str) -> str:
    done.append(text)
    return text


@step
def fail(text: str = "no") -> str:
    done.append("fail")
    raise ValueError(text)


@step
def odd(x: int) -> int:
    if x % 2 == 0:
        raise ValueError(f"{x} is even")
    return x


def test_map_grid_and_fan_in() -> None:
    assert samples.tuning.local() == {"best": "model-2", "scores": pytest.approx([0.6, 6.0, 1.2, 12.0])}
    assert samples.chained.local(n=3) == 2 + 5 + 10
    assert samples.chained.local(n=0) == 0


def test_items_get_the_live_objects_of_lists() -> None:
    @dataclass
    class Local:
        n: int

    made = [Local(1), Local(2)]
    tables = [pd.DataFrame({"x": [1]}), pd.DataFrame({"x": [1, 2]})]

    @step
    def objects() -> list[Local]:
        return made

    @step
    def same(one: Local) -> bool:
        return one in made and any(one is other for other in made)

    @step
    def rows(table: pd.DataFrame) -> int:
        return len(table)

    @step
    def both(tables: list[pd.DataFrame], first: pd.DataFrame) -> bool:
        return tables[0] is first

    @pipeline
    def p(tables: list[pd.DataFrame]) -> dict[str, Any]:
        return {"same": same.map(objects()), "rows": rows.map(tables), "both": both(tables, tables[0])}

    assert p.local(tables=tables) == {"same": [True, True], "rows": [1, 2], "both": True}


def test_failed_items() -> None:
    @pipeline
    def tolerant(least: Any = None) -> int:
        return samples.tolerant(odd.with_options(min_success=0.5).map([1, 2, 3]))

    @pipeline
    def strict() -> int:
        return samples.total(odd.map([1, 2, 3, 4]))

    assert tolerant.local() == 4
    with pytest.raises(ValueError, match="2 is even") as caught:
        strict.local()
    assert caught.value.__notes__ == ["raised in step 'odd[1]' of pipeline 'strict'"]


def test_lists_of_different_lengths_are_rejected_at_run_time() -> None:
    @pipeline
    def p(n: int) -> Any:
        return samples.add.map(x=samples.numbers(n), y=[1, 2])

    assert p.local(n=2) == [2, 4]
    with pytest.raises(RunFailedError, match="the lists have different lengths: 'x' has 3, 'y' has 2"):
        p.local(n=3)


def test_branches() -> None:
    @pipeline
    def p(score: float, fast: bool = True) -> str:
        best = samples.select(["a"], [score])
        with when(best.accuracy >= 0.9):
            one = mark("good")
            with when((best.name == "a") & fast):
                mark("fast")
            with otherwise():
                mark("slow")
        with otherwise():
            two = mark("bad")
        with when(samples.choose(True) == samples.Mode.FAST):
            mark("mode")
        return mark(one_of(one, two))

    assert p.local(score=0.95) == "good"
    assert done == ["good", "fast", "mode", "good"]
    done.clear()
    assert p.local(score=0.95, fast=False) == "good"
    assert done == ["good", "slow", "mode", "good"]
    done.clear()
    assert p.local(score=0.5) == "bad"
    assert done == ["bad", "mode", "bad"]


def test_conditions_on_every_kind_of_small_result() -> None:
    @pipeline
    def p(limits: list[float] = [0.5]) -> None:  # noqa: B006 - as users write it
        with when(samples.measure("aa")["auc"] > limits[0]):
            mark("dict")
        with when(samples.report(2).ok):
            mark("pydantic")
        with when(samples.count(2)["good"] == 2):
            mark("typed dict")
        with when(~samples.flag(False)):
            mark("flag")
        with when(samples.numbers(3) == [1, 2, 3]):
            mark("list")
        with when(samples.anything({"a": [{"b": 3}]})["a"][0]["b"] == 3):
            mark("deep")
        with when(samples.square.map([2, 3])[1] == 9):
            mark("mapped")

    p.local()
    assert done == ["dict", "pydantic", "typed dict", "flag", "list", "deep", "mapped"]


def test_fields_of_results_can_be_inputs() -> None:
    class Frame(NamedTuple):
        table: pd.DataFrame
        name: str

    @dataclass
    class Holder:
        table: pd.DataFrame

    table = pd.DataFrame({"x": [1]})

    @step
    def hold() -> Holder:
        return Holder(table)

    @step
    def is_it(found: pd.DataFrame) -> bool:
        return found is table

    @pipeline
    def p() -> Any:
        return {"it": is_it(hold().table), "name": mark(samples.select(["a"], [0.5]).name)}

    assert p.local() == {"it": True, "name": "a"}


def test_a_skipped_output_is_none() -> None:
    @pipeline
    def p(on: bool) -> Any:
        with when(on):
            made = mark("made")
        return {"made": made, "always": mark("always")}

    assert p.local(on=False) == {"made": None, "always": "always"}


def test_trigger_rules_and_handlers() -> None:
    @step
    def cleanup(outcome: str, error: str | None) -> None:
        done.append(f"{outcome}: {error}")

    @pipeline
    def p(text: str) -> str:
        with when(text != "fine"):
            bad = fail(text)
        mark.with_options(trigger_rule="any_failed")("alarm").after(bad)
        with on_failure() as failure:
            mark(failure.error)
        with on_exit() as ending:
            cleanup(ending.outcome, ending.error)
        samples.note.with_options(trigger_rule="all_done")(bad)
        return mark("end")

    with pytest.raises(ValueError, match="broken") as caught:
        p.local(text="broken")
    assert caught.value.__notes__ == ["raised in step 'fail' of pipeline 'p'"]
    error = "step 'fail' failed: ValueError: broken"
    assert done == ["fail", "alarm", "end", error, f"failed: {error}"]
    done.clear()
    assert p.local(text="fine") == "end"
    assert done == ["end", "succeeded: None"]


def test_retries_are_counted_per_item() -> None:
    @step(retries=2, retry_delay="1h")
    def flaky(x: int) -> int:
        done.append(f"{x}.{context().attempt}")
        if context().attempt <= x:
            raise ConnectionError
        return x

    @pipeline
    def p() -> Any:
        return flaky.map([0, 1, 2])

    assert p.local() == [0, 1, 2]
    assert sorted(done) == ["0.1", "1.1", "1.2", "2.1", "2.2", "2.3"]


@pipeline
def waiting(dataset: str = "d1") -> Any:
    labels = wait_for_event("com.acme.labels.ready", key=dataset, timeout="7d")
    sleep("1d").after(labels)
    sleep_until(datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC))
    answer = ask("Publish?")
    with when(answer == "yes"):
        mark(labels["url"])
    return ask("Which?", choices=["a", "b"], name="which")


def test_waits_receive_the_values_given_by_the_caller() -> None:
    events = {"com.acme.labels.ready": {"url": "s3://x"}}
    assert waiting.local(answers={"Publish?": "yes", "which": "b"}, events=events) == "b"
    assert done == ["s3://x"]
    done.clear()
    assert waiting.local(answers={"ask": "no", "Which?": "a"}, events={"wait_for_event": {}}) == "a"
    assert done == []


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            {},
            r"waits for an event of type 'com.acme.labels.ready': pass local\(events={'com.acme.labels.ready': {…}}\)",
        ),
        ({"events": {"com.acme.labels.ready": 3}}, "the event for step 'wait_for_event': expected dict"),
        ({"events": {"wait_for_event": {}}}, r"step 'ask' asks 'Publish\?': pass local\(answers={'ask': 'yes'}\)"),
        ({"events": {"wait_for_event": {}}, "answers": {"ask": "x"}}, "the answer 'x' is not one of 'yes', 'no'"),
    ],
)
def test_missing_wait_values(given: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        waiting.local(**given)


def test_a_question_uses_its_default() -> None:
    @pipeline
    def p() -> Any:
        return ask("Publish?", timeout="1d", default="no")

    assert p.local() == "no"
    assert p.local(answers={"Publish?": "yes"}) == "yes"


def test_child_pipelines_run_locally_or_are_given() -> None:
    @pipeline
    def scoring(model: str, answers: int = 1) -> dict[str, Any]:
        return {"text": mark(model), "n": samples.square(answers)}

    @pipeline
    def p() -> Any:
        named = run_pipeline("other", table="t")
        mapped = run_pipeline.partial(scoring, model="m").map(answers=[2, 3])
        return {"named": named, "mapped": mapped, "second": mapped[1]}

    assert p.local(runs={"other": 5}) == {
        "named": 5,
        "mapped": [{"text": "m", "n": 4}, {"text": "m", "n": 9}],
        "second": {"text": "m", "n": 9},
    }
    assert scoring.local(model="x", answers=4) == {"text": "x", "n": 16}, "a parameter of that name comes first"
    with pytest.raises(InputError, match="step 'other' runs pipeline 'other', which is not loaded"):
        p.local()


def test_errors_without_a_step_exception() -> None:
    @pipeline
    def p() -> None:
        with when(samples.anything({})["missing"] > 3):
            mark("x")

    with pytest.raises(
        RunFailedError, match=r"its condition cannot be evaluated: anything\.missing: there is no field"
    ):
        p.local()


def test_many_items() -> None:
    @pipeline
    def p() -> int:
        return samples.total(samples.square.map(list(range(3_000))))

    assert p.local() == sum(n * n for n in range(3_000))
