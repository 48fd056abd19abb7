"""The published contracts of registered models: samples, schemas, hostile bytes and events."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_contracts import event_codec, model_fact_codec, subjects
from penstock_contracts.fact_codec import UnreadableFact
from penstock_contracts.models import ModelChange
from penstock_core.pipeline.values import INLINE_LIMIT
from penstock_core.registry.facts import MODEL_FACTS, ModelFact
from penstock_core.registry.state import Model, evolve
from penstock_gateway.describe import schemas
from penstock_gateway.registry import model_views as views

PROTO = Path(__file__).resolve().parents[2] / "proto"
SAMPLES = sorted((PROTO / "samples" / "models").glob("*.json"))
BY_TYPE = {fact.ce_type: fact for fact in MODEL_FACTS}
KINDS = ("minimal", "maximal", "unknown-fields")


def read(sample: Path) -> ModelFact:
    fields = json.loads(sample.read_text())
    revision = subjects.model(fields["project"], fields["model"], fields["revision"])
    fact = model_fact_codec.read(revision, sample.stem.rpartition(".")[0], sample.read_bytes())
    assert not isinstance(fact, UnreadableFact), fact
    return fact


def schema_of(fact: type[ModelFact]) -> jsonschema.Draft202012Validator:
    schema = json.loads((PROTO / "events" / schemas.event_file(fact)).read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_every_event_has_its_samples() -> None:
    assert {sample.stem for sample in SAMPLES} == {f"{name}.{kind}" for name in BY_TYPE for kind in KINDS}


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_samples_are_valid_and_round_trip_through_every_consumer(sample: Path) -> None:
    fact = read(sample)
    given: dict[str, Any] = json.loads(sample.read_text())
    schema_of(type(fact)).validate(given)
    written = json.loads(model_fact_codec.encode(fact))
    schema_of(type(fact)).validate(written)
    again = model_fact_codec.read(model_fact_codec.subject(fact), fact.ce_type, model_fact_codec.encode(fact))
    assert again == fact
    if sample.stem.endswith(".maximal"):
        assert given.keys() == schemas.event(type(fact))["properties"].keys()
        assert {name: written[name] for name in given} == given


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_the_model_state_accepts_every_sample(sample: Path) -> None:
    model = Model("default", "churn", revision=2)
    assert evolve(model, 3, read(sample)).revision == 3


@pytest.mark.parametrize(
    "sample", [one for one in SAMPLES if one.stem.endswith(".minimal")], ids=lambda path: path.stem
)
def test_schema_and_codec_reject_missing_and_mistyped_fields(sample: Path) -> None:
    fact, fields = read(sample), json.loads(sample.read_text())
    for name in fields:
        for broken in ({k: v for k, v in fields.items() if k != name}, fields | {name: {"no": "such"}}):
            assert not schema_of(type(fact)).is_valid(broken), name
            found = model_fact_codec.read(model_fact_codec.subject(fact), fact.ce_type, orjson.dumps(broken))
            assert isinstance(found, UnreadableFact), name


@given(
    st.sampled_from(["models.p.m.1", "models.p.m.01", "models.p.m.0", "models.p.m", "runs.p.m.1", "models.p.m.1.x"]),
    st.sampled_from(sorted(BY_TYPE)) | st.text(max_size=10),
    st.binary(max_size=60)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(lambda data: json.dumps(data).encode()),
)
def test_hostile_bytes_decode_as_corrupt(at: str, ce_type: str, body: bytes) -> None:
    assert isinstance(model_fact_codec.read(at, ce_type, body), UnreadableFact)


def test_a_fact_on_a_wrong_subject_is_corrupt() -> None:
    sample = next(one for one in SAMPLES if "gate-set.v1.minimal" in one.name)
    found = model_fact_codec.read("models.default.churn.4", "penstock.model.gate-set.v1", sample.read_bytes())
    assert found == UnreadableFact("models.default.churn.4", "the body is that of subject models.default.churn.3")


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_events_name_the_version_and_fit_into_a_message(sample: Path) -> None:
    fact = read(sample)
    said = views.change(fact)
    assert (said.model, said.revision) == ("churn", 3)
    assert said.reference == (f"churn:{said.version}" if said.version else None)
    assert ModelChange.model_validate_json(said.model_dump_json()) == said
    attributes = {"type": fact.ce_type, "id": fact.tail, "source": "penstock/models", "keys": "churn"}
    assert event_codec.event("default", attributes, said.model_dump()).data == said.model_dump()
    assert len(said.model_dump_json()) < INLINE_LIMIT


def test_an_event_omits_metrics_when_there_are_too_many() -> None:
    fields = json.loads(next(one for one in SAMPLES if "registered.v1.maximal" in one.name).read_text())
    fields["metrics"] = {f"metric {n} with a long name {'x' * 150}": float(n) for n in range(500)}
    fields["tags"] = {str(n): "x" * 1000 for n in range(100)}
    fact = model_fact_codec.read(
        "models.default.churn.3", "penstock.model.registered.v1", orjson.dumps(fields | {"params": {}})
    )
    assert not isinstance(fact, UnreadableFact)
    said = views.change(fact)
    assert (said.metrics, said.tags) == ({}, {})
    assert len(said.model_dump_json()) < INLINE_LIMIT
