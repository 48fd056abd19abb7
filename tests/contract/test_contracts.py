"""The published contracts: samples, schemas, generated files, and compatibility rules."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_contracts import fact_codec, subjects
from penstock_core import ids
from penstock_core.access import Permission
from penstock_core.errors import InvalidIdError
from penstock_core.facts import FACTS, AttemptFinished, AttemptRequested, Fact, RunRequested
from penstock_core.pipeline.ir import Pipeline
from penstock_core.run import machine
from penstock_gateway.describe import asyncapi, compatibility, generate, schemas

ROOT = Path(__file__).resolve().parents[2]
PROTO = ROOT / "proto"
SAMPLES = sorted((PROTO / "samples").glob("*.json"))
BY_TYPE = {fact.ce_type: fact for fact in FACTS}


def type_of(sample: Path) -> type[Fact]:
    return BY_TYPE[sample.stem.rpartition(".")[0]]


def subject_of(sample: Path) -> str:
    """Return the subject of the sample's fact."""
    fields = json.loads(sample.read_text())
    fact = fact_codec.ADAPTERS[type_of(sample)].validate_python(fields)
    return fact_codec.subject(fact)


def validator(schema: dict[str, Any]) -> jsonschema.Draft202012Validator:
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


# ------------------------------------------------------------------------------------------------------------ samples


def test_every_event_has_a_minimal_a_maximal_and_a_newer_sample() -> None:
    names = {sample.stem for sample in SAMPLES}
    for ce_type in BY_TYPE:
        for kind in ("minimal", "maximal", "unknown-fields"):
            assert f"{ce_type}.{kind}" in names


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_is_valid_by_its_schema(sample: Path) -> None:
    schema = json.loads((PROTO / "events" / schemas.event_file(type_of(sample))).read_text())
    validator(schema).validate(json.loads(sample.read_text()))


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_samples_round_trip_through_every_consumer(sample: Path) -> None:
    subject = subject_of(sample)
    fact = fact_codec.decode(subject, sample.read_bytes())
    assert isinstance(fact, type_of(sample)), fact
    again = fact_codec.decode(subject, fact_codec.encode(fact))
    assert again == fact
    # The output is a valid event and has every known field of the sample with its value.
    written = json.loads(fact_codec.encode(fact))
    schema = json.loads((PROTO / "events" / schemas.event_file(type(fact))).read_text())
    validator(schema).validate(written)
    if not sample.stem.endswith(".unknown-fields"):
        assert holds(written, json.loads(sample.read_text()))


def holds(written: Any, given: Any) -> bool:
    """Whether every field of `given` is in `written` with the same value."""
    if isinstance(given, dict) and isinstance(written, dict):
        return all(name in written and holds(written[name], value) for name, value in given.items())
    if isinstance(given, list) and isinstance(written, list):
        return len(given) == len(written) and all(map(holds, written, given))
    return written == given


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_the_state_machine_accepts_every_sample(sample: Path) -> None:
    fact = fact_codec.decode(subject_of(sample), sample.read_bytes())
    assert not isinstance(fact, fact_codec.UnreadableFact)
    state = machine.RunState(fact.run_id, machine.Plan(Pipeline(name="training")))
    assert machine.evolve(state, fact) is state


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.ce_type)
def test_the_maximal_sample_has_every_field(fact: type[Fact]) -> None:
    """So the samples preserve the contract of a version, even if its schema is rewritten."""
    fields = json.loads((PROTO / "samples" / f"{fact.ce_type}.maximal.json").read_text())
    assert fields.keys() == schemas.event(fact)["properties"].keys()


def test_schema_and_codec_reject_missing_and_mistyped_fields() -> None:
    """The schema is as strict as the code on required fields and on parts of subjects."""
    for fact in FACTS:
        sample = PROTO / "samples" / f"{fact.ce_type}.minimal.json"
        subject, fields = subject_of(sample), json.loads(sample.read_text())
        schema = validator(schemas.event(fact))
        for name in fields:
            for broken in ({k: v for k, v in fields.items() if k != name}, fields | {name: {"no": "such"}}):
                assert not schema.is_valid(broken), (fact, name)
                assert isinstance(fact_codec.decode(subject, orjson.dumps(broken)), fact_codec.UnreadableFact), (
                    fact,
                    name,
                )


