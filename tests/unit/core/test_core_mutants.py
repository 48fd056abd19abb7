"""The tests notice faults: altered state machines, policies and scheduler habits, each killed by simulation or law.

A mutant is an alteration that a hurried change could make. If one survives, the checks have a hole; if the text that
it replaces is gone, it fails as stale and must be brought up to date with the source.

`killers.json` remembers what killed each, which is tried first; where that no longer does, all is tried. Run this file
as a program to write the table anew.
"""

from __future__ import annotations

import functools
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock_core.facts import Fact
from penstock_core.pipeline.ir import Pipeline
from penstock_core.run import machine
from penstock_testkit import generators
from penstock_testkit.checks import properties
from penstock_testkit.checks.invariants import InvariantError
from penstock_testkit.checks.mutants import Mutant, StaleMutantError, load
from penstock_testkit.checks.state_machine import Machine
from penstock_testkit.simulation import driver
from penstock_testkit.simulation.replica import SchedulerBehavior

RETRY, SETTLE, DECIDE, EVOLVE, RESOLVE, ENDINGS = "retry", "settle", "decide", "evolve", "resolve", "endings"
PLAN, FANS, SUSPEND, STOPS = "plan", "fans", "suspend", "stops"
HISTORIES, RARE, LAWS = 250, 1_200, 40
"""How many random histories are tried, how many for what rarely matters, and to how many logs the laws are put."""
KILLERS = Path(__file__).with_name("killers.json")


def mutant(name: str, module: str, *patches: tuple[str, str]) -> Mutant:
    return Mutant(name, module, patches)


