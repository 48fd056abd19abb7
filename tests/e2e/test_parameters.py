"""Parameters of pipelines through every door: the command, the client, HTTP, deployments; and metrics that are NaN."""

from __future__ import annotations

import importlib.util
import json
import math
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from penstock import Client, InputError
from penstock.errors import RefusedError
from penstock_testkit.environment import user_environment

PENSTOCK = str(Path(sys.executable).parent / "penstock")

FLOWS = """
import datetime
import enum
import math
from dataclasses import dataclass, field
from decimal import Decimal

from penstock import context, pipeline, run_pipeline, step

class Mode(enum.Enum):
    FAST = 1
    SLOW = 2

@dataclass
class Config:
    rate: float
    layers: list[int] = field(default_factory=list)

@step
def shown(config: Config, mode: Mode, price: Decimal, wait: datetime.timedelta, rate: float, text: str) -> str:
    return f"{config} {mode} {price} {wait} {rate} {text}"

@pipeline
def configured(
    config: Config, mode: Mode = Mode.FAST, price: Decimal = Decimal("1.10"),
    wait: datetime.timedelta = datetime.timedelta(0), rate: float = 1.0, text: str = "",
) -> str:
    return shown(config, mode, price, wait, rate, text)

@step
def joined(self: int, function: int, name: str, version: str, timeout: float, labels: list[str], step: int = 1) -> str:
    return f"{self} {function} {name} {version} {timeout} {labels} {step}"

@pipeline
def inner(self: int, name: str = "n", version: str = "v1", timeout: float = 1.5, labels: list[str] = ["a"]) -> str:
    return joined(self=self, function=2, name=name, version=version, timeout=timeout, labels=labels)

@pipeline
def outer() -> str:
    return run_pipeline(inner, self=5, name="nn", version="v9", timeout=0.5, labels=["x"])

@step
def train() -> float:
    for step, loss in enumerate([0.5, 0.3, math.nan]):
        context().log_metric("loss", loss, step=step)
    context().log_metric("accuracy", 0.5)
    return math.nan

@pipeline
def lost() -> float:
    return train()
"""


