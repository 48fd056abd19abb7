"""`Pipeline.local`: the whole pipeline in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sdk_sample_pipelines as samples

from penstock import InputError, context, pipeline, step
from penstock.step_context.contexts import Context, MemorySink, use_context


@pytest.fixture(autouse=True)
def clean() -> None:
    samples.calls.clear()


def test_local_runs_all_steps_in_order_and_returns_the_output() -> None:
    assert samples.training.local(size=0.5) == samples.Ends(best=6.0, parts=[3, 4])
    assert samples.calls == ["done", "first"]
    assert samples.training(config=samples.Config(10)) == samples.Ends(best=30.0, parts=[3, 4])
    assert samples.single.local(n=3) == 4
    assert samples.nothing.local() is None
    assert samples.outputs_of_one_step.local(items=[1, 2]) == samples.Parts([1], [2])
    assert samples.named.local(n=2) == {"twice": [2, 2], "both": [[2, 2], [1]], "n": 2}
    assert samples.awaiting.local(n=1) == 2


def test_after_is_respected() -> None:
    samples.backwards.local()
    assert samples.calls == ["should be first", "should be second", "should be last"]


def test_retries_happen_without_long_delays() -> None:
    assert samples.retrying.local(kind="reset") == 3
    assert samples.calls == ["reset"] * 3


def test_errors_that_are_not_retried_are_raised_with_their_step() -> None:
    with pytest.raises(ValueError, match="a value") as caught:
        samples.retrying.local(kind="value")
    assert samples.calls == ["value"]
    assert caught.value.__notes__ == ["raised in step 'fragile' of pipeline 'retrying'"]


def test_live_objects_pass_between_steps_as_they_are() -> None:
    @step
    def make() -> pd.DataFrame:
        return pd.DataFrame({"x": [1]})

    @step
    def same(one: pd.DataFrame, two: list[pd.DataFrame]) -> bool:
        return one is two[0]

    @pipeline
    def identity() -> bool:
        table = make()
        return same(table, [table])

    assert identity.local() is True


def test_local_runs_accept_tables_as_parameters() -> None:
    @step
    def count(table: pd.DataFrame) -> int:
        return len(table)

    @pipeline
    def counting(table: pd.DataFrame) -> int:
        return count(table)

    assert counting.local(table=pd.DataFrame({"x": [1, 2]})) == 2


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"m": 1}, r"inputs\.m: unknown parameter \(parameters: n\)"),
        ({}, r"inputs\.n: missing, expected int"),
        ({"n": "x"}, r'inputs\.n: expected int, got "x"'),
    ],
)
def test_wrong_inputs(inputs: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        samples.single.local(**inputs)


def test_a_wrong_result_names_step_and_output() -> None:
    @step
    def lie() -> int:
        return "no"  # type: ignore[return-value]

    @pipeline
    def lying() -> int:
        return lie()

    with pytest.raises(TypeError, match=r"output 'result' of step 'lie' is declared as int, but 'no' \(str\)"):
        lying.local()


def test_steps_log_to_the_context_around_the_run() -> None:
    sink = MemorySink()
    with use_context(Context(sink=sink)):
        samples.training.local()
    assert [one.name for one in sink.history] == ["size"] * 3


# ---------------------------------------------------------------------------------------------------------- context


class Recording:
    """A sink that records its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def metric(self, name: str, value: float, step: int | None) -> None:
        self.calls.append(("metric", name, value, step))

    def param(self, name: str, value: Any) -> None:
        self.calls.append(("param", name, value))

    def tag(self, name: str, value: str) -> None:
        self.calls.append(("tag", name, value))

    def artifact(self, name: str, value: object) -> None:
        self.calls.append(("artifact", name, value))

    def progress(self, done: float, total: float, text: str) -> None:
        self.calls.append(("progress", done, total, text))


def test_a_sink_receives_validated_values() -> None:
    sink = Recording()
    outside = context()
    with use_context(Context(run_id="r", step="s", attempt=2, pipeline="p", project="j", sink=sink)) as current:
        assert context() is current
        assert (current.run_id, current.step, current.attempt, current.pipeline, current.project) == (
            "r",
            "s",
            2,
            "p",
            "j",
        )
        context().log_metric("loss", 1, step=3)
        context().log_param("depths", (1, 2))
        context().log_param("odd", Path("x"))
        context().log_param("long", "x" * 20_000)
        context().log_artifact("report", Path("x"))
        context().progress(1.5)
        context().progress(np.int64(3), 10, "epoch 3")
        context().progress(-1, 2.5)
    assert context() is outside
    assert sink.calls[:3] == [("metric", "loss", 1.0, 3), ("param", "depths", [1, 2]), ("param", "odd", "x")]
    assert len(sink.calls[3][2]) == 10_000
    progress = [("progress", 1.0, 1, ""), ("progress", 3, 10, "epoch 3"), ("progress", 0, 2.5, "")]
    assert sink.calls[4:] == [("artifact", "report", Path("x")), *progress]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((float("nan"), 1), ValueError, "progress: done is nan"),
        ((1, float("inf")), ValueError, "progress: total is inf"),
        ((1, 0), ValueError, "progress: total must be positive, got 0"),
        (("1", "two"), TypeError, "progress: total must be a number, not str"),
        ((0.5, "half"), TypeError, "progress: total must be a number, not str"),
        ((1, 2, 3), TypeError, "progress: the text must be a string, not int"),
    ],
)
def test_progress_that_is_no_number_is_refused(arguments: Any, error: type[Exception], message: str) -> None:
    with use_context(Context(sink=Recording())), pytest.raises(error, match=message):
        context().progress(*arguments)


def test_figures_are_found_through_their_axes() -> None:
    from matplotlib.figure import Figure

    sink = Recording()
    figure = Figure()
    with use_context(Context(sink=sink)):
        context().log_figure("curve", figure.subplots())
        with pytest.raises(TypeError, match="log_figure"):
            context().log_figure("curve", 3)
    assert sink.calls == [("artifact", "curve", figure)]


@pytest.mark.parametrize(
    ("name", "value", "step", "error"),
    [
        ("loss", "0.1", None, TypeError),
        ("loss", None, None, TypeError),
        ("loss", [1], None, TypeError),
        ("loss", 0.1, 1.5, TypeError),
        ("", 0.1, None, ValueError),
        ("x" * 201, 0.1, None, ValueError),
        (3, 0.1, None, TypeError),
    ],
)
def test_wrong_metrics_are_refused(name: Any, value: Any, step: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        context().log_metric(name, value, step)
