"""Which runs are deleted and archived: examples, and properties over arbitrary runs and policies."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_core import retention
from penstock_core.retention import InvalidPolicyError, Policy, RunRecord

DAY = 86400.0
NOW = 1000 * DAY


def run(name: str, days: float, **other: Any) -> RunRecord:
    """A run that finished some days ago."""
    at = NOW - days * DAY
    given_: dict[str, Any] = {"pipeline": "train", "state": "succeeded", "requested_at": at, "finished_at": at, **other}
    return RunRecord(run_id=name, **given_)


def going(runs: list[RunRecord], *policies: Policy, protected: dict[str, str] | None = None) -> set[str]:
    return {name for name, decision in retention.decide(runs, policies, NOW, protected).items() if decision.goes}


def test_nothing_is_deleted_without_a_policy() -> None:
    runs = [run("a", 10_000), run("b", 1)]
    decisions = retention.decide(runs, [], NOW)
    assert going(runs) == set()
    assert decisions["a"].reason == "no policy matches it"


def test_a_run_is_deleted_after_its_retention_time() -> None:
    runs = [run("old", 91), run("new", 89), run("open", 400, state="")]
    policy = Policy(name="short", keep_for=90 * DAY)
    assert going(runs, policy) == {"old"}
    decisions = retention.decide(runs, [policy], NOW)
    assert decisions["old"].reason == "it is older than policy 'short' keeps"
    assert decisions["new"].reason == "policy 'short' keeps runs for 90 d"
    assert decisions["open"].reason == "it is active"


def test_the_latest_runs_of_each_pipeline_are_retained_at_any_age() -> None:
    runs = [run("a1", 500), run("a2", 400), run("a3", 300), run("b1", 900, pipeline="report")]
    policy = Policy(name="p", keep_last=2)
    assert going(runs, policy) == {"a1"}
    assert going(runs, Policy(name="p", keep_last=1, keep_for=350 * DAY)) == {"a1", "a2"}
    assert retention.decide(runs, [policy], NOW)["b1"].reason == "policy 'p' keeps the latest 2"


def test_a_policy_affects_only_matching_runs() -> None:
    runs = [
        run("failed", 50, state="failed"),
        run("good", 50),
        run("other", 50, pipeline="sweep-depth", state="failed"),
        run("elsewhere", 50, project="lab", state="failed"),
    ]
    assert going(runs, Policy(name="p", states=("failed",), keep_for=DAY)) == {"failed", "other", "elsewhere"}
    assert going(runs, Policy(name="p", pipeline="sweep-*", keep_for=DAY)) == {"other"}
    assert going(runs, Policy(name="p", project="lab", keep_for=DAY)) == {"elsewhere"}


def test_any_matching_policy_can_retain_a_run() -> None:
    runs = [run("a", 50), run("b", 50, pipeline="report")]
    short, always = Policy(name="short", keep_for=DAY), Policy(name="reports", pipeline="report", forever=True)
    assert going(runs, short, always) == {"a"}
    assert retention.decide(runs, [short, always], NOW)["b"].reason == "policy 'reports' keeps it forever"


def test_protected_runs_are_retained_with_their_dependencies() -> None:
    runs = [
        run("first", 90),
        run("second", 80, reuses="first"),
        run("third", 70, reuses="second"),
        run("child", 60, caller="third"),
        run("grandchild", 60, caller="child"),
        run("other", 60),
    ]
    decisions = retention.decide(runs, [Policy(name="p", keep_for=0)], NOW, {"third": "alias 'production' of 'm'"})
    assert {name for name, decision in decisions.items() if decision.goes} == {"other"}
    assert decisions["third"].reason == "alias 'production' of 'm'"
    assert decisions["first"].reason == "run second, which is kept, needs its results"
    assert decisions["grandchild"].reason == "run child, which is kept, needs its results"


def test_dependencies_of_unfinished_runs_are_retained() -> None:
    runs = [run("done", 90), run("resumed", 1, state="", reuses="done")]
    assert going(runs, Policy(name="p", keep_for=0)) == set()


def test_finished_runs_unneeded_by_unfinished_ones_are_archived() -> None:
    runs = [
        run("old", 20),
        run("older", 30),
        run("new", 5),
        run("there", 30, archived=True),
        run("open", 90, state="", reuses="taken-over"),
        run("taken-over", 90),
        run("child", 50, caller="open"),
        run("parent", 50),
        run("open-child", 50, state="", caller="parent"),
    ]
    found = retention.to_archive(runs, 14 * DAY, NOW)
    assert [note.run_id for note in found] == ["older", "old"]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"keep_for": -1.0}, "keep_for"),
        ({"keep_for": float("nan")}, "keep_for"),
        ({"keep_last": -1}, "keep_last"),
        ({"states": ("running",), "keep_for": 1.0}, "states"),
        ({"pipeline": "", "keep_for": 1.0}, "pipeline"),
        ({"forever": True, "keep_last": 1}, "forever"),
        ({}, "keep_for"),
        ({"name": "a b", "keep_for": 1.0}, "name"),
    ],
)
def test_invalid_policies_are_rejected(wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidPolicyError) as caught:
        Policy(**{"name": "p", **wrong})
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (90, "1.5 min"), (3600, "1 h"), (90 * DAY, "90 d"), (5000 * DAY, "5000 d")]
)
def test_durations_are_described_in_words(seconds: float, text: str) -> None:
    assert retention.duration(seconds) == text


# ---------------------------------------------------------------------------------------------------------------- laws

NAMES = [f"r{n}" for n in range(12)]


@st.composite
def histories(draw: st.DrawFn) -> list[RunRecord]:
    """Runs in the order of their requests; each depends on earlier runs, or on runs that it starts."""
    found: list[RunRecord] = []
    for name in NAMES[: draw(st.integers(0, len(NAMES)))]:
        earlier = [note.run_id for note in found]
        at = NOW - draw(st.floats(0, 100)) * DAY
        found.append(
            RunRecord(
                run_id=name,
                project=draw(st.sampled_from(["default", "lab"])),
                pipeline=draw(st.sampled_from(["train", "report"])),
                requested_at=at,
                finished_at=at,
                state=draw(st.sampled_from(["", *retention.STATES])),
                reuses=draw(st.sampled_from(["", *earlier])),
                caller=draw(st.sampled_from(["", *earlier])),
                archived=draw(st.booleans()),
            )
        )
    return found


policies = st.lists(
    st.builds(
        Policy,
        name=st.sampled_from(["p", "q"]),
        project=st.sampled_from(["*", "lab"]),
        pipeline=st.sampled_from(["*", "train", "re*"]),
        states=st.sampled_from([(), ("failed",), ("succeeded", "cancelled")]),
        keep_for=st.floats(0, 120).map(lambda days: days * DAY),
        keep_last=st.none() | st.integers(0, 5),
    ),
    max_size=3,
)
holds = st.dictionaries(st.sampled_from(NAMES), st.just("held"), max_size=2)


@given(histories(), policies, holds)
def test_retained_runs_never_depend_on_deleted_ones(
    runs: list[RunRecord], wanted: list[Policy], protected: dict[str, str]
) -> None:
    gone = going(runs, *wanted, protected=protected)
    for run_id, needed in retention.needs(runs).items():
        if run_id not in gone:
            assert not gone & set(needed)
    assert not gone & set(protected)
    assert not gone & {note.run_id for note in runs if not note.state}


@given(histories(), policies, holds, st.floats(0, 50), st.integers(0, 3))
def test_retaining_more_never_deletes_more(
    runs: list[RunRecord], wanted: list[Policy], protected: dict[str, str], longer: float, more: int
) -> None:
    gone = going(runs, *wanted, protected=protected)
    longer_ones = [replace(policy, keep_for=(policy.keep_for or 0) + longer * DAY) for policy in wanted]
    assert going(runs, *longer_ones, protected=protected) <= gone
    larger = [replace(policy, keep_last=(policy.keep_last or 0) + more) for policy in wanted]
    assert going(runs, *larger, protected=protected) <= gone
    assert going(runs, *wanted, Policy(name="f", pipeline="train", forever=True), protected=protected) <= gone
    assert going(runs, *wanted, protected={**protected, "r0": "held"}) <= gone


@given(histories(), policies)
def test_deletions_only_grow_over_time(runs: list[RunRecord], wanted: list[Policy]) -> None:
    now = {name for name, decision in retention.decide(runs, wanted, NOW).items() if decision.goes}
    later = {name for name, decision in retention.decide(runs, wanted, NOW + 30 * DAY).items() if decision.goes}
    assert now <= later


@given(histories(), policies)
def test_deciding_on_the_remaining_runs_deletes_nothing_more(runs: list[RunRecord], wanted: list[Policy]) -> None:
    """So an interrupted janitor, or two concurrent ones, reach the same state."""
    gone = going(runs, *wanted)
    left = [note for note in runs if note.run_id not in gone]
    assert going(left, *wanted) == set()


@given(histories(), st.floats(0, 120))
def test_only_runs_unrelated_to_unfinished_ones_are_archived(runs: list[RunRecord], days: float) -> None:
    found = {note.run_id for note in retention.to_archive(runs, days * DAY, NOW)}
    by_id = {note.run_id: note for note in runs}
    for run_id, needed in retention.needs(runs).items():
        if not by_id[run_id].state:
            assert not found & set(needed)
    for note in runs:
        if note.run_id in found:
            assert note.state
            assert not note.archived
            assert note.finished_at + days * DAY <= NOW
        if not note.state:
            assert note.caller not in found
