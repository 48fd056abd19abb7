"""Histories as JSON lines: round trips, and errors of invalid lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_contracts import fact_codec, run_history, subjects
from penstock_contracts.run_history import HistoryHeader, InvalidHistoryError
from penstock_core.facts import FACTS, AttemptFinished, Fact, Outcome
from penstock_core.pipeline.ir import Pipeline
from penstock_core.pipeline.values import Inline
from penstock_core.ports import Recorded
from penstock_testkit import strategies

SAMPLES = sorted((Path(__file__).resolve().parents[2] / "proto" / "samples").glob("penstock.*.json"))
BY_TYPE = {fact.ce_type: fact for fact in FACTS}


def written(fact: Fact) -> bytes:
    return run_history.fact_line(7, 1.5, fact_codec.subject(fact), fact_codec.encode(fact))


@given(data=st.data())
@settings(max_examples=50)
def test_histories_round_trip(data: st.DataObject) -> None:
    pipeline: Pipeline = data.draw(strategies.pipelines())
    header = HistoryHeader(run_id="run1", project="default", pipeline=pipeline, version=3)
    assert run_history.read_header(run_history.header_line(header)) == header
    fact = data.draw(strategies.facts(pipeline))
    line = written(fact)
    assert line.count(b"\n") == 1
    assert run_history.read_fact(line) == Recorded(7, 1.5, fact)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_every_sample_of_an_event_can_be_in_a_history(sample: Path) -> None:
    fact = fact_codec.ADAPTERS[BY_TYPE[sample.stem.rpartition(".")[0]]].validate_json(sample.read_bytes())
    assert run_history.read_fact(written(fact)).fact == fact


@pytest.mark.parametrize("value", [2**70, -(2**64), "\u2028 \x00 é", {"a": {"b": [None, True, 1e300]}}, [[[[[]]]]]])
def test_values_of_every_kind_round_trip(value: Any) -> None:
    outputs = {"result": Inline(value)}
    fact = AttemptFinished(run_id="run1", key="a", attempt=1, outcome=Outcome.SUCCEEDED, outputs=outputs)
    line = written(fact)
    assert len(line.splitlines()) == 1
    assert run_history.read_fact(line).fact == fact


@given(body=st.binary(max_size=80), tail=st.sampled_from(["finished", "step.a.1.finished", "step.a.1.started", "x"]))
def test_unreadable_facts_are_exported_as_readable_placeholders(body: bytes, tail: str) -> None:
    line = run_history.fact_line(7, 1.5, subjects.run("run1", tail), body)
    assert bool(line) == tail.endswith(("finished", "started"))
    if line:
        assert orjson.loads(line)["unreadable"]
        assert fact_codec.subject(run_history.read_fact(line).fact) == subjects.run("run1", tail)


@given(line=st.one_of(st.binary(max_size=60), st.just(b"[" * 100_000), st.just(b'{"a":' * 100_000)))
def test_invalid_lines_raise_only_the_history_error(line: bytes) -> None:
    for read in (run_history.read_header, run_history.read_fact):
        with pytest.raises(InvalidHistoryError):
            read(line)