@dataclass(frozen=True)
class Workspace:
    """A folder with the user's files, and its platform."""

    folder: Path

    @property
    def client(self) -> Client:
        return Client(home=self.folder / ".penstock")

    def start(self, *arguments: str, errors: Any = subprocess.PIPE) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [PENSTOCK, *arguments],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**user_environment(), "COLUMNS": "140"},
        )

    def call(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        process = self.start(*arguments)
        output, errors = process.communicate(timeout=90)
        assert process.returncode == code, f"exit {process.returncode}\n{output}\n{errors}"
        return output, errors

    def result(self, pipeline: str, *arguments: str) -> Any:
        return json.loads(self.call("run", f"flows.py:{pipeline}", "--json", *arguments)[0])["outputs"]["result"]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    made = Workspace(tmp_path_factory.mktemp("up"))
    (made.folder / "flows.py").write_text(FLOWS)
    with (made.folder / "up.log").open("w") as log:
        process = made.start("up", "--json", errors=log)
    assert process.stdout is not None
    json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")
    yield made
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0, (made.folder / "up.log").read_text()
    process.stdout.close()


def test_parameters_with_the_names_of_platform_arguments(up: Workspace) -> None:
    given = {"self": 4, "name": "x", "version": "v2", "timeout": 0.5, "labels": ["b"]}
    expected = "4 2 x v2 0.5 ['b'] 1"
    texts = [f"-p{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in given.items()]
    assert up.result("inner", *texts) == expected
    version = up.client.pipelines.register(f"{up.folder}/flows.py:inner")
    run = up.client.run(version, given, wait=True)
    assert up.client.artifacts.load(run.run_id) == expected
    again = up.client.runs.rerun(run.run_id, {"self": 7}, wait=True)
    assert up.client.artifacts.load(again.run_id) == expected.replace("4", "7", 1)
    assert up.result("outer") == "5 2 nn v9 0.5 ['x'] 1"


def test_a_metric_that_became_nan_is_shown(up: Workspace) -> None:
    output, _ = up.call("run", "flows.py:lost")
    assert "  train  accuracy=0.5  loss=nan\n" in output
    assert "  result  NaN\n" in output
    shown = json.loads(up.call("runs", "show", "last", "--json")[0])
    assert shown["steps"]["train"]["metrics"] == {"accuracy": 0.5, "loss": "nan"}
    metrics = up.client.runs.get(shown["run_id"]).steps["train"].metrics
    assert metrics["accuracy"] == 0.5 and math.isnan(metrics["loss"])
    resumed = up.client.runs.resume(shown["run_id"], wait=True)
    assert math.isnan(resumed.steps["train"].metrics["loss"])
    (different,) = [
        one
        for one in up.client.runs.compare([shown["run_id"], resumed.run_id], include_equal=True).rows
        if one.name == "loss"
    ]
    assert different.values == ("nan", "nan")


def test_texts_are_read_as_python_reads_them(up: Workspace) -> None:
    texts = {"config": "{'rate': .5}", "mode": "2", "price": "0.1000000000000000055", "wait": "10m", "rate": "+.5"}
    expected = "Config(rate=0.5, layers=[]) Mode.SLOW 0.1000000000000000055 0:10:00 0.5 "
    options = [f"-p{name}={text}" for name, text in texts.items()]
    assert up.result("configured", *options, '-ptext="a"') == expected + '"a"'
    again = json.loads(up.call("runs", "rerun", "last", "-prate=nan", "-pwait=1h30m", "-pprice=2.50", "--json")[0])
    assert again["outputs"]["result"] == 'Config(rate=0.5, layers=[]) Mode.SLOW 2.50 1:30:00 nan "a"'


def test_every_door_reports_a_wrong_input_in_the_same_words(up: Workspace) -> None:
    client, file = up.client, f"{up.folder}/flows.py:configured"
    version = client.pipelines.register(file)
    wrong: dict[str, Any] = {"config": {"rate": 1, "layers": [1, 2, "x"]}, "mode": "MEDIUM", "rat": 1}
    problems = [
        "inputs.rat: unknown parameter (parameters: config, mode, price, wait, rate, text); did you mean 'rate'?",
        'inputs.config.layers[2]: expected int, got "x"',
        'inputs.mode: expected one of FAST, SLOW, got "MEDIUM"',
    ]
    expected = f"Invalid run request for pipeline 'configured': {'; '.join(problems)}"
    options = [f"-p{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in wrong.items()]
    assert up.call("run", "flows.py:configured", *options, code=2)[1] == f"error: {expected}\n"
    with pytest.raises(RefusedError) as refused:
        client.run(version, wrong)
    assert str(refused.value) == expected
    right = client.run(version, {"config": {"rate": 1}}, wait=True)
    with pytest.raises(RefusedError) as refused:
        client.runs.rerun(right.run_id, wrong)
    assert str(refused.value) == expected
    assert up.call("runs", "rerun", right.run_id, *options, code=2)[1] == f"error: {expected}\n"
    with pytest.raises(RefusedError) as refused:
        client.deployments.apply("nightly", {"pipeline": "configured", "triggers": [], "inputs": wrong})
    assert all(problem in str(refused.value) for problem in problems)
    trigger = ("--pipeline", "configured", "--cron", "@daily")
    _, errors = up.call("deployments", "create", "nightly", *trigger, *options, code=2)
    assert all(problem in errors for problem in problems)
    up.call("deployments", "create", "nightly", *trigger, "-pconfig={'rate': 1}", "-prate=nan", "-pprice=1.10")
    found = client.deployments.get("nightly").definition["inputs"]
    assert found == {"config": {"rate": 1}, "rate": {"$type": "float", "value": "nan"}, "price": "1.10"}
    with pytest.raises(InputError) as local:
        _load(up.folder / "flows.py").configured.local(**wrong)
    assert str(local.value) == expected


def _load(file: Path) -> Any:
    spec = importlib.util.spec_from_file_location("flows", file)
    assert spec is not None and spec.loader is not None
    sys.modules["flows"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
