"""Mutation tests: altered state machines, policies and scheduler behaviours, each killed by simulation or property.

A mutant is an alteration that a hurried change could make. If one survives, the checks have a hole; if the text that
it replaces is gone, it fails as stale and must be brought up to date with the source.

`killers.json` remembers what killed each, which is tried first; where that no longer does, all is tried. Run this file
as a program to rewrite the table.
"""

from __future__ import annotations

import functools
import json
import math
import random
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock_core.cache import cache_key
from penstock_core.facts import Fact, Outcome, StepSkipped
from penstock_core.pipeline import values
from penstock_core.pipeline.ir import Phase, Pipeline, Rule
from penstock_core.run import (
    decide,
    effects,
    evolve,
    machine,
    mapped_steps,
    plan,
    retry,
    run_outcome,
    state,
    transitions,
    value_resolution,
)
from penstock_core.run.cancellation import stop_new_items
from penstock_core.run.evolve import _finished
from penstock_core.run.retry import MAX_LOSSES, _matches
from penstock_core.run.state import IN_FLIGHT, Status
from penstock_core.run.transitions import end
from penstock_testkit import generators
from penstock_testkit.checks import properties
from penstock_testkit.checks.invariants import InvariantError
from penstock_testkit.checks.mutants import AFTER, BEFORE, Mutant, StaleMutantError, alters
from penstock_testkit.checks.state_machine import Machine
from penstock_testkit.simulation import driver
from penstock_testkit.simulation.replica import SchedulerBehavior

HISTORIES, RARE, LAWS = 250, 1_200, 40
"""Number of random histories, number for rarely relevant mutants, and number of logs for the properties."""
KILLERS = Path(__file__).with_name("killers.json")


@alters(transitions._finish_mapped_step)
def what_a_cancel_cut_short_succeeds():
    with BEFORE:
        not cut
    with AFTER:
        True


@alters(evolve._of_run)
def mapped_steps_outlive_their_run(state):
    with BEFORE:
        stop_new_items(state)
    with AFTER:
        None


@alters(mapped_steps.wanted)
def the_window_is_one_too_large(window, mapped):
    with BEFORE:
        window - mapped.taken
    with AFTER:
        window + 1 - mapped.taken


@alters(transitions._end_item)
def a_failed_item_is_forgotten(mapped):
    with BEFORE:
        mapped.bad += 1
    with AFTER:
        pass


@alters(mapped_steps.needed)
def an_item_too_many_must_succeed(least, count):
    with BEFORE:
        math.ceil(least * count - 1e-9)
    with AFTER:
        count


@alters(mapped_steps.Inputs._places)
def the_first_list_changes_fastest(self, places):
    with BEFORE:
        reversed(self._lists.values())
    with AFTER:
        self._lists.values()
    with BEFORE:
        places[::-1]
    with AFTER:
        places


@alters(mapped_steps.Inputs._places)
def items_get_the_element_before_theirs(self, index):
    with BEFORE:
        [index] * len(self._lists)
    with AFTER:
        [index - 1] * len(self._lists)


@alters(decide._first)
def a_condition_is_not_looked_at(holds):
    with BEFORE:
        not holds
    with AFTER:
        False


@alters(decide._expected)
def a_skip_by_condition_fails_the_run():
    with BEFORE:
        True
    with AFTER:
        False


@alters(decide._blocked)
def any_failed_runs_always(node, step):
    with BEFORE:
        node.rule is Rule.ANY_FAILED and step.cause is None
    with AFTER:
        False


@alters(decide._blocked)
def on_failure_runs_always(node):
    with BEFORE:
        node.phase is Phase.ON_FAILURE
    with AFTER:
        False


@alters(transitions._end_step)
def all_done_is_blocked_by_a_failure(state, key):
    with BEFORE:
        state.plan.nodes[key].rule is Rule.ALL_SUCCEEDED
    with AFTER:
        True


@alters(plan._strict)
def each_of_several_is_needed(groups, ways):
    with BEFORE:
        groups.append(ways)
    with AFTER:
        return {key for way in ways for key in way}


@alters(plan.Plan._needed)
def none_of_several_is_needed(self, node, groups):
    with BEFORE:
        self.groups[node.key] = groups
    with AFTER:
        pass


@alters(state.RunState.stopping)
def the_cancel_ends_what_tidies_up(self, step):
    with BEFORE:
        self.plan.nodes[step.node].phase is Phase.MAIN
    with AFTER:
        True