@given(
    st.text(max_size=12) | st.from_regex(schemas.NAME, fullmatch=True) | st.from_regex(schemas.STEP_KEY, fullmatch=True)
)
def test_schema_patterns_match_the_rules_of_the_core(text: str) -> None:
    for pattern, check in ((schemas.NAME, ids.check_name), (schemas.STEP_KEY, ids.check_step_key)):
        try:
            allowed = check(text) == text
        except InvalidIdError:
            allowed = False
        assert (re.fullmatch(pattern[1:-1], text) is not None) == allowed


# ---------------------------------------------------------------------------------------------------- generated files


def test_generated_files_match_the_committed_ones() -> None:
    for name, text in generate.files().items():
        path = PROTO / name
        assert path.is_file(), f"{name} is missing: run `make generate`"
        assert path.read_text() == text, f"{name} is not what the contracts say: run `make generate`"
    known = set(generate.files())
    extra = [p for kind in ("events", "commands") for p in (PROTO / kind).iterdir() if f"{kind}/{p.name}" not in known]
    assert not extra


def test_generation_is_idempotent_and_removes_stale_files(tmp_path: Path) -> None:
    assert len(generate.write(tmp_path)) == len(generate.files())
    stale = tmp_path / "events" / "penstock.old.v1.json"
    stale.write_text("{}")
    (tmp_path / "openapi.json").write_text("{}")
    assert sorted(generate.write(tmp_path)) == sorted([stale, tmp_path / "openapi.json"])
    assert generate.write(tmp_path) == []


@pytest.mark.parametrize("path", sorted((PROTO / "commands").glob("*.json")), ids=lambda path: path.stem)
def test_command_schemas_are_valid(path: Path) -> None:
    schema = json.loads(path.read_text())
    validator(schema)
    assert schema["$id"].endswith(path.name)
    assert schema["title"]
    assert schema["description"]


def references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [ref for value in node.values() for ref in references(value)]
    return [ref for item in node for ref in references(item)] if isinstance(node, list) else []


def look_up(document: Any, reference: str) -> Any:
    for part in reference.removeprefix("#/").split("/"):
        document = document[part.replace("~1", "/").replace("~0", "~")]
    return document


def test_openapi_is_valid_and_every_route_documents_its_errors() -> None:
    document = json.loads((PROTO / "openapi.json").read_text())
    assert document["openapi"].startswith("3.1.")
    for reference in references(document):
        assert look_up(document, reference), reference
    for name, schema in document["components"]["schemas"].items():
        jsonschema.Draft202012Validator.check_schema(schema)
        assert schema.get("description"), name
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    operations = [
        (path, method, operation) for path, item in document["paths"].items() for method, operation in item.items()
    ]
    assert len({operation["operationId"] for _, _, operation in operations}) == len(operations)
    for path, method, operation in operations:
        assert operation["summary"]
        assert operation["description"]
        security = operation.get("security", [])
        parameters = {one["name"] for one in operation["parameters"] if one["in"] == "path"}
        assert parameters == set(re.findall(r"\{(\w+)\}", path))
        if not path.startswith(("/v1", "/v2/models")):
            assert not security
            continue
        if path.startswith("/v1/answers/"):
            # HTML pages with signed URLs.
            assert not security and operation["responses"]["403"]["content"].keys() == {"text/html"}
            continue
        if path.startswith("/v1/webhooks/"):
            # The signature of the delivery is checked, instead of a token.
            assert not security and "401" in operation["responses"]
            continue
        if path == "/v1/login":
            assert not security
            continue
        (needed,) = security
        if path in ("/v1/whoami", "/v1/logout", "/v1/session") or operation["operationId"] == "list_projects":
            assert needed["token"] == []
            continue
        (permission,) = needed["token"]
        assert permission in list(Permission), (path, method)
        assert operation["responses"]["401"]["content"].keys() == {"application/problem+json"}, (path, method)
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                assert response["content"].keys() == {"application/problem+json"}, (path, method, status)
    for path in ("/v1/runs/{run_id}/events", "/v1/runs/{run_id}/logs"):
        assert "text/event-stream" in document["paths"][path]["get"]["responses"]["200"]["content"]


