"""Waiting steps over HTTP: answers, events, cancels of single steps; deadlines of runs."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from urllib.parse import quote

import pytest
from gateway_platform import Http, Platform, chain

from penstock_adapters.nats.buckets.waits import Waits
from penstock_adapters.nats.event_stream import EventStream
from penstock_adapters.nats.follower import Followers
from penstock_contracts import subjects
from penstock_core.facts import (
    AttemptFinished,
    CancelRequested,
    ErrorInfo,
    Outcome,
    RunRequested,
    StepCancelRequested,
    StepExpanded,
    StepSuspended,
)
from penstock_core.pipeline import ir
from penstock_core.pipeline.values import Inline, Param
from penstock_core.run import child_runs
from penstock_gateway.waits.open_questions import OpenQuestions

pytestmark = pytest.mark.asyncio(loop_scope="module")

ASK = ir.StepSpec(name="publish", entrypoint="", kind=ir.Kind.ASK, outputs=(ir.Port(name="result", type="str"),))
EVENT = ir.StepSpec(name="labels", entrypoint="", kind=ir.Kind.EVENT, outputs=(ir.Port(name="result", type="dict"),))
RUN = ir.StepSpec(name="scoring", entrypoint="", kind=ir.Kind.RUN, target="scoring", outputs=ASK.outputs)


def waiting_pipeline(name: str = "waits", **more: Any) -> ir.Pipeline:
    """A question, one inside a pipeline, one for each of a list, an event, a run of another pipeline."""
    over = {"question": Param("names")}
    return ir.Pipeline(
        name=name,
        params=(ir.Port(name="names", required=False, default=["a", "b"]),),
        steps={"publish": ASK, "labels": EVENT, "scoring": RUN},
        nodes=(
            ir.Node(key="publish", step="publish"),
            ir.Node(key="inner/publish", step="publish"),
            ir.Node(key="each", step="publish", inputs=over, mapped=ir.MapSpec(over=("question",))),
            ir.Node(key="labels", step="labels"),
            ir.Node(key="scoring", step="scoring"),
        ),
        **more,
    )


@pytest.fixture(scope="module")
def pipelines() -> set[str]:
    return set()


async def begun(platform: Platform, pipelines: set[str]) -> str:
    """A run of the waiting pipeline."""
    if not pipelines:
        await platform.add_version(waiting_pipeline())
        pipelines.add("waits")
    return await platform.request("waits", requested_at=time.time())


async def asks(platform: Platform, run_id: str, key: str = "publish", attempt: int = 1, **more: Any) -> StepSuspended:
    inputs = {"question": Inline("Publish?"), "choices": Inline(["yes", "no"])}
    fields = {"kind": ir.Kind.ASK, "inputs": inputs} | more
    fact = StepSuspended(run_id=run_id, key=key, attempt=attempt, **fields)
    await platform.log.append([fact])
    return fact


async def end(platform: Platform, run_id: str, key: str, attempt: int = 1) -> AttemptFinished:
    place = subjects.finished(run_id, key, attempt)
    deadline = time.monotonic() + 30
    while place not in (records := await platform.log.last([place])):
        assert time.monotonic() < deadline, "the attempt does not end"
        await asyncio.sleep(0.02)
    found = records[place].fact
    assert isinstance(found, AttemptFinished)
    return found


def path(run_id: str, key: str, verb: str = "answer") -> str:
    return f"/v1/runs/{run_id}/steps/{quote(key)}/{verb}"


# ------------------------------------------------------------------------------------------------------------ answers


@pytest.mark.parametrize("key", ["publish", "inner/publish", "each[1]"])
async def test_an_answer_finishes_the_step(platform: Platform, http: Http, pipelines: set[str], key: str) -> None:
    run_id = await begun(platform, pipelines)
    if key == "each[1]":
        await platform.log.append([StepExpanded(run_id=run_id, key="each", count=2)])
    await asks(platform, run_id, key)
    body = {"choice": "yes", "comment": "looks good"}
    answer = await http("POST", path(run_id, key), body)
    assert answer.status == 200, answer.body
    first = answer.json()
    assert (first["choice"], first["answered_by"], first["comment"], first["created"]) == (
        "yes",
        "token:default",
        "looks good",
        True,
    )
    fact = await end(platform, run_id, key)
    assert fact.outcome is Outcome.SUCCEEDED and fact.outputs == {"result": Inline("yes")}
    assert fact.params == {"answered_by": "token:default", "comment": "looks good"}
    again = await http("POST", path(run_id, key), {"choice": "yes"})
    assert (again.status, again.json()) == (200, first | {"created": False})
    other = await http("POST", path(run_id, key), {"choice": "no"})
    assert other.status == 409
    assert other.json()["title"] == "Conflict"
    assert other.json()["detail"] == f"Step {key!r} was already answered 'yes': by token:default (looks good)"


async def test_only_offered_choices_are_accepted(platform: Platform, http: Http, pipelines: set[str]) -> None:
    run_id = await begun(platform, pipelines)
    await asks(platform, run_id)
    answer = await http("POST", path(run_id, "publish"), {"choice": "maybe"})
    assert answer.status == 422 and answer.fields == {"choice"}
    assert answer.json()["detail"] == "'maybe' is not a choice of step 'publish': its choices: 'yes', 'no'"
    assert (await http("POST", path(run_id, "publish"), {})).status == 422
    assert (await http("POST", path(run_id, "publish"), {"choice": "yes", "comment": "x" * 2001})).fields == {"comment"}


async def test_answering_a_step_without_a_question_is_rejected(
    platform: Platform, http: Http, pipelines: set[str]
) -> None:
    run_id = await begun(platform, pipelines)
    body = {"choice": "yes"}
    assert (await http("POST", path(run_id, "publish"), body)).status == 409
    assert (await http("POST", path(run_id, "each[0]"), body)).status == 409
    assert (await http("POST", path(run_id, "nothing"), body)).status == 404
    assert (await http("POST", path(run_id, "publish[0]"), body)).status == 404
    assert (await http("POST", path("no-such-run", "publish"), body)).status == 404
    assert (await http("POST", path(run_id, "a b"), body)).status == 404
    await asks(platform, run_id, "labels", kind=ir.Kind.EVENT, inputs={"type": Inline("t")})
    assert (await http("POST", path(run_id, "labels"), body)).status == 409
    await asks(platform, run_id)
    error = ErrorInfo(type="Timeout", message="nobody answered in time")
    late = AttemptFinished(run_id=run_id, key="publish", attempt=1, outcome=Outcome.TIMED_OUT, error=error)
    await platform.log.append([late])
    answer = await http("POST", path(run_id, "publish"), body)
    assert (answer.status, answer.json()["detail"]) == (
        409,
        "Step 'publish' no longer waits for an answer: nobody answered in time",
    )


async def test_one_of_many_concurrent_answers_is_used(platform: Platform, http: Http, pipelines: set[str]) -> None:
    run_id = await begun(platform, pipelines)
    await asks(platform, run_id)
    bodies = [{"choice": "yes" if n % 2 else "no"} for n in range(10)]
    answers = await asyncio.gather(*(http("POST", path(run_id, "publish"), body) for body in bodies))
    created = [answer.json() for answer in answers if answer.status == 200 and answer.json()["created"]]
    assert len(created) == 1
    fact = await end(platform, run_id, "publish")
    assert fact.params["answered_by"] == created[0]["answered_by"]
    assert sorted(answer.status for answer in answers) == [200] * 5 + [409] * 5


async def open_questions(http: Http, run_id: str, count: int) -> list[dict[str, Any]]:
    async with asyncio.timeout(30):
        while True:
            found = (await http("GET", f"/v1/questions?run={run_id}")).json()["questions"]
            if len(found) == count:
                return found
            await asyncio.sleep(0.05)


async def test_open_questions_are_listed(platform: Platform, http: Http, pipelines: set[str]) -> None:
    run_id = await begun(platform, pipelines)
    await platform.log.append([StepExpanded(run_id=run_id, key="each", count=2)])
    await asks(platform, run_id, "publish", until=4e9)
    await asks(platform, run_id, "each[1]")
    await asks(platform, run_id, "labels", kind=ir.Kind.EVENT, inputs={"type": Inline("t")})
    found = await open_questions(http, run_id, 2)
    assert [one["step"] for one in found] == ["publish", "each[1]"]
    assert found[0] | {"since": 0} == {
        "run_id": run_id,
        "pipeline": "waits",
        "step": "publish",
        "attempt": 1,
        "question": "Publish?",
        "choices": ["yes", "no"],
        "default": None,
        "since": 0,
        "until": 4e9,
    }
    everything = (await http("GET", "/v1/questions?pipeline=waits")).json()["questions"]
    assert {one["step"] for one in everything if one["run_id"] == run_id} == {"publish", "each[1]"}
    assert (await http("GET", "/v1/questions?pipeline=other")).json()["questions"] == []
    await http("POST", path(run_id, "publish"), {"choice": "yes"})
    assert [one["step"] for one in await open_questions(http, run_id, 1)] == ["each[1]"]
    await platform.finish(run_id, Outcome.CANCELLED)
    await open_questions(http, run_id, 0)


async def test_questions_come_in_pages(platform: Platform, http: Http, pipelines: set[str]) -> None:
    run_id = await begun(platform, pipelines)
    for key in ("one", "two", "three", "four"):
        await asks(platform, run_id, key)
    error = ErrorInfo(type="Timeout", message="nobody answered in time")
    late = AttemptFinished(run_id=run_id, key="two", attempt=1, outcome=Outcome.TIMED_OUT, error=error)
    await platform.log.append([late])
    await open_questions(http, run_id, 3)
    first = (await http("GET", f"/v1/questions?run={run_id}&limit=2")).json()
    assert [one["step"] for one in first["questions"]] == ["one", "three"]
    rest = (await http("GET", f"/v1/questions?run={run_id}&limit=2&after={first['after']}")).json()
    assert [one["step"] for one in rest["questions"]] == ["four"] and rest["after"] is None
    await platform.finish(run_id, Outcome.CANCELLED)


async def test_the_first_list_of_questions_does_not_read_finished_runs(
    platform: Platform, http: Http, pipelines: set[str]
) -> None:
    run_id = await begun(platform, pipelines)
    await asks(platform, run_id, "publish")
    for _ in range(20):
        await platform.finish(await platform.request("waits"), Outcome.FAILED)
    context = platform.context
    questions = OpenQuestions(Followers(platform.bus), platform.log, context.log)
    read: list[str] = []
    add = questions._add
    questions._add = lambda item: (read.append(item.subject), add(item))[1]
    try:
        assert [one.step for one in (await questions.list("default", run_id)).questions] == ["publish"]
    finally:
        await questions.close()
    assert read and all(subject.endswith(".suspended") for subject in read)
    await platform.finish(run_id, Outcome.CANCELLED)


# -------------------------------------------------------------------------------------------------------------- views


async def test_a_suspended_step_shows_what_it_waits_for(platform: Platform, http: Http, pipelines: set[str]) -> None:
    run_id = await begun(platform, pipelines)
    await asks(platform, run_id, until=4e9)
    await asks(
        platform, run_id, "labels", kind=ir.Kind.EVENT, inputs={"type": Inline("labels.ready"), "key": Inline("d1")}
    )
    run = await asks(platform, run_id, "scoring", kind=ir.Kind.RUN, inputs={}, target="scoring")
    steps = (await http("GET", f"/v1/runs/{run_id}")).json()["steps"]
    assert steps["inner/publish"]["waits_for"] is None
    asked = steps["publish"]["waits_for"]
    assert (asked["kind"], asked["question"], asked["choices"], asked["until"]) == (
        "ask",
        "Publish?",
        ["yes", "no"],
        4e9,
    )
    awaited = steps["labels"]["waits_for"]
    assert (awaited["kind"], awaited["type"], awaited["key"]) == ("event", "labels.ready", "d1")
    child = steps["scoring"]["waits_for"]
    assert (child["kind"], child["run_id"], child["pipeline"]) == ("run", child_runs.run_id(run), "scoring")
    await http("POST", path(run_id, "publish"), {"choice": "yes"})
    step = (await http("GET", f"/v1/runs/{run_id}")).json()["steps"]["publish"]
    assert (step["state"], step["waits_for"], step["params"]) == ("succeeded", None, {"answered_by": "token:default"})


# ------------------------------------------------------------------------------------------------------------- events


async def expects(
    platform: Platform, run_id: str, kind: str, key: str | None = None, since: float | None = None
) -> Any:
    """Subscribe a step that waits for an event as the scheduler does; return the data of a stored event."""
    inputs = {"type": Inline(kind), "key": Inline(key)}
    fact = await asks(platform, run_id, "labels", kind=ir.Kind.EVENT, inputs=inputs)
    found = await Waits(platform.bus).expect(fact, time.time() if since is None else since)
    return None if found is None else found.data


async def test_an_event_finishes_the_steps_that_wait_for_it(
    platform: Platform, http: Http, pipelines: set[str]
) -> None:
    runs = [await begun(platform, pipelines) for _ in range(3)]
    await expects(platform, runs[0], "com.acme.ready", "d1")
    await expects(platform, runs[1], "com.acme.ready", "d1")
    await expects(platform, runs[2], "com.acme.ready", "d2")
    event = {"specversion": "1.0", "type": "com.acme.ready", "id": "e-1", "source": "s", "key": "d1", "data": {"n": 3}}
    answer = await http("POST", "/v1/events", event, headers={"content-type": "application/cloudevents+json"})
    assert answer.status == 202, answer.body
    taken = answer.json()
    assert (taken["id"], taken["source"], taken["duplicate"]) == ("e-1", "s", False)
    for run_id in runs[:2]:
        fact = await end(platform, run_id, "labels")
        assert fact.outputs == {"result": Inline({"n": 3})} and fact.params == {"event": "e-1"}
    assert subjects.finished(runs[2], "labels", 1) not in await platform.log.last(
        [subjects.finished(runs[2], "labels", 1)]
    )


async def test_events_are_deduplicated_by_source_and_id(platform: Platform, http: Http, pipelines: set[str]) -> None:
    event = {"type": "com.acme.twice", "source": "s", "id": "e\r\nx: 1", "key": "k", "data": {"n": 1}}
    early = await begun(platform, pipelines)
    first = await http("POST", "/v1/events", event)
    assert first.status == 202
    # A wait that begins after the event was stored finds it.
    assert (await expects(platform, early, "com.acme.twice", "k", time.time() - 60)) == {"n": 1}
    again = await http("POST", "/v1/events", event | {"data": {"n": 2}})
    assert again.status == 200 and again.json()["duplicate"]
    assert again.json()["sequence"] == first.json()["sequence"]
    other = await http("POST", "/v1/events", event | {"source": "t", "data": {"n": 3}})
    assert other.status == 202, "the same id of another source is another event"
    found = await EventStream(platform.bus).since("default", "com.acme.twice", 0.0)
    assert [one.data for one in found] == [{"n": 1}, {"n": 3}]


async def test_an_event_also_matched_by_the_scheduler(platform: Platform, http: Http, pipelines: set[str]) -> None:
    run_id, other = await begun(platform, pipelines), await begun(platform, pipelines)
    for waiting in (run_id, other):
        await expects(platform, waiting, "com.acme.race")
    known = AttemptFinished(run_id=run_id, key="labels", attempt=1, outcome=Outcome.SUCCEEDED, params={"event": "mine"})
    await platform.log.append([known])
    event = {"type": "com.acme.race", "source": "s", "id": "later"}
    assert (await http("POST", "/v1/events", event)).status == 202
    assert (await end(platform, other, "labels")).params == {"event": "later"}
    assert (await end(platform, run_id, "labels")).params == {"event": "mine"}


async def test_events_in_binary_mode(platform: Platform, http: Http, pipelines: set[str]) -> None:
    run_id = await begun(platform, pipelines)
    await expects(platform, run_id, "com.acme.binary", "d 1")
    headers = {
        "ce-specversion": "1.0", "ce-type": "com.acme.binary", "ce-source": "s", "ce-id": "b1", "ce-key": "d%201"
    }  # fmt: skip
    answer = await http("POST", "/v1/events", {"rows": 5}, headers=headers)
    assert answer.status == 202, answer.body
    assert (await end(platform, run_id, "labels")).outputs == {"result": Inline({"rows": 5})}


async def test_events_in_a_batch(platform: Platform, http: Http) -> None:
    content = {"content-type": "application/cloudevents-batch+json"}
    events = [{"type": "com.acme.many", "source": "s", "id": str(n), "data": n} for n in range(3)]
    answer = await http("POST", "/v1/events", events, headers=content)
    assert answer.status == 202, answer.body
    assert [one["id"] for one in answer.json()["events"]] == ["0", "1", "2"]
    refused = await http("POST", "/v1/events", [*events, {"type": "com.acme.many", "id": "9"}], headers=content)
    assert refused.status == 422
    assert [error["field"] for error in refused.json()["errors"]] == ["[3].source"]
    found = await EventStream(platform.bus).since("default", "com.acme.many", 0.0)
    assert sorted(one.data for one in found) == [0, 1, 2], "a batch is accepted as a whole or not at all"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"type": ""}, 422),
        ({"type": "t"}, 422),
        ({"type": "t", "id": "1"}, 422),
        ({"type": "x" * 301, "id": "1", "source": "s"}, 422),
        ({"type": "a b", "id": "1", "source": "s"}, 422),
        ({"type": "a.>", "id": "1", "source": "s"}, 422),
        ({"type": "t", "id": "1", "source": "s", "key": "x" * 1001}, 422),
        ({"type": "t", "id": "1", "source": "s", "data_base64": "aa"}, 422),
        ({"type": "t", "id": "1", "source": "s", "Not valid": "aa"}, 422),
        ({"type": "t", "id": "1", "source": "s", "extension": {}}, 422),
        ([1], 422),
        ({"type": "t", "id": "1", "source": "s", "data": "x" * 70_000}, 422),
        ({"type": "t", "id": "1", "source": "s", "data": "x" * 200_000}, 413),
    ],
)
async def test_invalid_events(http: Http, body: Any, status: int) -> None:
    assert (await http("POST", "/v1/events", body)).status == status


# ------------------------------------------------------------------------------------------------------ single steps


async def test_cancelling_one_step(platform: Platform, http: Http, pipelines: set[str]) -> None:
    run_id = await begun(platform, pipelines)
    await asks(platform, run_id)
    answer = await http("POST", path(run_id, "publish", "cancel"), {"reason": "not now"})
    assert (answer.status, answer.json()) == (202, {"run_id": run_id, "step": "publish", "state": None})
    assert (await http("POST", path(run_id, "publish", "cancel"))).status == 202
    facts = [record.fact for record in await platform.log.read(run_id)]
    asked = [fact for fact in facts if isinstance(fact, StepCancelRequested)]
    assert [(fact.key, fact.reason, fact.by) for fact in asked] == [("publish", "not now", "token:default")]
    assert (await http("POST", path(run_id, "each[7]", "cancel"))).status == 202, "its list is not known yet"
    await platform.log.append([StepExpanded(run_id=run_id, key="each", count=2)])
    assert (await http("POST", path(run_id, "each[1]", "cancel"))).status == 202
    unknown = await http("POST", path(run_id, "each[2]", "cancel"))
    assert unknown.status == 404 and "publish, inner/publish, each" in unknown.json()["detail"]
    assert (await http("POST", path(run_id, "nothing", "cancel"))).status == 404
    await asks(platform, run_id, "inner/publish")
    await http("POST", path(run_id, "inner/publish"), {"choice": "no"})
    over = await http("POST", path(run_id, "inner/publish", "cancel"))
    assert (over.status, over.json()["state"]) == (200, "succeeded")


async def test_the_principal_that_cancels_a_run_is_recorded(
    platform: Platform, http: Http, pipelines: set[str]
) -> None:
    run_id = await begun(platform, pipelines)
    await http("POST", f"/v1/runs/{run_id}/cancel", {"reason": "wrong data"})
    facts = [record.fact for record in await platform.log.read(run_id)]
    assert [(fact.by, fact.reason) for fact in facts if isinstance(fact, CancelRequested)] == [
        ("token:default", "wrong data")
    ]


# ---------------------------------------------------------------------------------------------------------- deadlines


async def request_of(platform: Platform, run_id: str) -> RunRequested:
    place = subjects.run(run_id, "requested")
    fact = (await platform.log.last([place]))[place].fact
    assert isinstance(fact, RunRequested)
    return fact


async def test_the_deadline_comes_from_the_request_or_the_pipeline(platform: Platform, http: Http) -> None:
    body = {"pipeline": "chain", "inputs": {"n": 1}}

    async def deadline(path: str, body: Any) -> float | None:
        answer = await http("POST", path, body)
        assert answer.status == 202, answer.body
        fact = await request_of(platform, answer.json()["run_id"])
        found.append(fact.run_id)
        return None if fact.deadline is None else round(fact.deadline - fact.requested_at, 3)

    found: list[str] = []
    assert await deadline("/v1/runs", body) is None
    assert await deadline("/v1/runs", body | {"deadline": 90}) == 90
    # A rerun has its own deadline, not the passed one.
    assert await deadline(f"/v1/runs/{found[-1]}/rerun", {}) is None
    assert await deadline(f"/v1/runs/{found[-1]}/rerun", {"deadline": 5.5}) == 5.5
    limited = chain("limited")
    await platform.add_version(ir.Pipeline(**{**_fields(limited), "deadline": 60.0}))
    assert await deadline("/v1/runs", body | {"pipeline": "limited"}) == 60
    assert await deadline("/v1/runs", body | {"pipeline": "limited", "deadline": 10}) == 10
    assert await deadline(f"/v1/runs/{found[-1]}/rerun", {}) == 60


def _fields(pipeline: ir.Pipeline) -> dict[str, Any]:
    return {name: getattr(pipeline, name) for name in ir.Pipeline.__slots__}


@pytest.mark.parametrize("wrong", [0, -1, 1e12, "soon"])
async def test_an_impossible_deadline_is_rejected(http: Http, wrong: Any) -> None:
    answer = await http("POST", "/v1/runs", {"pipeline": "chain", "inputs": {"n": 1}, "deadline": wrong})
    assert answer.status == 422 and answer.fields == {"deadline"}