@alters(transitions._end_step)
def what_runs_at_the_end_does_not_wait(state):
    with BEFORE:
        state.open_main == 0
    with AFTER:
        state.open_main == 1


@alters(evolve._release)
def slots_are_not_given_back(state, attempt):
    with BEFORE:
        state.outbox[effects.ReleaseSlots(*attempt)] = None
    with AFTER:
        pass


@alters(evolve._arm)
def a_sleep_never_ends(state, step, at):
    with BEFORE:
        state.arm(step.key, step.attempt, at)
    with AFTER:
        None


@alters(evolve._arm)
def a_sleep_ends_at_once(state, at):
    with BEFORE:
        at > state.reached
    with AFTER:
        False


@alters(evolve._of_run)
def the_place_of_a_run_is_kept(state):
    with BEFORE:
        state.needs_admission
    with AFTER:
        False


@alters(decide.decide)
def nobody_waits_to_be_admitted(state):
    with BEFORE:
        state.awaits_admission
    with AFTER:
        False


@alters(decide._resources)
def memory_does_not_grow(needs, step):
    with BEFORE:
        needs.memory * needs.memory_growth**step.shortages
    with AFTER:
        needs.memory


@alters(evolve._expanded)
def items_that_are_taken_over_are_made_anew(state, item):
    with BEFORE:
        end(state, item, "reused")
    with AFTER:
        None


@alters(evolve._unsuccessful)
def a_loss_counts_as_a_failure(step):
    with BEFORE:
        step.losses += 1
    with AFTER:
        step.failures += 1


@alters(evolve._unsuccessful)
def a_failure_is_not_counted(step):
    with BEFORE:
        step.failures += 1
    with AFTER:
        pass


@alters(transitions._end_step)
def a_skip_is_not_told_to_dependents(state, step):
    with BEFORE:
        state.plan.dependents[step.key]
    with AFTER:
        state.plan.dependents[step.key] if step.status is not Status.SKIPPED else ()


@alters(transitions._end_step)
def a_failure_does_not_block_dependents(passing, strict, dependent):
    with BEFORE:
        not passing and strict and dependent.blocker is None
    with AFTER:
        passing and strict and dependent.blocker is None


@alters(transitions._end_step)
def a_step_starts_after_its_first_dependency(dependent):
    with BEFORE:
        dependent.waiting_on == 0 or dependent.blocker
    with AFTER:
        dependent.waiting_on <= 1 or dependent.blocker


@alters(decide._next)
def cancel_forgets_steps_that_wait_for_another_attempt(step):
    with BEFORE:
        reason is not None
    with AFTER:
        reason is not None and step.attempt == 0


@alters(decide._fence)
def cancel_skips_what_it_should_fence(state, step, attempt):
    with BEFORE:
        attempt = step.attempt if step.status in IN_FLIGHT else step.attempt + 1
    with AFTER:
        if step.status not in IN_FLIGHT:
            yield StepSkipped(run_id=state.run_id, key=step.key, reason="cancelled")
            return
        attempt = step.attempt if step.status in IN_FLIGHT else step.attempt + 1


@alters(evolve._start_attempt)
def a_request_that_comes_after_the_cancel_is_not_ended(state, step):
    with BEFORE:
        state.frontier[step.key] = None
    with AFTER:
        state.frontier.pop(step.key, None)


@alters(run_outcome.run_outcome_and_reason)
def cancel_turns_a_success_into_a_cancelled_run(cancelled, skipped):
    with BEFORE:
        cancelled is not None or skipped is not None
    with AFTER:
        True


@alters(decide.decide)
def deciding_empties_the_frontier(state):
    with BEFORE:
        state.frontier
    with AFTER:
        [(state.frontier.pop(key), key)[1] for key in [*state.frontier]]


@alters(evolve._finished)
def an_early_end_is_dropped(state, fact):
    with BEFORE:
        state.early.setdefault((fact.key, fact.attempt), fact)
    with AFTER:
        None


@alters(evolve._apply_early)
def an_early_end_is_kept_but_never_applied(state, known):
    with BEFORE:
        _finished(state, known)
    with AFTER:
        None


@alters(evolve._finished)
def the_same_end_is_applied_twice(fact, step):
    with BEFORE:
        fact.attempt != step.attempt or step.status not in IN_FLIGHT or step.mapped is not None
    with AFTER:
        fact.attempt != step.attempt or step.mapped is not None