def test_asyncapi_is_valid() -> None:
    """Checks the structure of AsyncAPI 3.0 as far as it is used here."""
    document = yaml.safe_load((PROTO / "asyncapi.yaml").read_text())
    assert document["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= document["info"].keys()
    for server in document["servers"].values():
        assert {"host", "protocol"} <= server.keys()
        assert set(re.findall(r"\{(\w+)\}", server["host"])) == server.get("variables", {}).keys()
    for reference in references(document):
        if reference.startswith("#/"):
            assert look_up(document, reference), reference
        else:
            assert (PROTO / reference).is_file(), reference
    for name, channel in document["channels"].items():
        found = set(re.findall(r"\{(\w+)\}", channel["address"] or ""))
        assert found == channel.get("parameters", {}).keys(), name
        assert channel["messages"], name
    for name, operation in document["operations"].items():
        assert operation["action"] in ("send", "receive"), name
        channel = operation["channel"]["$ref"]
        assert look_up(document, channel)
        for message in operation["messages"]:
            assert message["$ref"].startswith(f"{channel}/messages/"), name
        if "reply" in operation:
            assert look_up(document, operation["reply"]["channel"]["$ref"])["address"] is None
    for message in document["components"]["messages"].values():
        assert message["payload"]


def test_asyncapi_knows_every_fact_and_its_channel_is_its_subject() -> None:
    document = yaml.safe_load((PROTO / "asyncapi.yaml").read_text())
    described = {channel.fact for channel in asyncapi.FACTS}
    assert described == set(FACTS)
    for sample in SAMPLES:
        fact = fact_codec.decode(subject_of(sample), sample.read_bytes())
        assert not isinstance(fact, fact_codec.UnreadableFact)
        name = type(fact).__name__[0].lower() + type(fact).__name__[1:]
        address = document["channels"][name]["address"]
        values = {"shard": ids.shard(fact.run_id)} | {
            k: str(getattr(fact, k, "")) for k in ("run_id", "key", "attempt", "pool", "name")
        }
        values["milliseconds"] = str(round(getattr(fact, "at", 0.0) * 1000))
        assert address.format(**values) == fact_codec.subject(fact)
        assert document["components"]["messages"][name]["name"] == fact.ce_type
        headers = document["components"]["messageTraits"]["cloudEvent"]["headers"]
        sent = fact_codec.headers(fact, "penstock/test/1").keys()
        traced = {"traceparent"} if isinstance(fact, RunRequested | AttemptRequested) else set()
        assert sent == {*headers["required"], *traced} and sent <= headers["properties"].keys()


# ---------------------------------------------------------------------------------------------------------- evolution


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.ce_type)
def test_an_event_version_changes_only_by_additions(fact: type[Fact]) -> None:
    committed = json.loads((PROTO / "events" / schemas.event_file(fact)).read_text())
    why = compatibility.breaks(committed, schemas.event(fact))
    assert not why, f"{fact.ce_type} would break those who use it: {why}; make it a new version instead"


def test_a_breaking_schema_change_is_not_written(tmp_path: Path) -> None:
    generate.write(tmp_path)
    path = tmp_path / "events" / "penstock.run.finished.v1.json"
    older = json.loads(path.read_text())
    older["properties"]["cost"] = {"type": "number"}
    path.write_text(json.dumps(older))
    with pytest.raises(compatibility.BreakingChangeError, match=r"penstock\.run\.finished\.v1.*cost was removed"):
        generate.write(tmp_path)
    assert "cost" in path.read_text()


def test_the_compatibility_check_detects_breaking_changes() -> None:
    old = schemas.event(AttemptFinished)
    gone, renamed, retyped, narrowed, demanding, grown = (copy.deepcopy(old) for _ in range(6))
    del gone["properties"]["executor"]
    renamed["properties"]["measures"] = renamed["properties"].pop("metrics")
    retyped["properties"]["attempt"]["type"] = "string"
    narrowed["$defs"]["Outcome"]["enum"].remove("lost")
    demanding["required"].append("executor")
    grown["properties"]["usage"] = {"type": "object"}
    grown["$defs"]["Outcome"]["enum"].append("preempted")
    grown["description"] = "other words"
    for broken in (gone, renamed, retyped, narrowed, demanding):
        assert compatibility.breaks(old, broken), broken
    assert compatibility.breaks(old, grown) == []


