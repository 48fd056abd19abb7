"""Registered models through the command line and the client, on a real platform."""

from __future__ import annotations

import hashlib
import json
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock import Client
from penstock.client import platform
from penstock.client.models import ModelVersion
from penstock.errors import NotFoundError, RefusedError
from penstock.serialize import UnsafeFormatError
from penstock_core.errors import InvalidIdError
from penstock_testkit.environment import user_environment

PENSTOCK = str(Path(sys.executable).parent / "penstock")

FLOWS = """
import json
from pathlib import Path

from penstock import context, pipeline, step


@step
def train(depth: int, name: str) -> dict:
    context().log_metric("accuracy", depth / 10)
    context().register_model(name, {"depth": depth}, alias="champion", gate="accuracy > champion.accuracy")
    return {"depth": depth}


@step(cache=True)
def kept(depth: int) -> int:
    context().register_model("kept", {"depth": depth})
    return depth


@step
def save(depth: int) -> Path:
    folder = Path("model")
    folder.mkdir()
    (folder / "weights.json").write_text(json.dumps([depth] * 3))
    context().register_model("folder", folder)
    return folder


@step
def predict(rules: dict, x: int) -> int:
    return rules["depth"] * x


@step(cache=True)
def count(model: Path) -> int:
    return sum(json.loads((model / "weights.json").read_text()))


@pipeline
def training(depth: int = 3, name: str = "rules"):
    return train(depth, name)


@pipeline
def keeping(depth: int = 1):
    return kept(depth)


@pipeline
def saving(depth: int = 2):
    return save(depth)


@pipeline
def counting(model: Path):
    return count(model)


@pipeline
def scoring(rules: dict, x: int = 2):
    return predict(rules, x)
"""


