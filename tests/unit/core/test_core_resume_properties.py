"""Properties of resumed runs, for random pipelines of deterministic steps."""

from __future__ import annotations

import dataclasses
import itertools
import zlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from penstock_core.facts import (
    SUCCESSFUL,
    AttemptFinished,
    AttemptQueued,
    AttemptRequested,
    CancelRequested,
    ErrorInfo,
    Fact,
    Outcome,
    RunAdmitted,
    RunFinished,
    RunRequested,
    SlotGranted,
    StepReused,
    StepSuspended,
)
from penstock_core.pipeline import values
from penstock_core.pipeline.ir import Pipeline
from penstock_core.pipeline.tagged import NoSuchPartError
from penstock_core.pipeline.values import ArtifactRef, Inline, Stored, Value
from penstock_core.run import effects, machine, value_resolution
from penstock_core.run.machine import SUCCESSFUL_STATUSES, Plan, RunState, Status
from penstock_core.run.resume import Changes, Resumption, resume
from penstock_core.run.state import item_of
from penstock_testkit import strategies
from penstock_testkit.checks import log_index
from penstock_testkit.checks.plain_data import MISSING
from penstock_testkit.generators import BIG
from penstock_testkit.run_driver import RUN, R, RunDriver, end, mapped_node, node, pipeline