# --------------------------------------------------------------------------------------------------------------- fuzz

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


def read(subject: str, body: bytes) -> None:
    """Apply every reader to a message; none may raise."""
    fact = fact_codec.decode(subject, body)
    if isinstance(fact, fact_codec.UnreadableFact):
        assert fact.why
        fact = fact_codec.placeholder_fact(fact)
    if fact is not None:
        assert fact_codec.subject(fact) == subject
        assert fact_codec.decode(subject, fact_codec.encode(fact)) is not None


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_mutated_samples_never_make_a_reader_raise(data: st.DataObject) -> None:
    sample = data.draw(st.sampled_from(SAMPLES))
    subject, fields = subject_of(sample), json.loads(sample.read_text())
    for _ in range(data.draw(st.integers(1, 3))):
        fields[data.draw(st.sampled_from([*fields, "other"]))] = data.draw(JSON)
    read(subject, json.dumps(fields).encode())


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_random_bytes_never_make_a_reader_raise(data: st.DataObject) -> None:
    sample = data.draw(st.sampled_from(SAMPLES))
    raw = bytearray(sample.read_bytes())
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
        raw = raw or bytearray(b" ")
    read(subject_of(sample), bytes(raw))
    read(subject_of(sample), data.draw(st.binary(max_size=40)))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ["runs", "step", "requested", "started", "finished", "skipped", "cancel", "1", "01", "²", "", "*", ">"]
        )
        | st.text(max_size=5),
        max_size=9,
    ),
    st.binary(max_size=30),
)
def test_random_subjects_never_make_a_reader_raise(parts: list[str], body: bytes) -> None:
    for run_id in (".".join(parts[:1]), "a-run"):
        subject = ".".join(["runs", ids.shard(run_id), run_id, *parts])
        if subjects.parse(subject) is None:
            assert isinstance(fact_codec.decode(subject, body), fact_codec.UnreadableFact)
        read(subject, body)
    read(".".join(parts), body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b'{"run_id":"a"' + b" " * 10_000,
        b"[" * 100_000,
        b'{"run_id":' * 50_000,
        b'{"run_id":"r","outcome":"succeeded","outputs":{"x":' + b'{"items":[' * 5000 + b"]}" * 5000 + b"}}",
        b'{"run_id":"r","outcome":"succeeded","outputs":{"x":{"value":"\\ud800"}}}',
        b'{"run_id":"r","outcome":"succeeded","outputs":{"x":{"value":1e999}}}',
        b'{"run_id":"r","outcome":"succeeded","outputs":{"x":{"value":NaN}}}',
        b'{"run_id":"r","outcome":"succeeded","outputs":{"x":{"value":' + b"9" * 5000 + b"}}}",
        b'{"run_id":"r","run_id":"s","outcome":"succeeded"}',
        b'{"run_id":"r","outcome":"succeeded","outputs":{"x":{"value":1,"items":[]}}}',
        b'{"run_id":"r","outcome":"succeeded","error":"' + b"x" * (fact_codec.MAX_BODY + 1) + b'"}',
    ],
    ids=range(16),
)
def test_hostile_bodies(body: bytes) -> None:
    read(subjects.run("r", "finished"), body)


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4))
def test_values_round_trip(params: dict[str, Any]) -> None:
    plain = json.loads(json.dumps(params, allow_nan=True), parse_constant=lambda _: None)
    outputs = {name: {"value": value} for name, value in plain.items()}
    body = {"run_id": "r", "key": "k", "attempt": 1, "outcome": "succeeded", "params": plain, "outputs": outputs}
    subject = subjects.finished("r", "k", 1)
    fact = fact_codec.decode(subject, json.dumps(body).encode())
    assert isinstance(fact, AttemptFinished), fact
    again = fact_codec.decode(subject, fact_codec.encode(fact))
    assert again == fact
    assert fact.params == plain
