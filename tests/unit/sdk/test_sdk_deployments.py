"""Declarations of deployments: triggers as JSON, names, YAML, and errors with the user's line."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from penstock import Cron, DefinitionError, Endpoint, On, Partitions, Webhook, pipeline, sources
from penstock.authoring import deployments
from penstock.errors import SourceError
from penstock_contracts.deployments import parse_definition
from penstock_core.deployments.definition import CronTrigger, EventTrigger, WebhookTrigger, Window, WindowKind
from penstock_core.deployments.definition_problems import problems
from penstock_core.deployments.partitions import PartitionKind
from penstock_core.deployments.partitions import Partitions as Declared
from penstock_core.deployments.webhooks import Provider
from penstock_core.errors import InvalidInputsError


@pipeline
def training(url: str = "", rows: int = 0) -> None: ...


def test_a_declaration_is_a_definition_that_the_platform_reads() -> None:
    made = training.deploy(
        "nightly",
        triggers=[
            Cron("0 3 * * *", tz="Europe/Paris", jitter="5m", start=datetime(2030, 1, 1, tzinfo=UTC)),
            Cron(every=timedelta(minutes=15), name="often"),
            On("com.acme.a", filter="data.rows > 1", inputs={"rows": "data.rows"}, key="data.c", debounce="5m"),
            On(["com.acme.a", "com.acme.b"], inputs="data", all_of=True, within="1h"),
            On("com.acme.c", batch=3, within=60),
        ],
        labels={"team": "risk"},
        deadline="2h",
        inputs={"url": "s3://a"},
    )
    definition = parse_definition(made.definition())
    assert problems(definition) == []
    assert (definition.pipeline, definition.labels, definition.deadline) == ("training", {"team": "risk"}, 7200)
    assert definition.triggers == (
        CronTrigger(name="cron", cron="0 3 * * *", tz="Europe/Paris", jitter=300, start=1893456000),
        CronTrigger(name="often", every=900),
        EventTrigger(
            name="on",
            types=("com.acme.a",),
            filter="data.rows > 1",
            inputs={"rows": "data.rows"},
            key="data.c",
            window=Window(kind=WindowKind.DEBOUNCE, seconds=300),
        ),
        EventTrigger(
            name="on-2",
            types=("com.acme.a", "com.acme.b"),
            inputs_from="data",
            window=Window(kind=WindowKind.ALL_OF, seconds=3600),
        ),
        EventTrigger(name="on-3", types=("com.acme.c",), window=Window(kind=WindowKind.BATCH, seconds=60, count=3)),
    )


@pytest.mark.parametrize(
    ("trigger", "words"),
    [
        (On("a", debounce="5m", throttle="5m"), "debounce and throttle cannot be combined"),
        (On("a", batch=3), "batch needs within"),
        (On("a", within="5m"), "within needs batch or all_of"),
        (On("a", debounce="often"), "debounce must be a duration such as '10m'"),
        (Cron(every="x"), "every must be a duration"),
        (Cron("0 3 * * *", start=datetime(2030, 1, 1)), "has no time zone"),
        ("0 3 * * *", "trigger 1 of deployment 'nightly' must be a Cron, On, Endpoint or Webhook"),
    ],
)
def test_a_wrong_trigger_names_the_line_of_the_deployment(trigger: Any, words: str) -> None:
    with pytest.raises(DefinitionError, match="nightly") as caught:
        training.deploy("nightly", triggers=[trigger])
    assert words in str(caught.value)
    assert caught.value.file == __file__


def test_names_and_settings_are_checked() -> None:
    with pytest.raises(DefinitionError, match="deployment name"):
        training.deploy("a b")
    with pytest.raises(DefinitionError, match="did you mean 'labels'"):
        training.deploy("nightly", label={})


def test_the_deployments_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "deployed_flows.py"
    text = "from penstock import Cron, pipeline\n\n@pipeline\ndef flow(): ...\n"
    file.write_text(text)
    with pytest.raises(SourceError, match="declares no deployment"):
        sources.load_deployments(file)
    file.write_text(f"{text}flow.deploy('a', triggers=[Cron('@daily')])\nflow.deploy('b')\n")
    for _ in range(2):
        assert [one.name for one in sources.load_deployments(file)] == ["a", "b"]


def test_yaml_has_the_options_of_the_classes() -> None:
    given = {
        "pipeline": "training",
        "triggers": [
            {"cron": "@daily", "tz": "Europe/Paris"},
            {"every": "15m"},
            {"on": "com.acme.a", "debounce": "5m", "inputs": {"rows": "data.rows"}},
        ],
    }
    definition = parse_definition(deployments.from_mapping("nightly", given))
    assert [trigger.name for trigger in definition.triggers] == ["cron", "cron-2", "on"]
    for wrong, words in (
        ([{"crom": "@daily"}], "trigger 1 needs one of the keys cron, every, on"),
        ([{"on": "a", "filters": ""}], "trigger 1 has the unknown option 'filters'"),
        (["@daily"], "must be an object"),
        ({}, None),
        ("@daily", "triggers must be a list"),
    ):
        if words is None:
            assert deployments.from_mapping("nightly", {"triggers": wrong})["triggers"] == []
            continue
        with pytest.raises(DefinitionError, match=words):
            deployments.from_mapping("nightly", {"triggers": wrong})


def test_an_endpoint_has_a_wait_and_limits() -> None:
    declared = training.deploy("scorer", triggers=[Endpoint(wait="1m", rate=5, queue=7)])
    [trigger] = declared.definition()["triggers"]
    workers = {"min_workers": 1, "max_workers": 4, "idle": 300.0, "record": 1}
    assert trigger == {"kind": "endpoint", "name": "endpoint", "wait": 60.0, "rate": 5, "queue": 7, **workers}
    written = deployments.from_mapping("scorer", {"pipeline": "training", "triggers": [{"endpoint": True, "rate": 5}]})
    assert written["triggers"][0] == {**trigger, "wait": 30.0, "queue": 100}
    with pytest.raises(DefinitionError, match="endpoint: true"):
        deployments.from_mapping("scorer", {"pipeline": "training", "triggers": [{"endpoint": "yes"}]})


def test_a_webhook_names_its_sender_and_where_its_secret_is() -> None:
    hook = Webhook("github", secret="secret:hub", events="push", inputs={"url": "data.ref"}, debounce="1m")
    [trigger] = training.deploy("pushed", triggers=[hook]).definition()["triggers"]
    assert (trigger["kind"], trigger["provider"], trigger["events"]) == ("webhook", "github", ["push"])
    assert trigger["window"] == {"kind": "debounce", "seconds": 60.0, "count": 0}
    yaml = {"webhook": "github", "secret": "secret:hub", "events": ["push"], "inputs": {"url": "data.ref"}}
    written = deployments.from_mapping("pushed", {"pipeline": "training", "triggers": [{**yaml, "debounce": "1m"}]})
    assert written["triggers"] == [trigger]
    [parsed] = parse_definition(written).triggers
    assert isinstance(parsed, WebhookTrigger)
    assert parsed.provider is Provider.GITHUB
    with pytest.raises(InvalidInputsError, match="provider"):
        parse_definition({"pipeline": "training", "triggers": [{**trigger, "provider": "githup"}]})


def test_partitions_in_python_and_in_yaml() -> None:
    for start in (date(2026, 1, 31), "2026-01-31"):
        days = Partitions("day", start=start, tz="Europe/Paris", inputs={"url": "key"})
        trigger = On("com.acme.a", partition="data.day")
        definition = parse_definition(training.deploy("days", partitions=days, triggers=[trigger]).definition())
        assert problems(definition) == []
        assert definition.partitions == Declared(
            by=PartitionKind.DAY, start="2026-01-31", tz="Europe/Paris", inputs={"url": "key"}
        )
        given = {"by": "day", "start": start, "tz": "Europe/Paris", "inputs": {"url": "key"}}
        yaml = {"pipeline": "training", "partitions": given}
        assert parse_definition(deployments.from_mapping("days", yaml)).partitions == definition.partitions
    hours = Partitions("hour", start=datetime(2026, 1, 31, 8))
    assert hours.definition()["start"] == "2026-01-31T08:00"
    static = parse_definition(training.deploy("s", partitions=Partitions("static", keys=["eu"])).definition())
    assert static.partitions == Declared(by=PartitionKind.STATIC, keys=("eu",))
    with pytest.raises(DefinitionError, match="without a time zone"):
        training.deploy("days", partitions=Partitions("hour", start=datetime(2026, 1, 31, 8, tzinfo=UTC)))
    with pytest.raises(DefinitionError, match="must be Partitions"):
        training.deploy("days", partitions="day")
    for wrong in ({"by": "day", "begin": "2026-01-31"}, {"start": "2026-01-31"}):
        with pytest.raises(DefinitionError, match="partitions"):
            deployments.from_mapping("days", {"pipeline": "training", "partitions": wrong})
    with pytest.raises(InvalidInputsError):
        parse_definition({"pipeline": "training", "partitions": {"by": "year"}})
    with pytest.raises(InvalidInputsError):
        parse_definition({"pipeline": "training", "partitions": "day"})
