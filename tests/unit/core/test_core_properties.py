"""Properties of `evolve` and `decide`, for arbitrary facts and for the logs of random histories."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_core.facts import (
    FACTS,
    ArtifactCommitted,
    CancelRequested,
    Fact,
    RunArchived,
    RunDeleted,
    RunRequested,
)
from penstock_core.pipeline.ir import Pipeline
from penstock_core.run import machine
from penstock_testkit import strategies
from penstock_testkit.checks import properties
from penstock_testkit.checks.log_index import node_of
from penstock_testkit.checks.state_machine import Machine, dump
from penstock_testkit.simulation import driver
from penstock_testkit.simulation.driver import SimulatedPlatform

MACHINE = Machine.of(machine)
HISTORIES = 40
A_SKIPPED_RUN = 1_110
"""A history in which a run is skipped, which few have."""


@st.composite
def pipelines_with_facts(draw: st.DrawFn) -> tuple[Pipeline, list[Fact]]:
    """A pipeline and arbitrary facts, which mostly begin like those of a run, so that they reach later states."""
    pipeline = draw(strategies.pipelines())
    start: list[Fact] = [RunRequested(run_id=strategies.RUN, project="p", pipeline="f", version=1)]
    return pipeline, start[: draw(st.integers(0, 3))] + draw(st.lists(strategies.facts(pipeline), max_size=25))


@given(pipelines_with_facts())
def test_any_fact_folds_in_any_state_idempotently(drawn: tuple[Pipeline, list[Fact]]) -> None:
    properties.total_and_idempotent(MACHINE, drawn[0], strategies.RUN, drawn[1])


@given(pipelines_with_facts())
def test_decide_is_pure(drawn: tuple[Pipeline, list[Fact]]) -> None:
    properties.decide_is_deterministic(MACHINE, drawn[0], strategies.RUN, drawn[1])


@given(pipelines_with_facts(), st.data())
def test_a_fold_can_be_interrupted_and_continued(drawn: tuple[Pipeline, list[Fact]], data: st.DataObject) -> None:
    pipeline, facts = drawn
    plan = machine.Plan(pipeline)
    cut = data.draw(st.integers(0, len(facts)))
    state = machine.fold(strategies.RUN, plan, facts[:cut])
    machine.decide(state)
    for fact in facts[cut:]:
        state = machine.evolve(state, fact)
    assert dump(state) == dump(machine.fold(strategies.RUN, plan, facts))


@given(pipelines_with_facts())
def test_facts_of_other_runs_and_of_unknown_steps_change_nothing(drawn: tuple[Pipeline, list[Fact]]) -> None:
    pipeline, facts = drawn
    known = {node.key: node for node in pipeline.nodes}

    def is_known(key: str) -> bool:
        return key in known or (node_of(known, key) in known and known[node_of(known, key)].mapped is not None)

    mine = [f for f in facts if f.run_id == strategies.RUN and is_known(getattr(f, "key", min(known)))]
    plan = machine.Plan(pipeline)
    assert dump(machine.fold(strategies.RUN, plan, facts)) == dump(machine.fold(strategies.RUN, plan, mine))


@given(pipelines_with_facts())
def test_a_cancelled_run_always_finishes(drawn: tuple[Pipeline, list[Fact]]) -> None:
    """Whatever the log contains, a cancel finishes the run within a few decisions."""
    pipeline, facts = drawn
    request = RunRequested(run_id=strategies.RUN, project="p", pipeline="f", version=1)
    state = machine.fold(
        strategies.RUN, machine.Plan(pipeline), [*facts, request, CancelRequested(run_id=strategies.RUN)]
    )
    properties.ended(MACHINE, state)


@pytest.fixture(scope="module")
def histories() -> list[SimulatedPlatform]:
    return [driver.simulate(seed) for seed in (*range(1_000, 1_000 + HISTORIES), A_SKIPPED_RUN)]


def logs(simulations: list[SimulatedPlatform]) -> list[tuple[Pipeline, str, list[Fact]]]:
    return [
        (pipeline, run_id, [record.fact for record in simulated.broker.read(run_id)])
        for simulated in simulations
        for run_id, pipeline in simulated.pipelines.items()
    ]


def test_histories_are_varied(histories: list[SimulatedPlatform]) -> None:
    """The properties below would be weak on trivial histories."""
    facts = [fact for _, _, log in logs(histories) for fact in log]
    kinds = {(fact.ce_type, str(getattr(fact, "outcome", ""))) for fact in facts}
    assert {outcome for kind, outcome in kinds if kind == "penstock.attempt.finished.v1"} == set(
        ("succeeded", "failed", "timed_out", "lost", "cancelled", "cached")
    )
    assert {outcome for kind, outcome in kinds if kind == "penstock.run.finished.v1"} == {
        "succeeded",
        "failed",
        "cancelled",
        "skipped",
    }
    # Commits have no effect on a run, and the janitor acts after it finished.
    others = {fact.ce_type for fact in (ArtifactCommitted, RunArchived, RunDeleted)}
    assert {kind for kind, _ in kinds} == {fact.ce_type for fact in FACTS} - others
    assert max(getattr(fact, "attempt", 0) for fact in facts) >= 4
    assert any(len(log) > 25 for _, _, log in logs(histories))


def test_folded_facts_may_be_redelivered_at_any_time(histories: list[SimulatedPlatform]) -> None:
    for pipeline, run_id, facts in logs(histories):
        properties.redelivery_is_idempotent(MACHINE, pipeline, run_id, facts)


@settings(max_examples=10)
@given(st.integers(0, 2**32))
def test_concurrent_facts_fold_to_the_same_state_in_every_order(histories: list[SimulatedPlatform], seed: int) -> None:
    choose = random.Random(seed).randrange
    for pipeline, run_id, facts in logs(histories):
        properties.order_is_irrelevant(MACHINE, pipeline, run_id, facts, choose)


def test_every_fold_of_a_log_decides_the_same(histories: list[SimulatedPlatform]) -> None:
    for pipeline, run_id, facts in logs(histories):
        properties.decide_is_deterministic(MACHINE, pipeline, run_id, facts)


def test_a_cancel_at_any_moment_finishes_the_run_immediately(histories: list[SimulatedPlatform]) -> None:
    for pipeline, run_id, facts in logs(histories):
        properties.cancel_at_any_time(MACHINE, pipeline, run_id, facts)


@settings(max_examples=25)
@given(strategies.pipelines())
def test_a_run_that_only_loses_attempts_fails_in_the_end(pipeline: Pipeline) -> None:
    properties.losses_are_bounded(MACHINE, pipeline)