MUTANTS = [
    mutant("what a cancel cut short succeeds", SETTLE, ("    if not cut and not fans", "    if not fans")),
    mutant("mapped steps outlive their run", EVOLVE, ("            close_fans(state)", "            pass")),
    mutant("the window is one too large", FANS, ("window - fan.taken", "window + 1 - fan.taken")),
    mutant("a failed item is forgotten", SETTLE, ("        fan.bad += 1", "        pass")),
    mutant("an item too many must succeed", FANS, ("return math.ceil(least * count - 1e-9)", "return count")),
    mutant(
        "the first list changes fastest",
        FANS,
        ("in reversed(self._lists.values())", "in self._lists.values()"),
        ("places[::-1]", "places"),
    ),
    mutant(
        "items get the element before theirs",
        FANS,
        ("[index] * len(self._lists)", "[index - 1] * len(self._lists)"),
    ),
    mutant("a condition is not looked at", DECIDE, ("        if not holds:", "        if False:")),
    mutant(
        "a skip by condition fails the run",
        DECIDE,
        ("reason=reason[:1000], expected=True", "reason=reason[:1000], expected=False"),
    ),
    mutant(
        "any_failed runs always", DECIDE, ("if node.rule is Rule.ANY_FAILED and step.because is None:", "if False:")
    ),
    mutant("on_failure runs always", DECIDE, ("node.phase is Phase.ON_FAILURE and (", "False and (")),
    mutant(
        "all_done is blocked by a failure",
        SETTLE,
        ("strict = state.plan.nodes[key].rule is Rule.ALL_SUCCEEDED and step.key", "strict = step.key"),
    ),
    mutant(
        "each of several is needed",
        PLAN,
        ("                groups.append(ways)", "                return {key for way in ways for key in way}"),
    ),
    mutant("none of several is needed", PLAN, ("            self.groups[node.key] = groups", "            pass")),
    mutant(
        "the cancel ends what tidies up", "state", ("and self.plan.nodes[step.node].phase is Phase.MAIN", "and True")
    ),
    mutant(
        "what runs at the end does not wait",
        SETTLE,
        ("        if state.open_main == 0:", "        if state.open_main == 1:"),
    ),
    mutant(
        "slots are not given back", EVOLVE, ("        state.outbox[effects.Release(*attempt)] = None", "        pass")
    ),
    mutant(
        "a sleep never ends",
        EVOLVE,
        (
            "    if at > state.reached:\n        state.arm(step.key, step.attempt, at)",
            "    if at > state.reached:\n        pass",
        ),
    ),
    mutant("a sleep ends at once", EVOLVE, ("    if at > state.reached:", "    if False:")),
    mutant(
        "the place of a run is kept",
        EVOLVE,
        (
            "if state.plan.pipeline.max_active is not None:\n                state",
            "if False:\n                state",
        ),
    ),
    mutant(
        "nobody waits to be admitted",
        DECIDE,
        ("if not state.admitted and state.stop is None", "if False and state.stop is None"),
    ),
    mutant("memory does not grow", DECIDE, ("needs.memory * needs.memory_growth**step.shortages", "needs.memory")),
    mutant(
        "items that are taken over are made anew",
        EVOLVE,
        ('            end(state, item, "reused")', "            pass"),
    ),
    mutant("a loss counts as a failure", EVOLVE, ("step.losses += 1", "step.failures += 1")),
    mutant("a failure is not counted", EVOLVE, ("step.failures += 1", "pass")),
    mutant(
        "a skip is not told to dependents",
        SETTLE,
        (
            "in state.plan.dependents[step.key]:",
            "in state.plan.dependents[step.key] if step.status is not Status.SKIPPED else ():",
        ),
    ),
    mutant("a failure does not block dependents", SETTLE, ("if not passing and strict", "if passing and strict")),
    mutant(
        "a step starts after its first dependency",
        SETTLE,
        ("(dependent.waiting_on == 0 or dependent.blocker)", "(dependent.waiting_on <= 1 or dependent.blocker)"),
    ),
    mutant(
        "cancel forgets steps that wait for another attempt",
        DECIDE,
        ("    if reason is not None:", "    if reason is not None and step.attempt == 0:"),
    ),
    mutant(
        "cancel skips what it should fence",
        DECIDE,
        (
            "        attempt = step.attempt if step.status in IN_FLIGHT else step.attempt + 1\n        yield",
            "        if step.status not in IN_FLIGHT:\n"
            "            yield StepSkipped(run_id=state.run_id, key=step.key, reason='cancelled')\n"
            "            return\n"
            "        attempt = step.attempt if step.status in IN_FLIGHT else step.attempt + 1\n        yield",
        ),
    ),
    mutant(
        "a request that comes after the cancel is not ended",
        EVOLVE,
        (
            "    else:\n        state.frontier[step.key] = None\n    if step.index",
            "    else:\n        state.frontier.pop(step.key, None)\n    if step.index",
        ),
    ),
    mutant(
        "cancel turns a success into a cancelled run",
        ENDINGS,
        ("if state.stop is not None and (cancelled", "if state.stop is not None and (True or cancelled"),
    ),
    mutant(
        "deciding empties the frontier",
        DECIDE,
        (
            "    for key in state.frontier:",
            "    keys = [*state.frontier]\n    state.frontier.clear()\n    for key in keys:",
        ),
    ),
    mutant(
        "an early end is dropped",
        EVOLVE,
        (
            "kept, and applied with the request.\n            state.early.setdefault((fact.key, fact.attempt), fact)",
            "kept\n            pass",
        ),
    ),
    mutant("an early end is kept but never applied", EVOLVE, ("        _finished(state, known)", "        pass")),
    mutant(
        "the same end is applied twice",
        EVOLVE,
        ("if fact.attempt != step.attempt or step.status not in IN_FLIGHT or", "if fact.attempt != step.attempt or"),
    ),
    mutant(
        "the end of an earlier attempt ends the present one",
        EVOLVE,
        ("if fact.attempt != step.attempt or step.status", "if fact.attempt > step.attempt or step.status"),
    ),
    mutant(
        "a request is folded whatever its number",
        EVOLVE,
        ("if not was_held and fact.attempt != step.attempt + 1:", "if False:"),
    ),
    mutant("the run ends before its last step", DECIDE, ("if state.open == 0:", "if state.open <= 1:")),
    mutant(
        "the run ends again and again",
        DECIDE,
        ("if state.requested is None or state.finished is not None:", "if state.requested is None:"),
    ),
    mutant(
        "a failed step does not fail the run",
        SETTLE,
        ("if step.status is Status.FAILED and state.first_failure is None:", "if False:"),
    ),
    mutant(
        "results travel inline whatever their size",
        DECIDE,
        (
            "resolve.weight(state, node.inputs) > values.REQUEST_LIMIT",
            "resolve.weight(state, node.inputs) > 4 * values.REQUEST_LIMIT",
        ),
    ),
    mutant(
        "a reference names the first attempt",
        RESOLVE,
        ("key=step.key, attempt=step.attempt, output", "key=step.key, attempt=1, output"),
    ),
    mutant("the next attempt does not wait", DECIDE, ("not_before=step.not_before", "not_before=None")),
    mutant("one retry too few", RETRY, ("history.failures > policy.retries", "history.failures >= policy.retries")),
    mutant("one retry too many", RETRY, ("history.failures > policy.retries", "history.failures > policy.retries + 1")),
    mutant("losses are endless", RETRY, ("history.losses > MAX_LOSSES", "history.losses < 0")),
    mutant("a loss ends the step", RETRY, ("history.losses > MAX_LOSSES", "history.losses > 0")),
    mutant("a cancelled attempt is tried again", RETRY, ("if outcome is Outcome.CANCELLED:", "if False:")),
    mutant("retry_on is ignored", RETRY, ("if policy.on and not _matches", "if False and not _matches")),
    mutant("retry_on does not look at bases", RETRY, ("{error.type, *error.bases}", "{error.type}")),
    mutant("jitter by chance", RETRY, ("zlib.crc32(text.encode()) / 0xFFFFFFFF", "__import__('random').random()")),
    mutant("jitter lengthens the delay", RETRY, ("(1.0 - policy.jitter * spread)", "(1.0 + policy.jitter * spread)")),
    mutant("the delay has no bound", RETRY, (", policy.max_delay)\n    except", ", 1e9)\n    except")),
    mutant("back-off starts one too high", RETRY, ("max(history.failures - 1, 0)", "history.failures")),
]

