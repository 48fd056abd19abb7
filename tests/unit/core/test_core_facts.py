"""Facts: their subjects, and validation."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from penstock_core import facts
from penstock_core.errors import InvalidFactError, InvalidIdError, PenstockError
from penstock_core.facts import (
    ArtifactCommitted,
    AttemptFinished,
    AttemptQueued,
    AttemptRequested,
    AttemptStarted,
    AttemptStopped,
    CancelRequested,
    ClockReached,
    Fact,
    Outcome,
    RunAdmitted,
    RunArchived,
    RunDeleted,
    RunFinished,
    RunRequested,
    SlotGranted,
    StepCancelRequested,
    StepExpanded,
    StepReused,
    StepSkipped,
    StepSuspended,
)
from penstock_core.pipeline.ir import Kind, Node, Pipeline, StepSpec
from penstock_core.pipeline.values import ArtifactRef, Inline
from penstock_testkit import strategies

RUN: dict[str, Any] = {"run_id": "r1"}
OBJECT = ArtifactRef(sha256="0" * 64, size=3, media_type="application/gzip", format="history")
STEP: dict[str, Any] = {**RUN, "key": "features/split-2[3]", "attempt": 4}
REQUESTED: dict[str, Any] = {**STEP, "pool": "gpu", "project": "p", "pipeline": "f", "version": 1, "entrypoint": "m:f"}


def requested(**other: Any) -> AttemptRequested:
    return AttemptRequested(**{**REQUESTED, **other})


EXAMPLES: list[tuple[Fact, str, bool]] = [
    (RunRequested(**RUN, project="p", pipeline="f", version=1), "requested", True),
    (AttemptRequested(**REQUESTED), "step.features/split-2[3].4.requested.gpu", True),
    (AttemptStarted(**STEP, executor="e"), "step.features/split-2[3].4.started", True),
    (AttemptStopped(**STEP), "step.features/split-2[3].4.stopped", True),
    *((AttemptFinished(**STEP, outcome=outcome), "step.features/split-2[3].4.finished", True) for outcome in Outcome),
    (StepSkipped(**RUN, key="a", reason="no"), "step.a.skipped", True),
    (CancelRequested(**RUN), "cancel", True),
    (RunFinished(**RUN, outcome=Outcome.FAILED), "finished", True),
    (RunAdmitted(**RUN), "admitted", True),
    (RunArchived(**RUN, history=OBJECT, facts=3, last_seq=9), "archived", True),
    (RunDeleted(**RUN, project="p", pipeline="f"), "deleted", True),
    (ClockReached(**RUN, at=1.5), "clock.1500", True),
    (StepExpanded(**RUN, key="a", count=3), "step.a.expanded", True),
    (StepReused(**RUN, key="a[3]", from_run="r0"), "step.a[3].reused", True),
    (StepCancelRequested(**RUN, key="a"), "step.a.cancel", True),
    (AttemptQueued(**STEP), "step.features/split-2[3].4.queued", True),
    (SlotGranted(**STEP), "step.features/split-2[3].4.granted", True),
    (StepSuspended(**STEP, kind=Kind.ASK), "step.features/split-2[3].4.suspended", True),
    (
        ArtifactCommitted(**STEP, name="plot", value=Inline(1)),
        "step.features/split-2[3].4.artifact.plot",
        False,
    ),
]


@pytest.mark.parametrize(("fact", "tail", "append_once"), EXAMPLES, ids=lambda value: str(value)[:40])
def test_a_fact_has_a_subject(fact: Fact, tail: str, append_once: bool) -> None:
    assert fact.tail == tail
    assert fact.append_once is append_once


def test_every_kind_of_fact_is_in_the_examples_and_the_list() -> None:
    assert {type(fact) for fact, _, _ in EXAMPLES} == set(facts.FACTS)
    assert set(Fact.__args__) == set(facts.FACTS)


def test_every_end_of_an_attempt_has_the_same_subject() -> None:
    """So the broker itself ensures that only the first end counts."""
    assert len({fact.tail for fact, _, _ in EXAMPLES if isinstance(fact, AttemptFinished)}) == 1


def test_types_carry_a_version_and_are_different() -> None:
    types = [fact.ce_type for fact in facts.FACTS]
    assert len(set(types)) == len(types)
    assert all(re.fullmatch(r"penstock\.(run|attempt|step|artifact)\.[a-z_]+\.v1", name) for name in types)


def test_the_type_checker_rejects_changes_of_a_fact(tmp_path: Path) -> None:
    """Python itself would: see `penstock_core.frozen`."""
    file = tmp_path / "change.py"
    text = """
from penstock_core.facts import AttemptFinished
from penstock_core.pipeline.values import Inline

def change(fact: AttemptFinished, value: Inline) -> None:
    fact.attempt = 2
    value.value = 3
"""
    file.write_text(text)
    checked = subprocess.run(
        [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, str(file)],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        cwd=Path(__file__).parents[3],
    )
    errors = [line for line in checked.stdout.splitlines() if " error: " in line]
    assert len(errors) == 2, checked.stdout
    assert checked.stdout.count("read-only") == 2, checked.stdout


@pytest.mark.parametrize("attempt", [0, -1, 1_000_001])
def test_attempts_out_of_range_are_refused(attempt: int) -> None:
    with pytest.raises(InvalidFactError, match=f"attempt {attempt} of step 'a' is out of range"):
        AttemptStarted(run_id="r", key="a", attempt=attempt, executor="e")
    for good in (1, 1_000_000):
        assert AttemptStarted(run_id="r", key="a", attempt=good, executor="e").attempt == good


@pytest.mark.parametrize(
    "broken",
    [
        lambda: RunRequested(run_id="a.b", project="p", pipeline="f", version=1),
        lambda: RunRequested(run_id="r", project="", pipeline="f", version=1),
        lambda: RunRequested(run_id="r", project="p", pipeline="f>", version=1),
        lambda: requested(pool="*"),
        lambda: requested(key="a.b"),
        lambda: AttemptFinished(run_id=" ", key="a", attempt=1, outcome=Outcome.LOST),
        lambda: StepSkipped(run_id="r", key="", reason="no"),
        lambda: CancelRequested(run_id=""),
        lambda: RunFinished(run_id="r*", outcome=Outcome.FAILED),
    ],
)
def test_a_fact_with_an_invalid_subject_token_is_rejected(broken: Any) -> None:
    with pytest.raises(InvalidIdError) as caught:
        broken()
    assert isinstance(caught.value, PenstockError)


PIPELINE = Pipeline(
    name="f",
    steps={"s": StepSpec(name="s", entrypoint="m:s")},
    nodes=(Node(key="n0", step="s"), Node(key="n1", step="s")),
)


@given(strategies.facts(PIPELINE), strategies.facts(PIPELINE))
def test_facts_share_a_subject_only_for_the_same_identity(one: Fact, other: Fact) -> None:
    assert not set(one.tail) & set(" *>\r\n")
    same = type(one) is type(other) and all(
        getattr(one, name, None) == getattr(other, name, None) for name in ("key", "attempt", "pool")
    )
    if isinstance(one, ClockReached) and isinstance(other, ClockReached):
        same = round(one.at * 1000) == round(other.at * 1000)
    assert (one.tail == other.tail) == same
