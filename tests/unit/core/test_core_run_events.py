"""The event about the end of a run: what triggers see of it, and the bound of chains."""

from __future__ import annotations

from typing import Any

import pytest

from penstock_adapters.cel import CelEvaluator
from penstock_core.deployments.definition import EventTrigger, subscription
from penstock_core.deployments.events import Event
from penstock_core.deployments.matching import Filtered, Matched, match, run_inputs
from penstock_core.facts import AttemptFinished, Outcome, RunFinished, RunRequested
from penstock_core.pipeline.values import ArtifactRef, Inline, Items, Stored
from penstock_core.run_events import next_hop, run_finished

MODEL = ArtifactRef(sha256="a" * 64, size=3, media_type="application/json", format="json")


def requested(**more: Any) -> RunRequested:
    fields: dict[str, Any] = {
        "run_id": "r1",
        "project": "default",
        "pipeline": "scoring",
        "version": 2,
        "requested_at": 100.0,
    } | more
    return RunRequested(**fields)


def end(key: str, attempt: int = 1, outcome: Outcome = Outcome.SUCCEEDED, **metrics: float) -> AttemptFinished:
    return AttemptFinished(run_id="r1", key=key, attempt=attempt, outcome=outcome, metrics=metrics)


def about(**more: Any) -> Event:
    fields: dict[str, Any] = {"run_id": "r1", "outcome": Outcome.SUCCEEDED} | more
    return run_finished(requested(labels={"team": "risk"}), RunFinished(**fields), [], 103.5)


def test_an_event_has_the_outputs_of_a_run_as_inputs_of_another_one() -> None:
    event = about(outputs={"rows": Inline(7), "model": Stored(MODEL), "parts": Items((Stored(MODEL),))})
    assert (event.type, event.source, event.id, event.subject) == (
        "penstock.run.finished.v1",
        "penstock/runs",
        "r1",
        "scoring",
    )
    assert event.time == "1970-01-01T00:01:43.500Z"
    assert (event.data["state"], event.data["duration"], event.data["labels"]) == ("succeeded", 3.5, {"team": "risk"})
    assert set(event.data["outputs"]) == {"rows", "model"}
    shape = subscription(
        "d", EventTrigger(name="t", types=(event.type,), inputs={"n": "data.outputs.rows", "m": "data.outputs.model"})
    )
    given = run_inputs(shape, [event], {}, CelEvaluator())
    assert given["n"] == 7
    assert given["m"]["artifact"]["sha256"] == MODEL.sha256


def test_metrics_are_those_of_the_last_successful_attempts() -> None:
    ends = [
        end("train", 1, Outcome.FAILED, accuracy=0.1),
        end("train", 2, accuracy=0.9, loss=float("nan")),
        end("check", 1, accuracy=0.5, rows=3.0),
    ]
    event = run_finished(requested(), RunFinished(run_id="r1", outcome=Outcome.SUCCEEDED), ends, 101.0)
    assert event.data["metrics"] == {"accuracy": 0.9, "rows": 3.0}


@pytest.mark.parametrize(
    ("filter", "matches"),
    [
        ("data.state == 'succeeded' && data.pipeline == 'scoring'", True),
        ("data.state == 'failed'", False),
        ("has(data.metrics.accuracy) && data.metrics.accuracy < 0.8", False),
    ],
)
def test_filters_on_ends_of_runs(filter: str, matches: bool) -> None:
    shape = subscription("d", EventTrigger(name="t", types=("penstock.run.*",), filter=filter))
    assert isinstance(match(shape, about(), CelEvaluator()), Matched if matches else Filtered)


def test_runs_that_start_each_other_are_counted() -> None:
    first = about()
    assert next_hop([first]) == 0, "a run that no trigger started begins a chain"
    later = run_finished(requested(trigger={"hops": "4"}), RunFinished(run_id="r1", outcome=Outcome.FAILED), [], 101.0)
    assert next_hop([first, later]) == 5
    foreign = Event(project="default", type="x", source="acme", id="1", extensions={"hops": 30})
    assert next_hop([foreign]) == 0, "only events of the platform count"