class Runs:
    """Runs of one pipeline. What a step returns depends on its name and its inputs only."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.plan = Plan(pipeline)
        self.logs: dict[str, list[Fact]] = {}
        self.states: dict[str, RunState] = {}
        self.executed: dict[str, set[str]] = {}

    def run(self, p: str, seed: int = 0, cancel: int = 0, taken: list[StepReused] | None = None) -> str:
        """Run it to its end; with a seed, some steps and items chosen by it fail."""
        run_id = taken[0].run_id if taken else f"r{len(self.logs)}"
        self.executed[run_id] = set()
        state, log = RunState(run_id, self.plan), self.logs.setdefault(run_id, [])
        self.states[run_id] = state
        inputs: dict[str, Value] = {"p": Inline(p), "list": Inline([1, 2, 3])}
        request = RunRequested(run_id=run_id, project="p", pipeline="generated", version=1, inputs=inputs)
        todo: list[Fact] = [*(taken or []), request]
        for number in itertools.count(1):
            for fact in todo:
                log.append(fact)
                state = machine.evolve(state, fact)
            todo = list(machine.decide(state))
            if number == cancel:
                todo.append(CancelRequested(run_id=run_id))
            if effects.AdmitRun() in state.outbox and not state.admitted:
                todo.append(RunAdmitted(run_id=run_id))
            state.outbox.clear()
            todo += [answer for fact in todo if (answer := self.answer(run_id, fact, seed)) is not None]
            if not todo:
                assert state.finished is not None
                return run_id
        raise AssertionError

    def answer(self, run_id: str, fact: Fact, seed: int) -> Fact | None:
        """Return the external facts that follow a decision."""
        match fact:
            case AttemptQueued(key=key, attempt=attempt):
                return SlotGranted(run_id=run_id, key=key, attempt=attempt)
            case AttemptRequested(key=key, attempt=attempt) | StepSuspended(key=key, attempt=attempt):
                node = log_index.node_of(self.plan.nodes, key)
                self.executed[run_id].add(key)
                mapped = self.plan.nodes[node].mapped
                # A step that tolerates failed items may finish without all of them.
                if (
                    seed
                    and (mapped is None or mapped.min_success is None)
                    and zlib.crc32(f"{seed}{key}".encode()) % 3 == 0
                ):
                    error = ErrorInfo(type="ValueError", message="not today")
                    return AttemptFinished(run_id=run_id, key=key, attempt=attempt, outcome=Outcome.FAILED, error=error)
                try:
                    given = {name: self.plain(value, run_id) for name, value in sorted(fact.inputs.items())}
                except NoSuchPartError as missing:  # as an executor fails what only it can look into
                    error = ErrorInfo(type="InputError", message=str(missing))
                    return AttemptFinished(run_id=run_id, key=key, attempt=attempt, outcome=Outcome.FAILED, error=error)
                return AttemptFinished(
                    run_id=run_id,
                    key=key,
                    attempt=attempt,
                    outcome=Outcome.SUCCEEDED,
                    outputs={
                        port.name: _result(f"{node} {port.name} {given}") for port in self.plan.specs[node].outputs
                    },
                )
            case _:
                return None

    def plain(self, value: Value, run_id: str) -> Any:
        """Resolve a value like a reader.

        Raises:
            NoSuchPartError: a part of a value does not exist, which only the reader can find out.
        """
        match value:
            case values.Inline(data):
                return data
            case values.Stored(artifact):
                return f"artifact {artifact.sha256}"
            case values.ResultOf(ref):
                there = ref.run_id or run_id
                found = self._find(there, f"step.{ref.key}.{ref.attempt}.finished")
                assert found is not None
                return self.plain(found.outputs[ref.output], there)
            case values.Collected(ref):
                there = ref.run_id or run_id
                ends = [self._end(there, f"{ref.key}[{n}]") for n in range(ref.count)]
                return [self.plain(end.outputs[ref.output], there) if end else None for end in ends]
            case values.Items(items):
                return [self.plain(item, run_id) for item in items]
            case values.Fields(fields):
                return {name: self.plain(item, run_id) for name, item in fields.items()}
            case values.Element(of, path):
                return _part(self.plain(of, run_id), path)

    def _find(self, run_id: str, tail: str) -> AttemptFinished | StepReused | None:
        return next(
            (f for f in self.logs[run_id] if f.tail == tail and isinstance(f, AttemptFinished | StepReused)), None
        )

    def _end(self, run_id: str, key: str) -> AttemptFinished | StepReused | None:
        for fact in self.logs[run_id]:
            if isinstance(fact, StepReused) and fact.key == key:
                return fact
            if isinstance(fact, AttemptFinished) and fact.key == key and fact.outcome in SUCCESSFUL:
                return fact
        return None

    def results(self, run_id: str) -> dict[str, Any]:
        """Return status and result of each main step."""
        state = self.states[run_id]
        found: dict[str, Any] = {}
        for key, step in state.steps.items():
            if key in self.plan.closing:
                continue
            names = [port.name for port in self.plan.specs[key].outputs] if step.status in SUCCESSFUL_STATUSES else []
            bound = {name: value_resolution.resolve(state, values.Output(key, name)) for name in names}
            good = "there" if step.status in SUCCESSFUL_STATUSES else str(step.status)
            found[key] = (good, {name: self.plain(value, run_id) for name, value in bound.items()})
        return found

    def outputs(self, run_id: str) -> dict[str, Any]:
        """Return the outputs of the run: none if a part of one does not exist, as the scheduler or the reader finds."""
        over = self.states[run_id].finished
        assert isinstance(over, RunFinished)
        try:
            return {name: self.plain(value, run_id) for name, value in over.outputs.items()}
        except NoSuchPartError:
            return {}

    def resumed(self, old: str, p: str, changes: Changes, seed: int = 0) -> tuple[str, Resumption]:
        """Resume another run, reusing all possible results."""
        new = f"r{len(self.logs)}"
        found = resume(self.states[old], self.plan, new, changes)
        return self.run(p, seed=seed, taken=found.facts), found


def _part(whole: Any, path: tuple[int | str, ...]) -> Any:
    """Return a part of a plain value; the parts of an artifact are known to its reader only."""
    for n, one in enumerate(path):
        if isinstance(whole, str) and whole.startswith("artifact "):
            return f"{whole} {path[n:]}"
        whole = log_index.part(whole, (one,))
        if whole is MISSING:
            raise NoSuchPartError(f"{path[: n + 1]} does not exist")
    return whole


def _result(text: str) -> Value:
    number = zlib.crc32(text.encode())
    match number % 12:
        case 0 | 1:
            return Stored(ArtifactRef(sha256=f"{number:064x}", size=1, media_type="", format="x", items=number % 4))
        case 2:
            return Inline([number, BIG])
        case 3 | 4:
            return Inline([f"{number}:{n}" + "x" * (number % 2 * 3_000) for n in range(number % 5)])
        case 5:
            return Inline({"a": number, "b": ["x" * 5_000]})
        case 6:
            return values.Items((Inline(number), Inline(1)))
        case 7 | 8:
            return Inline(number % 4)
        case _:
            return Inline(f"t{number}")


@st.composite
def simulations(draw: st.DrawFn) -> tuple[Runs, str, str, Changes, int]:
    """A pipeline with a finished run, the value of `p` in it and in the new run, and further changes."""
    pipeline = draw(strategies.pipelines(8))
    runs = Runs(pipeline)
    # A step that tolerates failed items keeps partial results when a run is cancelled, so such a run may differ.
    partial = any(node.mapped is not None and node.mapped.min_success is not None for node in pipeline.nodes)
    cancel = 0 if partial else draw(st.sampled_from([0, 0, 0, 1, 2, 3, 5]))
    old = runs.run("one", seed=draw(st.integers(0, 1_000)), cancel=cancel)
    p = draw(st.sampled_from(["one", "one", "two"]))
    keys = [node.key for node in pipeline.nodes]
    names = [*keys, *(f"{node.key}[1]" for node in pipeline.nodes if node.mapped is not None)]
    begin = draw(st.lists(st.sampled_from(names), max_size=2))
    changes = Changes(params=frozenset({"p"} if p != "one" else set()), begin=tuple(begin))
    return runs, old, p, changes, draw(st.integers(1, 1_000))


@given(simulations())
def test_a_resumed_run_equals_a_full_run(simulated: tuple[Runs, str, str, Changes, int]) -> None:
    runs, old, p, changes, _ = simulated
    new, _ = runs.resumed(old, p, changes)
    scratch = runs.run(p)
    assert runs.results(new) == runs.results(scratch)
    assert runs.outputs(new) == runs.outputs(scratch)


@given(simulations())
def test_a_resumed_run_can_be_resumed(simulated: tuple[Runs, str, str, Changes, int]) -> None:
    runs, old, p, changes, seed = simulated
    second, _ = runs.resumed(old, p, changes, seed=seed)
    third, again = runs.resumed(second, p, Changes())
    scratch = runs.run(p)
    assert runs.results(third) == runs.results(scratch)
    assert runs.outputs(third) == runs.outputs(scratch)
    # Existing results are not recomputed.
    done = {key for key, step in runs.states[second].steps.items() if step.status in SUCCESSFUL_STATUSES}
    for key in done - set(runs.plan.closing):
        if not set(runs.plan.dependencies[key]) & set(again.rerun_steps):
            assert key not in runs.executed[third], again.rerun_steps.get(key)


@given(simulations())
def test_no_step_downstream_of_a_rerun_step_is_reused(
    simulated: tuple[Runs, str, str, Changes, int],
) -> None:
    runs, old, p, changes, _ = simulated
    new, found = runs.resumed(old, p, changes)
    taken = {fact.key for fact in found.facts}
    whole = {key for key in taken if key in runs.plan.nodes}
    assert not whole & set(found.rerun_steps) and found.steps == len(whole)
    for key in taken:
        node = key if key in runs.plan.nodes else item_of(key)[0]
        for other in runs.plan.dependencies[node]:
            assert other in whole or runs.states[new].steps[other].status is Status.SKIPPED
        assert key not in runs.executed[new]
    for key in runs.plan.nodes:
        step = runs.states[old].steps[key]
        assert key in whole or key in found.rerun_steps or (step.status is Status.SKIPPED and step.expected)
    assert sum(found.items.values()) == len(taken - whole)


def test_a_resumed_run_has_the_outcome_of_one_from_the_start_where_an_output_does_not_exist() -> None:
    """Its items are named one by one, those of the other run together as a list: that has no field either."""
    big = "x" * 300_000
    each = mapped_node(node("each", x=values.Inline([1, 2, 3])), "x")
    made = pipeline(each, out=values.Pick(values.Output("each"), ("a",)))
    ends = [end(f"each[{n}]", result=big) for n in range(3)]
    scratch = RunDriver(made, RUN, *ends)
    old = RunDriver(made, RUN, ends[0], ends[2], end("each[1]", Outcome.FAILED))
    reused = resume(old.state, old.state.plan, R, Changes()).facts
    assert [fact.key for fact in reused] == ["each[0]", "each[2]"]
    resumed = RunDriver(made, *reused, RUN, ends[1])
    assert resumed.finished == scratch.finished
    assert scratch.finished.outcome is Outcome.FAILED and "has no element ['a']" in str(scratch.finished.error)


def test_a_step_runs_again_if_the_source_changed_and_it_reads_objects_of_project_classes() -> None:
    made = pipeline(node("train"), node("use", x=values.Output("train")), out=values.Output("use"))
    known = {name: dataclasses.replace(spec, code="c") for name, spec in made.steps.items()}
    made = dataclasses.replace(made, steps=known)
    model = Stored(ArtifactRef(sha256="1" * 64, size=1, media_type="a/b", format="pickle", project_types=True))
    for result, again in ((model, ["use"]), (values.Inline(1), [])):
        old = RunDriver(made, RUN, dataclasses.replace(end("train"), outputs={"result": result}), end("use"))
        assert list(resume(old.state, old.state.plan, R, Changes(source=True)).rerun_steps) == again
        assert resume(old.state, old.state.plan, R, Changes()).steps == 2
