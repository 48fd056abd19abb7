"""Declarations of deployments with mode `low_latency`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from penstock import Endpoint, pipeline, serialize, step
from penstock.authoring import deployments
from penstock.runner import warm_values
from penstock.runner.warm_run import Program, WarmRun
from penstock.runner.warm_values import LoadedArtifacts
from penstock.store import FolderStore
from penstock_contracts.deployments import parse_definition
from penstock_core import plain_data
from penstock_core.deployments import definition_problems, low_latency
from penstock_core.deployments.definition import Mode, TrafficShare
from penstock_core.facts import RunRequested
from penstock_core.pipeline.ir import Kind, Pipeline, StepSpec
from penstock_core.pipeline.values import Inline, Stored, Value


@step
def one(n: int) -> int:
    return n


@pipeline
def ones(n: int):
    return one(n)


@step
def many(n: int) -> list[int]:
    return list(range(n))


@step
def total(numbers: list[int]) -> int:
    return sum(numbers)


@pipeline
def summing(n: int):
    return total(many(n))


def test_large_values_between_steps_are_not_part_of_the_recorded_facts(tmp_path: Path) -> None:
    compiled = summing.compile()
    program = Program(compiled, LoadedArtifacts(FolderStore(tmp_path), unsafe=False), "executor")

    def recorded(n: int) -> tuple[Any, list[str]]:
        requested = RunRequested(
            run_id="r1", project="default", pipeline=compiled.name, version=1, inputs={"n": Inline(n)}
        )
        run = WarmRun(program, requested)
        program.run_all([run])
        return run.end["outputs"], [plain_data.write(body) for _, body in run.facts()]

    outputs, facts = recorded(100_000)
    assert outputs == {"result": {"value": 4_999_950_000}}
    assert max(map(len, facts)) < 10_000
    assert sum("[0,1,2]" in fact.replace(" ", "") for fact in recorded(3)[1]) == 2


def test_loaded_artifacts_are_limited_in_bytes_except_those_that_all_requests_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FolderStore(tmp_path)
    monkeypatch.setattr(warm_values, "_LOADED_BYTES", 500_000)
    artifacts = LoadedArtifacts(store, unsafe=False)

    def stored(n: int) -> Stored:
        saved = serialize.save([n] * 100_000, Any, store, where="x", unsafe=False)
        return plain_data.read(dict[str, Value], {"x": saved})["x"]  # type: ignore[return-value]

    shared = artifacts.load(stored(0), list[int], "x", shared=True)
    first = artifacts.load(stored(1), list[int], "x")
    assert artifacts.load(stored(1), list[int], "x") is first
    for n in range(2, 9):
        artifacts.load(stored(n), list[int], "x")
    assert artifacts.load(stored(1), list[int], "x") is not first
    assert artifacts.load(stored(0), list[int], "x") is shared


def test_code_and_yaml_declare_the_same() -> None:
    options: dict[str, Any] = {"mode": "low_latency", "canary": {"version": 2, "weight": 0.1}, "shadow": {"version": 3}}
    code = ones.deploy("ones", triggers=[Endpoint(min_workers=0, max_workers=2, idle="1m", record=0.5)], **options)
    trigger = {"endpoint": True, "min_workers": 0, "max_workers": 2, "idle": "1m", "record": 0.5}
    yaml = deployments.from_mapping("ones", {"pipeline": "ones", "triggers": [trigger], **options})
    found = parse_definition(code.definition())
    assert found == parse_definition(yaml)
    assert (found.mode, found.canary) == (Mode.LOW_LATENCY, TrafficShare(version=2, weight=0.1))
    assert found.other_versions == {"canary": 2, "shadow": 3}
    assert definition_problems.problems(found) == []


def test_wrong_options_are_refused() -> None:
    endpoint = {"kind": "endpoint", "name": "endpoint"}

    def paths(**more: Any) -> list[str]:
        definition = parse_definition({"pipeline": "ones", "triggers": [endpoint], "mode": "low_latency", **more})
        return [path for path, _ in definition_problems.problems(definition)]

    assert paths() == []
    assert paths(triggers=[]) == ["mode"]
    assert paths(triggers=[{**endpoint, "wait": 0}]) == ["triggers[0].wait"]
    assert paths(triggers=[{**endpoint, "wait": 0}], mode="elastic") == []
    assert paths(version=2, canary={"version": 2, "weight": 1.5}) == ["canary.weight", "canary.version"]
    assert paths(mode="elastic", shadow={"version": 2}) == ["shadow"]
    wrong = {"min_workers": 5, "max_workers": 2, "idle": 0.1, "record": 2}
    assert paths(triggers=[{**endpoint, **wrong}]) == [
        "triggers[0].min_workers",
        "triggers[0].idle",
        "triggers[0].record",
    ]


def test_what_a_worker_cannot_run_is_named() -> None:
    steps = {
        "ask": StepSpec(name="ask", entrypoint="m:a", kind=Kind.ASK),
        "gpu": StepSpec(name="gpu", entrypoint="m:g", pool="gpu", concurrency="gpu", env={"A": "1"}),
        "secret": StepSpec(name="secret", entrypoint="m:s", secrets=("secret:db",), env={"A": "2"}),
    }
    found = low_latency.problems(Pipeline(name="p", steps=steps, max_active=1))
    assert [path for path, _ in found] == [
        "steps.ask",
        "steps.gpu",
        "steps.secret",
        "max_active",
        "steps",
        "steps.secret",
    ]
    assert low_latency.problems(Pipeline(name="p"))[0][0] == "steps"


def test_a_compiled_pipeline_is_read_back_without_pydantic() -> None:
    compiled = ones.compile()
    assert plain_data.read(Pipeline, json.loads(plain_data.write(compiled))) == compiled