class Workspace:
    """A folder with pipelines and a platform that is up."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "flows.py").write_text(FLOWS)
        self.environment = {
            **user_environment(),
            "XDG_CACHE_HOME": str(folder / "cache"),
        }

    @property
    def client(self) -> Client:
        return Client(home=self.folder / ".penstock")

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": self.environment}
        return subprocess.Popen([PENSTOCK, *arguments], cwd=self.folder, **{**pipes, **options})

    def call(self, *arguments: str, code: int = 0) -> str:
        process = self.start(*arguments)
        output, errors = process.communicate(timeout=120)
        assert process.returncode == code, output + errors
        return output if code == 0 else output + errors

    def json(self, *arguments: str, code: int = 0) -> Any:
        process = self.start(*arguments, "--json")
        output, errors = process.communicate(timeout=120)
        assert process.returncode == code, output + errors
        return json.loads(output)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    made = Workspace(tmp_path_factory.mktemp("models"))
    process = made.start("up", "--json", stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while platform.find(made.folder / ".penstock") is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield made
    process.send_signal(signal.SIGINT)
    process.wait(60)


def trained(workspace: Workspace, pipeline: str, **inputs: Any) -> str:
    run = workspace.client.run(
        workspace.client.pipelines.register(workspace.folder / f"flows.py:{pipeline}"), inputs, wait=True
    )
    assert run.succeeded, run.error
    return run.run_id


@pytest.fixture(scope="module")
def rules(workspace: Workspace) -> str:
    """The name of a registered model whose version 2 is the champion."""
    trained(workspace, "training", depth=4)
    trained(workspace, "training", depth=5)
    return "rules"


def test_runs_show_the_models_that_they_registered_and_read(workspace: Workspace) -> None:
    first = workspace.json("run", "flows.py:training", "-p", "depth=4", "-p", "name=gated")
    (one,) = first["models"]
    assert (one["reference"], one["step"], one["alias"], one["promoted"]) == ("gated:1", "train", "champion", True)
    text = workspace.call("run", "flows.py:training", "-p", "depth=3", "-p", "name=gated")
    line = "  gated:2  registered by train, not promoted to champion: accuracy > champion.accuracy: 0.3 > 0.4 is false"
    assert "\nmodels\n" in text and line in text.splitlines()
    assert line in workspace.call("runs", "show", "last").splitlines()
    (refused,) = workspace.client.runs.get(workspace.json("runs", "show", "last")["run_id"]).models
    assert (refused.version, refused.promoted, refused.gate) == (2, False, "accuracy > champion.accuracy")
    # A model in the inputs is shown by name and version, also after the alias moved, and in a rerun.
    read = workspace.json("run", "flows.py:scoring", "-p", "rules=model:gated@champion")["run_id"]
    again = workspace.json("runs", "rerun", read)["run_id"]
    for run_id in (read, again):
        assert workspace.client.runs.get(run_id).input_models == {"rules": "gated:1"}
        assert "rules=gated:1 x=2" in workspace.call("runs", "show", run_id)
        assert workspace.client.runs.step(run_id, "predict").input_models == {"rules": "gated:1"}
        assert "  rules  gated:1  " in workspace.call("runs", "show", run_id, "predict")


def test_each_run_registers_plain_data_as_one_version(workspace: Workspace) -> None:
    first = trained(workspace, "training", depth=3, name="plain")
    second = trained(workspace, "training", depth=2, name="plain")
    trained(workspace, "training", depth=5, name="plain")
    shown = workspace.json("models", "show", "plain")
    assert [(one["version"], one["metrics"], one["aliases"]) for one in shown["versions"]] == [
        (3, {"accuracy": 0.5}, ["champion"]),
        (2, {"accuracy": 0.2}, []),
        (1, {"accuracy": 0.3}, []),
    ]
    assert (shown["versions"][-1]["run_id"], shown["versions"][-1]["output"]) == (first, "model-plain")
    history = workspace.json("models", "history", "plain")
    assert [entry["kind"] for entry in history] == [
        "registered", "promoted", "registered", "promotion-refused", "registered", "promoted",
    ]  # fmt: skip
    assert history[3]["clauses"] == ["accuracy > champion.accuracy: 0.2 > 0.3 is false"]
    assert history[3]["cause"].endswith("/train/1")
    assert workspace.client.models.get("plain@champion").load() == {"depth": 5}
    text = workspace.call("models", "history", "plain")
    assert f"v2 not promoted to champion, a gate failed, by run:{second}/train" in text
    assert "accuracy > champion.accuracy: 0.2 > 0.3 is false" in text


def test_a_cached_result_registers_no_new_version(workspace: Workspace) -> None:
    first = trained(workspace, "keeping")
    trained(workspace, "keeping")
    (version,) = workspace.client.models.versions("kept")
    assert version.run_id == first


def test_a_folder_can_be_a_model_and_a_pinned_cached_input(workspace: Workspace) -> None:
    trained(workspace, "saving")
    model = workspace.client.models.get("folder")
    assert (model.format, model.unsafe, model.size) == ("folder", False, 9)
    assert json.loads((model.load() / "weights.json").read_text()) == [2, 2, 2]
    assert (model.download(workspace.folder / "copy") / "weights.json").is_file()
    found = workspace.json("run", "flows.py:counting", "-p", "model=model:folder")
    assert found["outputs"] == {"result": 6}
    again = workspace.json("run", "flows.py:counting", "-p", f"model=model:{model.reference}")
    assert again["steps"]["count"]["state"] == "cached"
    wrong = workspace.call("run", "flows.py:counting", "-p", "model=model:nosuch", code=2)
    assert "inputs.model: does not refer to a registered model: there is no model 'nosuch'" in wrong
    assert "is not valid" in workspace.call("run", "flows.py:counting", "-p", "model=model:../x", code=2)
    lineage = model.lineage()
    assert "count" in {attempt.key for attempt in lineage.down}


def test_a_model_version_can_be_an_input_from_python(workspace: Workspace, rules: str) -> None:
    client = workspace.client
    model = client.models.get(rules)
    version = client.pipelines.register(workspace.folder / "flows.py:scoring")
    run = client.run(version, {"rules": model, "x": 10}, wait=True)
    assert run.outputs["result"] == {"value": model.load()["depth"] * 10}
    assert run.inputs["rules"]["artifact"]["sha256"] == model.sha256


TRYING = """
from penstock import context, pipeline, step


