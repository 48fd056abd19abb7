"""The HTTP API of a running platform is what its OpenAPI document says, for valid and for invalid requests.

Schemathesis generates requests to every operation from the document, and checks statuses, media types, bodies and
headers of the answers. The examples are the same in each run.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks

from penstock import Client
from penstock.client import platform

PENSTOCK = str(Path(sys.executable).with_name("penstock"))
DOCUMENT: dict[str, Any] = json.loads((Path(__file__).parents[2] / "proto" / "openapi.json").read_text())
ENDLESS = ("/v1/events/stream", "/v1/runs/changes")
OPERATIONS = [
    f"{method.upper()} {path}" for path, item in DOCUMENT["paths"].items() for method in item if path not in ENDLESS
]
EXAMPLES = 4

MEANING = {
    "PUT /v1/artifacts/{sha256}": "the digest of the body",
    "POST /v1/versions": "the definition of a pipeline",
    "GET /v1/runs": "orders, comparisons, times and cursors of searches",
    "POST /v1/runs": "the inputs of the pipeline",
    "POST /v1/runs/{run_id}/rerun": "the inputs of the pipeline",
    "GET /v1/runs/{run_id}/metrics": "parameters of one series",
    "GET /v1/runs/{run_id}/items": "the step is mapped",
    "GET /v1/runs/{run_id}/value": "the run has the output",
    "POST /v1/runs/{run_id}/steps/{key}/answer": "the choices of the question",
    "POST /v1/events": "names of attributes, times",
    "PUT /v1/event-types/{type}": "a JSON Schema",
    "PUT /v1/notifications/rules": "notification rules",
    "PUT /v1/deployments/{name}": "the definition of a deployment",
    "POST /v1/deployments/{name}/test": "an event",
    "POST /v1/deployments/{name}/replay": "a time or an event",
    "GET /v1/deployments/{name}/partitions": "the deployment has partitions",
    "POST /v1/deployments/{name}/partitions": "the deployment has partitions",
    "GET /v1/deployments/{name}/partitions/{key}": "the deployment has partitions",
    "POST /v1/backfills": "which partitions or ticks are selected",
    "POST /v1/builds": "URLs, refs and paths of repositories",
    "POST /v1/environments": "the language of requirements",
    "POST /v1/endpoints/{project}/{name}": "the inputs of the pipeline",
    "GET /v1/models/{name}/versions/{which}": "numbers of versions",
    "PUT /v1/models/{name}/gates/{alias}": "the language of gates",
    "PUT /v1/models/{name}/aliases/{alias}": "the language of gates",
    "POST /v1/models/{name}/versions": "the language of gates; what belongs together",
    "PUT /v1/retention/policies/{name}": "what belongs together",
    "PUT /v1/script-runs/{run_id}": "the artifact of the source is in the store",
    "POST /v1/script-runs/{run_id}/records": "artifacts are in the store; names of metrics",
    "PUT /v1/script-runs/{run_id}/end": "artifacts are in the store; what an error consists of",
    "PUT /v1/limits/{name}": "an integer that is written as 1.0",
    "PUT /v1/secrets/{name}": "which characters a value has, and its size in bytes",
}
"""Operations that refuse some requests for what they mean, which a schema cannot say."""

FLOWS = """
from pathlib import Path
from penstock import ask, pipeline, step

@step
def note(text: str) -> Path:
    path = Path("note.txt")
    path.write_text(text)
    return path

@pipeline
def small(text: str = "x"):
    return note(text)

@pipeline
def asking():
    return note(ask("Publish?", choices=["yes", "no"]))
"""


class Api:
    """A running platform, and the names of what is in it by path parameter."""

    def __init__(self, folder: Path) -> None:
        (folder / "flows.py").write_text(FLOWS)
        environment = {name: text for name, text in os.environ.items() if not name.startswith("PENSTOCK_")}
        environment |= {"XDG_CACHE_HOME": str(folder / "cache"), "PENSTOCK_FSYNC": "false"}
        environment["PENSTOCK_SECRETS_KEY_FILE"] = str(folder / "keys" / "secrets.keys")
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(
            [PENSTOCK, "up", "--json"], cwd=folder, env=environment, stdout=quiet, stderr=quiet
        )
        self._folder = folder

    def fill(self) -> None:
        home = self._folder / ".penstock"
        deadline = time.monotonic() + 120
        while (address := platform.find(home)) is None:
            assert time.monotonic() < deadline, "the platform does not start"
            time.sleep(0.05)
        self.url, self.token = address.url, (home / "token").read_text().strip()
        client = Client(home=home)
        for name in ("small", "asking"):
            client.pipelines.register(f"{self._folder / 'flows.py'}:{name}")
        run = client.run("small", wait=True)
        client.run("asking")
        client.models.register("model", run.run_id, "note", alias="best")
        trigger = {"kind": "event", "name": "on", "types": ["com.acme.x"]}
        client.deployments.apply("model", {"pipeline": "small", "triggers": [trigger], "inputs": {}})
        event = client.events.send("com.acme.y", {"a": 1})
        client.limits.set("model", 2)
        self.known: dict[str, Any] = {
            "run_id": run.run_id,
            "key": "note",
            "sha256": run.steps["note"].outputs["result"]["artifact"]["sha256"],
            "pipeline": "small",
            "version": 1,
            "project": "default",
            "name": "model",
            "alias": "best",
            "number": 1,
            "which": "1",
            "event": str(event.sequence),
            "trigger": "on",
        }

    def stop(self) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.wait(60)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    made = Api(tmp_path_factory.mktemp("contract"))
    try:
        made.fill()
        yield made
    finally:
        made.stop()


@pytest.mark.parametrize("label", OPERATIONS)
def test_operation(api: Api, label: str) -> None:
    schema = schemathesis.openapi.from_dict(DOCUMENT)
    operation = schema.find_operation_by_label(label)
    assert operation is not None

    def name_what_there_is(found: Any) -> Any:
        return {name: api.known.get(name, value) for name, value in found.items()} if isinstance(found, dict) else found

    @schema.hook
    def before_generate_path_parameters(context: Any, strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.one_of(strategy.map(name_what_there_is), strategy)

    def check(mode: GenerationMode) -> None:
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def requests(case: schemathesis.Case) -> None:
            response = case.call(base_url=api.url, headers={"authorization": f"Bearer {api.token}"}, timeout=30)
            without = [checks.ignored_auth]  # test_gateway_access.py
            if label in MEANING:
                without.append(checks.positive_data_acceptance)
            case.validate_response(response, excluded_checks=without)

        requests()

    check(GenerationMode.POSITIVE)
    if operation.body or operation.query or operation.headers:
        check(GenerationMode.NEGATIVE)
