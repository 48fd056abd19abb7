"""The JSON Schema of penstock.yaml accepts what `penstock apply` accepts, and names every option."""

from __future__ import annotations

import dataclasses
from typing import Any

import jsonschema
import pytest

from penstock.authoring.deployment_schema import schema
from penstock.authoring.deployments import Cron, Deployment, Endpoint, Late, On, Webhook, from_mapping
from penstock.authoring.notify import Notify
from penstock_core.errors import DefinitionError

SCHEMA = schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def one(**more: Any) -> dict[str, Any]:
    return {"pipeline": "training", **more}


@pytest.mark.parametrize(
    "deployment",
    [
        one(),
        one(inputs={"rows": 50}, labels={"team": "risk"}, deadline="1h", version=3, priority=2, description="text"),
        one(triggers=[{"cron": "0 3 * * *", "tz": "Europe/Paris", "jitter": "5m", "catchup": "all"}]),
        one(triggers=[{"every": "15m", "start": "2026-01-31T12:00:00Z"}, {"every": 900}]),
        one(triggers=[{"on": "com.acme.*", "key": "data.customer", "debounce": "5m"}]),
        one(triggers=[{"on": ["a", "b"], "all_of": True, "within": 60, "inputs": {"n": "data.n"}}]),
        one(triggers=[{"on": "a", "inputs": "data", "filter": "data.x > 1"}]),
        one(triggers=[{"webhook": "github", "secret": "secret:hub", "events": "push"}]),
        one(late={"after": "2h", "by": "07:00", "tz": "Europe/Paris"}),
        one(
            notify=[{"kind": "email", "to": "ada@example.com", "on": "failed"}, {"kind": "slack", "secret": "secret:x"}]
        ),
        one(notify=[{"kind": "webhook", "url": "https://example.com", "on": ["late", "drift"], "throttle": "1h"}]),
        one(triggers=[{"endpoint": True, "wait": "10s", "rate": 5.5}]),
        one(partitions={"by": "day", "start": "2026-01-31", "tz": "Europe/Paris", "inputs": {"day": "key"}}),
        one(max_active_runs=2, overlap="cancel_previous"),
        one(partitions={"by": "static", "keys": ["eu", "us"]}),
    ],
)
def test_accepted_files(deployment: dict[str, Any]) -> None:
    VALIDATOR.validate({"deployments": {"nightly": deployment}})
    from_mapping("nightly", deployment)


@pytest.mark.parametrize(
    "deployment",
    [
        one(triggers=[{"filter": "true"}]),
        one(triggers=[{"on": "a", "filters": "true"}]),
        one(triggers=[{"cron": "@daily", "on": "a"}]),
        one(triggers={"cron": "@daily"}),
        one(triggers=["@daily"]),
        one(notify=[{"to": "ada@example.com"}]),
        one(notify=[{"kind": "email", "cc": "ada@example.com"}]),
        one(notify={"kind": "email"}),
        one(triggers=[{"endpoint": True, "path": "/x"}]),
    ],
)
def test_refused_files(deployment: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate({"deployments": {"nightly": deployment}})
    with pytest.raises(DefinitionError):
        from_mapping("nightly", deployment)


def test_every_option_of_a_class_is_in_the_schema_with_its_description() -> None:
    made = SCHEMA["properties"]["deployments"]["additionalProperties"]["properties"]
    by_title = {trigger["title"]: trigger["properties"] for trigger in made["triggers"]["items"]["anyOf"]}
    for shape, title in ((On, "on"), (Cron, "cron"), (Webhook, "webhook"), (Endpoint, "endpoint")):
        names = {field.name for field in dataclasses.fields(shape)}
        renamed = names - {"types", "provider"} | ({title} if title not in ("cron",) else set())
        assert set(by_title[title]) == renamed
        assert all(option.get("description") for option in by_title[title].values()), title
    for shape, properties in ((Notify, made["notify"]["items"]["properties"]), (Late, made["late"]["properties"])):
        assert set(properties) == {field.name for field in dataclasses.fields(shape)}
        assert all(option.get("description") for option in properties.values())
    options = {field.name for field in dataclasses.fields(Deployment)} - {"name", "file", "line"}
    assert set(made) == options


def test_values_that_are_not_among_the_allowed_ones_are_refused() -> None:
    for rule in ({"kind": "pager"}, {"kind": "email", "on": "sometimes"}, {"kind": "email", "on": ["sometimes"]}):
        assert not VALIDATOR.is_valid({"deployments": {"x": one(notify=[rule])}})
    for wrong in ({"webhook": "bitbucket"}, {"every": "1h", "catchup": "some"}):
        assert not VALIDATOR.is_valid({"deployments": {"x": one(triggers=[wrong])}})


def test_an_unknown_overlap_policy_is_refused() -> None:
    with pytest.raises(jsonschema.ValidationError, match="drop"):
        VALIDATOR.validate({"deployments": {"nightly": one(max_active_runs=2, overlap="drop")}})


def test_the_schema_is_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