@step
def train(depth: int) -> dict:
    context().register_model("shared", {"depth": depth}, alias="candidate")
    return {"depth": depth}


@step
def look(rules: dict) -> int:
    return rules["depth"]


@pipeline
def sharing(depth: int = 3):
    return train(depth)


@pipeline
def looking(rules: dict):
    return look(rules)
"""


def test_a_colleague_s_run_does_not_change_what_a_model_resolves_to(workspace: Workspace) -> None:
    (workspace.folder / "trying.py").write_text(TRYING)
    looking = ("run", "trying.py:looking", "-p")
    workspace.call("run", "trying.py:sharing", "-p", "depth=1")
    refused = workspace.call(*looking, "rules=model:shared", code=2)
    assert "model 'shared' has no published version (1 version comes from an experiment: shared:1)" in refused
    assert workspace.json(*looking, "rules=model:shared:1")["outputs"] == {"result": 1}
    [row] = [line for line in workspace.call("models", "list").splitlines() if line.startswith("shared")]
    assert row.split()[:4] == ["shared", "1", "none", "published"]

    version = workspace.client.pipelines.register(workspace.folder / "trying.py:sharing")
    assert workspace.client.run(version, {"depth": 2}, wait=True).succeeded
    (workspace.folder / "trying.py").write_text(TRYING.replace('{"depth": depth}', '{"depth": 10 * depth}'))
    workspace.call("run", "trying.py:sharing", "-p", "depth=3")

    assert workspace.json(*looking, "rules=model:shared")["outputs"] == {"result": 2}
    assert workspace.json(*looking, "rules=model:shared@candidate")["outputs"] == {"result": 30}
    client = workspace.client
    assert client.models.get("shared").version == 2
    assert client.run(
        client.pipelines.register(workspace.folder / "trying.py:looking"),
        {"rules": client.models.get("shared")},
        wait=True,
    ).outputs["result"] == {"value": 2}
    shown = workspace.json("models", "show", "shared")["versions"]
    assert [(one["version"], one["experiment"]) for one in shown] == [(3, True), (2, False), (1, True)]
    table = workspace.call("models", "show", "shared").splitlines()
    assert [line.rstrip().endswith("experiment") for line in table if line.startswith("v")] == [True, False, True]
    assert workspace.call("models", "show", "shared:3").startswith("model shared:3 (candidate), experiment")


def test_every_command_supports_json(workspace: Workspace) -> None:
    run_id = trained(workspace, "saving", depth=7)
    made = workspace.json(
        "models", "register", "byhand", run_id, "save", "--metric", "f1=0.5", "--tag", "a=b", "--alias", "best",
        "--gate", "f1 >= 0.5", "--description", "d", "--reason", "r",
    )  # fmt: skip
    assert (made["reference"], made["metrics"], made["tags"], made["aliases"]) == (
        "byhand:1", {"f1": 0.5}, {"a": "b"}, ["best"],
    )  # fmt: skip
    refused = workspace.json(
        "models", "register", "byhand", run_id, "save", "--alias", "other", "--gate", "f1 > 9", code=1
    )
    assert refused["refused"]["clauses"] == ["f1 > 9: 0.5 > 9 is false"]
    assert workspace.json("models", "gate", "byhand", "best", "f1 > 0.9") == {
        "model": "byhand", "alias": "best", "gate": "f1 > 0.9",
    }  # fmt: skip
    assert workspace.json("models", "gate", "byhand", "best")["gate"] == "f1 > 0.9"
    assert workspace.json("models", "gate", "byhand", "best", "--delete")["gate"] is None
    second = trained(workspace, "saving", depth=8)
    workspace.call("models", "register", "byhand", second, "save", "-o", "model-folder")
    assert workspace.json("models", "promote", "byhand", "2", "best", "--replaces", "1")["version"] == 2
    answer = workspace.json("models", "promote", "byhand", "1", "best", "--gate", "f1 > 9", code=1)
    assert answer["clauses"] == ["f1 > 9: 0.5 > 9 is false"]
    assert workspace.json("models", "delete-alias", "byhand", "best")["deleted"] is True
    assert workspace.json("models", "archive", "byhand", "2", "--reason", "old")["archived"] is True
    assert workspace.client.models.get("byhand").version == 1
    assert workspace.json("models", "unarchive", "byhand", "2")["archived"] is False
    assert workspace.json("models", "get", "byhand:1", "--to", "here")["path"] == str(workspace.folder / "here")
    assert json.loads((workspace.folder / "here" / "weights.json").read_text()) == [7, 7, 7]
    assert "byhand" in {row["name"] for row in workspace.json("models", "list")}
    assert workspace.json("models", "show", "byhand:1")["description"] == "d"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("show", "a b"), "model 'a b' is not valid"),
        (("show", "rules@7"), "alias '7' is not valid"),
        (("show", "rules:x"), "is not a version of a model"),
        (("promote", "rules", "1", "../x"), "alias '../x' is not valid"),
        (("promote", "rules", "0", "best"), "out of range"),
        (("promote", "rules", "x", "best"), "'x' is not a whole number"),
        (("gate", "rules", "best", "a >"), "after 'a >'"),
        (("gate", "rules", "best", " "), "delete it with --delete"),
        (("gate", "rules", "best", "a > 1", "--delete"), "exclude each other"),
        (("register", "rules", "last", "nosuch"), "has no step 'nosuch'"),
        (("register", "rules", "k000", "train"), "Run 'k000' does not exist"),
        (("register", "rules", "last", "train", "--metric", "a=nan"), "expected a finite number"),
        (("register", "rules", "last", "train", "--tag", "a"), "expected NAME=VALUE"),
        (("archive", "rules", "99"), "has no version 99"),
        (("history", "nosuch"), "there is no model 'nosuch'"),
        (("get", "nosuch"), "there is no model 'nosuch'"),
    ],
)
@pytest.mark.usefixtures("rules")
def test_usage_errors_exit_with_2_and_a_hint(workspace: Workspace, arguments: tuple[str, ...], says: str) -> None:
    assert says in workspace.call("models", *arguments, code=2)


def test_a_deleted_artifact_is_reported(workspace: Workspace) -> None:
    run_id = trained(workspace, "saving", depth=11)
    client = workspace.client
    model = client.models.get("folder")
    path = workspace.folder / ".penstock" / "artifacts" / "sha256" / model.sha256[:2] / model.sha256
    path.chmod(0o600)
    path.unlink()
    with pytest.raises(NotFoundError, match="is not in the store"):
        model.load()
    with pytest.raises(NotFoundError, match="is not in the store"):
        client.models.register("again", run_id, "save")


def test_unsafe_formats_can_be_rejected(workspace: Workspace) -> None:
    data = pickle.dumps(print)
    sha256 = hashlib.sha256(data).hexdigest()
    workspace.client.artifacts.upload(data, sha256)
    artifact = {"sha256": sha256, "size": len(data), "media_type": "x", "format": "pickle", "unsafe": True}
    model = ModelVersion("made", 1, "made:1", artifact=artifact, registry=workspace.client.models)
    with pytest.raises(UnsafeFormatError):
        model.load(unsafe=False)
    assert model.load() is print
    with pytest.raises(ValueError, match="has no connection"):
        ModelVersion("made", 1, "made:1", artifact=artifact).load()


@pytest.mark.usefixtures("rules")
def test_the_client_validates_arguments(workspace: Workspace) -> None:
    client = workspace.client
    with pytest.raises(InvalidIdError):
        client.models.get("../x")
    with pytest.raises(TypeError, match="must be a number"):
        client.models.register("rules", "r", "s", metrics={"a": "b"})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="expected a finite number"):
        client.models.register("rules", "r", "s", metrics={"a": float("nan")})
    with pytest.raises(RefusedError) as refused:
        client.models.promote("rules", 1, "champion", gate="accuracy > 99")
    assert refused.value.status == 409
    assert refused.value.errors