HABITS = {
    "a gap in the deliveries is not minded": SchedulerBehavior(detect_gaps=False),
    "a refused append is taken for a failure": SchedulerBehavior(fold_after_conflict=False),
    "a redelivered run is taken for a new one": SchedulerBehavior(restart_redelivered=True),
    "effects are left out": SchedulerBehavior(effects_first=False),
}


@functools.cache
def logs(seed: int) -> list[tuple[str, Pipeline, list[Fact]]]:
    """The logs of a whole history made by the real machine, to put laws to."""
    simulated = driver.simulate(seed)
    return [
        (key, made, [record.fact for record in simulated.broker.read(key)]) for key, made in simulated.pipelines.items()
    ]


def attempt(trial: str, machine: Machine, behavior: SchedulerBehavior) -> None:
    """Try one thing: a random history, the laws on the log of one, or a run that only loses attempts.

    Raises:
        Violation: it is noticed that the machine or the habit is a bad one.
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
    """All trials; histories are cheaper than laws, and kill more."""
    yield "losses 1"
    for seed in range(max(histories, under_laws)):
        if seed < histories:
            yield f"history {seed}"
        if seed < under_laws:
            yield f"laws {seed}"


def hunt(machine: Machine, behavior: SchedulerBehavior, all_of: Iterator[str], known: str | None = None) -> str | None:
    """What kills a machine or a habit, if anything does; any error but a violation is a fault of the mutant."""
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
    assert hunt(Mutant("none", RETRY, ()).machine(), SchedulerBehavior(), trials(20, 5)) is None


@pytest.mark.parametrize("name", sorted(json.loads(KILLERS.read_text())))
def test_the_real_machine_survives_what_kills_the_others(name: str) -> None:
    assert hunt(Machine.of(machine), SchedulerBehavior(), iter(()), known_killer(name)) is None


@pytest.mark.parametrize("altered", MUTANTS, ids=lambda altered: altered.name.replace(" ", "-"))
def test_a_mutant_is_killed(altered: Mutant) -> None:
    killer = hunt(altered.machine(), SchedulerBehavior(), trials(HISTORIES, LAWS), known_killer(altered.name))
    assert killer, f"nothing notices that {altered.name}"


@pytest.mark.parametrize("name", HABITS)
def test_a_bad_habit_of_schedulers_is_found(name: str) -> None:
    assert hunt(Machine.of(machine), HABITS[name], trials(RARE, 0), known_killer(name)), f"nothing notices that {name}"


def test_a_stale_mutant_fails_loudly() -> None:
    with pytest.raises(StaleMutantError, match=r"0 times in penstock_core\.decide"):
        Mutant("stale", DECIDE, (("no such text", ""),)).machine()
    with pytest.raises(StaleMutantError, match=r"[2-9] times"):
        load({"state": (("Status.WAITING", "Status.QUEUED"),)}, "ambiguous")
    with pytest.raises(StaleMutantError, match="does not use"):
        Mutant("unused", "cachekey", ()).machine()


def main() -> None:
    """Write the table of killers anew, of all or of those whose names are given; survivors are told."""
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
