"""Histories as JSON lines: what is written is read again, and what cannot be read is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_contracts import events, histories, subjects
from penstock_contracts.histories import HistoryHeader, InvalidHistory
from penstock_core.facts import FACTS, AttemptFinished, Fact, Outcome
from penstock_core.ir import Pipeline
from penstock_core.ports import Recorded
from penstock_core.values import Inline
from penstock_testkit import strategies

SAMPLES = sorted((Path(__file__).resolve().parents[2] / "proto" / "samples").glob("penstock.*.json"))
BY_TYPE = {fact.ce_type: fact for fact in FACTS}


def written(fact: Fact) -> bytes:
    return histories.fact_line(7, 1.5, events.subject(fact), events.encode(fact))


@given(data=st.data())
@settings(max_examples=50)
def test_what_is_written_is_read_again(data: st.DataObject) -> None:
    pipeline: Pipeline = data.draw(strategies.pipelines())
    header = HistoryHeader(run_id="run1", project="default", pipeline=pipeline, version=3)
    assert histories.read_header(histories.header_line(header)) == header
    fact = data.draw(strategies.facts(pipeline))
    line = written(fact)
    assert line.count(b"\n") == 1
    assert histories.read_fact(line) == Recorded(7, 1.5, fact)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_every_sample_of_an_event_can_be_in_a_history(sample: Path) -> None:
    fact = events.ADAPTERS[BY_TYPE[sample.stem.rpartition(".")[0]]].validate_json(sample.read_bytes())
    assert histories.read_fact(written(fact)).fact == fact


@pytest.mark.parametrize("value", [2**70, -(2**64), "\u2028 \x00 é", {"a": {"b": [None, True, 1e300]}}, [[[[[]]]]]])
def test_values_of_any_kind_come_back(value: Any) -> None:
    outputs = {"result": Inline(value)}
    fact = AttemptFinished(run_id="run1", key="a", attempt=1, outcome=Outcome.SUCCEEDED, outputs=outputs)
    line = written(fact)
    assert len(line.splitlines()) == 1
    assert histories.read_fact(line).fact == fact


@given(body=st.binary(max_size=80), tail=st.sampled_from(["finished", "step.a.1.finished", "step.a.1.started", "x"]))
def test_what_is_unreadable_in_the_log_is_readable_in_a_history(body: bytes, tail: str) -> None:
    line = histories.fact_line(7, 1.5, subjects.run("run1", tail), body)
    assert bool(line) == tail.endswith("finished")
    if line:
        assert orjson.loads(line)["unreadable"]
        assert events.subject(histories.read_fact(line).fact) == subjects.run("run1", tail)


@given(line=st.one_of(st.binary(max_size=60), st.just(b"[" * 100_000), st.just(b'{"a":' * 100_000)))
def test_lines_that_are_none_raise_nothing_else(line: bytes) -> None:
    for read in (histories.read_header, histories.read_fact):
        with pytest.raises(InvalidHistory):
            read(line)