@alters(evolve._finished)
def the_end_of_an_earlier_attempt_ends_the_present_one(fact, step):
    with BEFORE:
        fact.attempt != step.attempt
    with AFTER:
        fact.attempt > step.attempt


@alters(evolve._requested)
def a_request_is_folded_whatever_its_number(was_queued, fact, step):
    with BEFORE:
        not was_queued and fact.attempt != step.attempt + 1
    with AFTER:
        False


@alters(decide.decide)
def the_run_ends_before_its_last_step(state):
    with BEFORE:
        state.open == 0
    with AFTER:
        state.open <= 1


@alters(decide.decide)
def the_run_ends_again_and_again(state):
    with BEFORE:
        state.requested is None or state.finished is not None
    with AFTER:
        state.requested is None


@alters(transitions._end_step)
def a_failed_step_does_not_fail_the_run(step, state):
    with BEFORE:
        step.status is Status.FAILED and state.first_failure is None
    with AFTER:
        False


@alters(value_resolution.inputs)
def results_travel_inline_whatever_their_size():
    with BEFORE:
        values.REQUEST_LIMIT
    with AFTER:
        4 * values.REQUEST_LIMIT


@alters(value_resolution._result)
def a_reference_names_the_first_attempt(step, output):
    with BEFORE:
        values.ResultRef(key=step.key, attempt=step.attempt, output=output)
    with AFTER:
        values.ResultRef(key=step.key, attempt=1, output=output)


@alters(evolve._unsuccessful)
def the_next_attempt_does_not_wait(fact, decision):
    with BEFORE:
        fact.finished_at + decision.delay
    with AFTER:
        None


@alters(retry.decide)
def one_retry_too_few(history, policy):
    with BEFORE:
        history.failures > policy.retries
    with AFTER:
        history.failures >= policy.retries


@alters(retry.decide)
def one_retry_too_many(history, policy):
    with BEFORE:
        history.failures > policy.retries
    with AFTER:
        history.failures > policy.retries + 1


@alters(retry.decide)
def losses_are_endless(history):
    with BEFORE:
        history.losses > MAX_LOSSES
    with AFTER:
        False


@alters(retry.decide)
def a_loss_ends_the_step(history):
    with BEFORE:
        history.losses > MAX_LOSSES
    with AFTER:
        history.losses > 0


@alters(retry.decide)
def a_cancelled_attempt_is_tried_again(outcome):
    with BEFORE:
        outcome is Outcome.CANCELLED
    with AFTER:
        False


@alters(retry.decide)
def retry_on_is_ignored(policy, error):
    with BEFORE:
        policy.on and not _matches(policy.on, error)
    with AFTER:
        False


@alters(retry._matches)
def retry_on_does_not_look_at_bases(error):
    with BEFORE:
        {error.type, *error.bases}
    with AFTER:
        {error.type}


@alters(retry.delay)
def jitter_by_chance(spread, text):
    with BEFORE:
        spread = zlib.crc32(text.encode()) / 0xFFFFFFFF
    with AFTER:
        spread = random.random()


@alters(retry.delay)
def jitter_lengthens_the_delay(policy, spread):
    with BEFORE:
        1.0 - policy.jitter * spread
    with AFTER:
        1.0 + policy.jitter * spread


@alters(retry.delay)
def the_delay_has_no_bound(raw, policy):
    with BEFORE:
        min(raw, policy.max_delay)
    with AFTER:
        min(raw, 1e9)


@alters(retry.delay)
def back_off_starts_one_too_high(history):
    with BEFORE:
        max(history.failures - 1, 0)
    with AFTER:
        history.failures


MUTANTS = [value for value in globals().copy().values() if isinstance(value, Mutant)]

HABITS = {
    "a gap in the deliveries is not minded": SchedulerBehavior(detect_gaps=False),
    "a refused append is taken for a failure": SchedulerBehavior(fold_after_conflict=False),
    "a redelivered run is taken for a new one": SchedulerBehavior(restart_redelivered=True),
    "effects are left out": SchedulerBehavior(effects_first=False),
}


@functools.cache
def logs(seed: int) -> list[tuple[str, Pipeline, list[Fact]]]:
    """Logs of a complete history of the real machine, to check properties on."""
    simulated = driver.simulate(seed)
    return [
        (key, made, [record.fact for record in simulated.broker.read(key)]) for key, made in simulated.pipelines.items()
    ]


