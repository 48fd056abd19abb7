"""Recorded runs, folded by the current code: each must reach the state that the platform showed when it finished."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from penstock_contracts import fact_codec
from penstock_contracts.run_history import InvalidHistoryError
from penstock_core.facts import AttemptFinished, AttemptRequested, Fact, Outcome, RunFinished
from penstock_core.pipeline.values import Inline, ResultOf
from penstock_core.ports import Recorded
from penstock_core.run import machine
from penstock_core.run.machine import TERMINAL_STATUSES, RunState, StepState
from penstock_testkit import histories
from penstock_testkit.checks.invariants import InvariantError
from penstock_testkit.checks.state_machine import dump
from penstock_testkit.histories import History, without_later_defaults

HERE = Path(__file__).parent
FILES = {path.stem: path for path in sorted(HERE.glob("*.jsonl"))}
EXPECTED: dict[str, dict[str, Any]] = json.loads((HERE / "expected.json").read_text())

every_history = pytest.mark.parametrize("name", FILES)


def load(name: str) -> History:
    return histories.load(FILES[name])


def shown(state: RunState) -> dict[str, Any]:
    """Return a folded run in the format of `expected.json`."""
    assert state.finished
    steps = {key: shown_step(step) for key, step in state.steps.items()}
    run = {"outcome": state.finished.outcome, "error": state.finished.error, "outputs": state.finished.outputs}
    return without_later_defaults(orjson.loads(orjson.dumps({**run, "steps": steps})))


def shown_step(step: StepState) -> dict[str, Any]:
    shown = {
        "status": step.status,
        "attempts": step.attempt,
        "reason": step.reason,
        "error": [step.error.type, step.error.message] if step.error else None,
        "outputs": step.outputs,
        "artifacts": step.artifacts,
        "metrics": step.metrics,
        "params": step.params,
    }
    if step.mapped is not None:
        shown["count"] = step.mapped.count
        shown["items"] = {step.mapped.items[n].key: shown_step(step.mapped.items[n]) for n in sorted(step.mapped.items)}
    return shown


def test_every_history_has_an_expected_state() -> None:
    assert len(FILES) >= 20
    assert FILES.keys() == EXPECTED.keys()


@every_history
def test_histories_fold_to_their_recorded_state(name: str) -> None:
    state = load(name).fold()
    assert shown(state) == without_later_defaults(EXPECTED[name])
    skipped = EXPECTED[name]["outcome"] == "skipped"
    assert all(step.status in TERMINAL_STATUSES or skipped for step in state.steps.values())
    assert machine.decide(state) == []
    assert state.alarm() is None
    assert not state.early


@every_history
def test_histories_replay_to_the_same_decisions(name: str) -> None:
    history = load(name)
    assert history.unaccounted_facts() == []
    history.check()


@every_history
def test_every_prefix_folds_and_decides_deterministically(name: str) -> None:
    history = load(name)
    for length, state in enumerate(history.prefixes()):
        again = history.fold(length)
        assert machine.decide(state) == machine.decide(state) == machine.decide(again)
        assert dump(state) == dump(again)
        assert list(state.frontier) == list(again.frontier)


@every_history
def test_duplicate_delivery_does_not_change_a_history(name: str) -> None:
    history = load(name)
    twice = [fact for fact in history.facts for _ in range(2)]
    for facts in (twice, history.facts + history.facts):
        assert shown(machine.fold(history.run_id, history.plan, facts)) == without_later_defaults(EXPECTED[name])


@every_history
def test_recorded_facts_round_trip(name: str) -> None:
    for fact in load(name).facts:
        assert fact_codec.decode(fact_codec.subject(fact), fact_codec.encode(fact)) == fact


# -------------------------------------------------------------------------------------- what the recordings are about


def facts(name: str, kind: type[Fact]) -> list[Any]:
    return [fact for fact in load(name).facts if isinstance(fact, kind)]


def ends(name: str) -> list[tuple[str, int, str, str]]:
    return [(end.key, end.attempt, end.outcome, end.error.type) for end in facts(name, AttemptFinished) if end.error]


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("retries", [("shaky", 1, "failed", "ConnectionError"), ("shaky", 2, "failed", "ConnectionError")]),
        ("timeout", [("endless", 1, "timed_out", "Timeout")]),
        ("exit_code", [("exits", 1, "failed", "Exit")]),
        ("killed", [("shot", 1, "failed", "Signal")]),
        ("out_of_memory", [("greedy", 1, "failed", "OutOfMemory")]),
        ("lost", [("sleeps", 1, "lost", "Lost")]),
        ("unreadable_end", [("sleeps", 1, "lost", "CorruptEvent")]),
        ("unreadable_early_end", [("one-2", 1, "lost", "CorruptEvent")]),
        ("unreadable_request", [("one", 1, "lost", "CorruptEvent")]),
    ],
)
def test_recordings_cover_the_intended_outcomes(name: str, bad: list[tuple[str, int, str, str]]) -> None:
    assert ends(name) == bad


def test_recordings_cover_the_intended_decisions() -> None:
    waits = [fact.not_before for fact in facts("retries", AttemptRequested) if fact.key == "shaky"]
    assert waits[0] is None
    assert all(waits[1:])
    by_name = [fact.inputs["texts"] for fact in facts("by_reference", AttemptRequested) if fact.key == "lengths"]
    assert all(isinstance(item, ResultOf) for item in by_name[0].items)
    assert load("cron").fold().requested.trigger["type"] == "cron"  # type: ignore[union-attr]
    assert load("chain").fold().requested.priority == 3  # type: ignore[union-attr]
    assert facts("cancel_before_start", AttemptRequested) == []
    assert load("empty").states() == {}
    assert load("unreadable_end").header.pipeline.name == "sleeping"


# ------------------------------------------------------------------------------------- what a check has to find out


def changed(name: str, kind: type[Fact], **changes: Any) -> History:
    """Return a history whose first fact of a kind is replaced."""
    history = load(name)
    index = next(n for n, record in enumerate(history.recorded) if isinstance(record.fact, kind))
    recorded = list(history.recorded)
    old = recorded[index]
    recorded[index] = Recorded(old.seq, old.at, dataclasses.replace(old.fact, **changes))
    return History(history.header, tuple(recorded))


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (AttemptRequested, {"inputs": {"x": Inline(0)}}),
        (AttemptRequested, {"priority": 99}),
        (AttemptRequested, {"timeout": 1.0}),
        (AttemptFinished, {"outcome": Outcome.FAILED}),
        (RunFinished, {"outputs": {}}),
        (RunFinished, {"outcome": Outcome.FAILED, "error": "no"}),
    ],
)
def test_a_changed_decision_is_detected(kind: type[Fact], changes: dict[str, Any]) -> None:
    load("chain").check()
    with pytest.raises(InvariantError):
        changed("chain", kind, **changes).check()


def test_a_different_policy_changes_the_decisions() -> None:
    history = load("retries")
    specs = history.pipeline.steps
    stubborn = dataclasses.replace(specs["shaky"], retry=dataclasses.replace(specs["shaky"].retry, delay=9.0))
    pipeline = dataclasses.replace(history.pipeline, steps={**specs, "shaky": stubborn})
    other = History(history.header.model_copy(update={"pipeline": pipeline}), history.recorded)
    assert [fact.tail for fact in other.unaccounted_facts()] == [
        "step.shaky.2.requested.default",
        "step.shaky.3.requested.default",
    ]


@pytest.mark.parametrize(
    ("number", "line", "why"),
    [
        (1, "", "not the header"),
        (1, '{"penstock_history": 2, "run_id": "a"}', "not the header"),
        (1, "[]", "not the header"),
        (2, "{", "not a fact"),
        (2, '{"seq": 1, "at": 1.0, "type": "penstock.run.eaten.v1", "fact": {}}', "unknown type of fact"),
        (2, '{"seq": 1, "at": 1.0, "type": "penstock.run.finished.v1", "fact": {"run_id": "a b"}}', "not a fact"),
        (2, '{"seq": 1, "at": 1.0, "type": "penstock.run.finished.v1", "fact": {"run_id": "a"}}', "outcome"),
    ],
)
def test_an_invalid_line_is_reported_with_its_line_number(tmp_path: Path, number: int, line: str, why: str) -> None:
    lines = FILES["chain"].read_text().splitlines()
    lines[number - 1] = line
    file = tmp_path / "wrong.jsonl"
    file.write_text("\n".join(lines))
    with pytest.raises(InvalidHistoryError, match=why) as raised:
        histories.load(file)
    assert str(raised.value).startswith(f"{file}:{number}: ")


def test_an_empty_file_is_not_a_history(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(InvalidHistoryError, match=r"empty\.jsonl:1: "):
        histories.load(tmp_path / "empty.jsonl")


def test_unknown_keys_of_a_newer_version_are_ignored(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in FILES["chain"].read_text().splitlines()]
    for line in lines:
        line["later"] = 1
        line.get("fact", {})["later"] = {"x": 1}
    (tmp_path / "later.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert histories.load(tmp_path / "later.jsonl").facts == load("chain").facts


@every_history
def test_every_recorded_run_converts_to_openlineage_events(name: str) -> None:
    openlineage = pytest.importorskip(
        "penstock_gateway.lineage.openlineage", reason="openlineage-python is not installed"
    )
    state = load(name).fold()
    sent = openlineage.events(state, 1_700_000_000.0, 1_700_000_100.0)
    begun = [event.run.runId for event in sent if event.eventType.name == "START"]
    ended = [event.run.runId for event in sent if event.eventType.name != "START"]
    assert sorted(begun) == sorted(ended)
    assert len(set(begun)) == len(begun)
    made = {one.name for event in sent for one in event.outputs}
    read = {one.name for event in sent for one in event.inputs if ".inputs." not in one.name}
    there = {key for key, step in state.steps.items() if step.status in (machine.Status.CACHED,) or step.from_run}
    assert {one for one in read - made if one.split(".")[1] not in there} == set()