def attempt(trial: str, machine: Machine, behavior: SchedulerBehavior) -> None:
    """Try one thing: a random history, the laws on the log of one, or a run that only loses attempts.

    Raises:
        Violation: the altered machine or behaviour is detected.
    """
    what, _, number = trial.partition(" ")
    seed = int(number)
    match what:
        case "history":
            driver.simulate(seed, machine=machine, behavior=behavior)
        case "losses":
            properties.losses_are_bounded(machine, generators.pipeline(random.Random(seed).randrange))
        case _:
            for run_id, pipeline, facts in logs(seed):
                properties.cancel_at_any_time(machine, pipeline, run_id, facts)
                properties.redelivery_is_idempotent(machine, pipeline, run_id, facts)
                properties.order_is_irrelevant(machine, pipeline, run_id, facts, random.Random(seed).randrange)
                properties.decide_is_deterministic(machine, pipeline, run_id, facts)


def trials(histories: int, under_laws: int) -> Iterator[str]:
    """All trials; histories are cheaper than properties, and kill more."""
    yield "losses 1"
    for seed in range(max(histories, under_laws)):
        if seed < histories:
            yield f"history {seed}"
        if seed < under_laws:
            yield f"laws {seed}"


def hunt(machine: Machine, behavior: SchedulerBehavior, all_of: Iterator[str], known: str | None = None) -> str | None:
    """Return the trial that kills a mutant, if any; any error but a violation is a fault of the mutant."""
    for trial in (*([known] if known else ()), *all_of):
        try:
            attempt(trial, machine, behavior)
        except InvariantError:
            return trial
    return None


def known_killer(name: str) -> str | None:
    return json.loads(KILLERS.read_text()).get(name)


def test_the_real_machine_survives() -> None:
    assert hunt(Machine.of(machine), SchedulerBehavior(), trials(150, 20)) is None


def test_an_unaltered_copy_survives() -> None:
    assert hunt(Mutant("none", retry.decide, ()).machine(), SchedulerBehavior(), trials(20, 5)) is None


@pytest.mark.parametrize("name", sorted(json.loads(KILLERS.read_text())))
def test_the_real_machine_survives_all_killers(name: str) -> None:
    assert hunt(Machine.of(machine), SchedulerBehavior(), iter(()), known_killer(name)) is None


@pytest.mark.parametrize("altered", MUTANTS, ids=lambda altered: altered.name.replace(" ", "-"))
def test_a_mutant_is_killed(altered: Mutant) -> None:
    killer = hunt(altered.machine(), SchedulerBehavior(), trials(HISTORIES, LAWS), known_killer(altered.name))
    assert killer, f"nothing notices that {altered.name}"


@pytest.mark.parametrize("name", HABITS)
def test_a_faulty_scheduler_is_detected(name: str) -> None:
    assert hunt(Machine.of(machine), HABITS[name], trials(RARE, 0), known_killer(name)), f"nothing notices that {name}"


@alters(decide.decide)
def no_such_code():
    with BEFORE:
        no_such_function()
    with AFTER:
        None


@alters(state.RunState.find)
def ambiguous_code(self, key):
    with BEFORE:
        self.steps
    with AFTER:
        {}


@alters(cache_key.key)
def another_module():
    with BEFORE:
        None
    with AFTER:
        None


def test_a_stale_mutant_is_an_error() -> None:
    with pytest.raises(StaleMutantError, match=r"0 times in penstock_core\.run\.decide\.decide"):
        no_such_code.machine()
    with pytest.raises(StaleMutantError, match=r"[2-9] times"):
        ambiguous_code.machine()
    with pytest.raises(StaleMutantError, match="does not use"):
        another_module.machine()


def main() -> None:
    """Rewrite the table of killers, for all or the named mutants; survivors are reported."""
    found: dict[str, str] = json.loads(KILLERS.read_text())
    everything = [(one.name, one.machine(), SchedulerBehavior(), trials(HISTORIES, LAWS)) for one in MUTANTS]
    everything += [(name, Machine.of(machine), behavior, trials(RARE, 0)) for name, behavior in HABITS.items()]
    for name, mutated, behavior, all_of in everything:
        if not sys.argv[1:] or name in sys.argv[1:]:
            if killer := hunt(mutated, behavior, all_of, found.pop(name, None)):
                found[name] = killer
            sys.stdout.write(f"{name}: {killer or 'SURVIVES'}\n")
    KILLERS.write_text(json.dumps(dict(sorted(found.items())), indent=2) + "\n")


if __name__ == "__main__":
    main()
