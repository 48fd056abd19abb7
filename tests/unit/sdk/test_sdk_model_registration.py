"""`context().register_model`: validation at the call, and the registrations in the end of an attempt."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from penstock import context, step
from penstock.runner.attempt import perform
from penstock.step_context.contexts import Context, MemorySink, use_context
from penstock.step_context.models import MAX_MODELS
from penstock.store import FolderStore
from penstock_core.errors import InvalidIdError
from penstock_core.registry.errors import GateError


class Model:
    def __init__(self, depth: int) -> None:
        self.depth = depth


@step
def trains(depth: int) -> int:
    context().log_metric("accuracy", 0.5)
    context().log_metric("loss", float("nan"))
    context().register_model("churn", Model(depth), alias="candidate", tags={"team": "growth"})
    context().register_model("rules", {"depth": depth}, metrics={"f1": 1, "auc": float("inf")})
    context().log_metric("accuracy", 0.75)
    return depth


@step
def fails(depth: int) -> int:
    context().register_model("churn", Model(depth))
    raise ValueError("after it was registered")


@step
def registers_parts(depth: int) -> int:
    context().register_model("churn", [Model(depth), Path(__file__)])
    return depth


@step
def registers_again(depth: int) -> int:
    context().register_model("churn", Model(depth), description="first")
    context().register_model("churn", Model(depth), description="second")
    context().register_model("churn", Model(depth + 1))
    return depth


@step
def registers_many(depth: int) -> int:
    for n in range(MAX_MODELS + 1):
        context().register_model("churn", Model(n))
    return depth


def run(entrypoint: str, tmp_path: Path) -> dict[str, Any]:
    store = FolderStore(tmp_path)
    request = {
        "run_id": "r1", "key": "train", "attempt": 1, "pipeline": "p", "project": "default",
        "entrypoint": f"{__name__}:{entrypoint}", "inputs": {"depth": {"value": 3}}, "resources": {"memory": None},
    }  # fmt: skip
    return json.loads(json.dumps(perform(request, str(store.root), str(tmp_path / "slot"))[0]))


def test_a_successful_end_includes_registrations(tmp_path: Path) -> None:
    end = run("trains", tmp_path)
    churn, rules = end["models"]
    assert (churn["model"], churn["alias"], churn["tags"], churn["metrics"]) == (
        "churn", "candidate", {"team": "growth"}, None,
    )  # fmt: skip
    assert churn["non_finite"] == {"loss": "nan"}
    assert (churn["artifact"]["format"], churn["artifact"]["unsafe"]) == ("pickle", True)
    assert (rules["metrics"], rules["non_finite"]) == ({"f1": 1.0}, {"auc": "inf"})
    assert rules["artifact"]["format"] == "json"  # plain data is an artifact, too
    assert end["metrics"] == {"accuracy": 0.75}
    assert end["artifacts"]["model-churn"]["artifact"] == churn["artifact"]
    assert FolderStore(tmp_path).has(rules["artifact"]["sha256"])


def test_an_unsuccessful_end_includes_no_registrations(tmp_path: Path) -> None:
    end = run("fails", tmp_path)
    assert end["outcome"] == "failed"
    assert "models" not in end
    assert "model-churn" in end["artifacts"]  # it can be inspected


def test_registering_an_object_twice_gives_one_version_with_the_last_details(tmp_path: Path) -> None:
    first, second = run("registers_again", tmp_path)["models"]
    assert first["description"] == "second"
    assert first["artifact"] != second["artifact"]


@pytest.mark.parametrize(
    ("entrypoint", "says"),
    [
        ("registers_parts", "a list of this kind is stored as several artifacts: save it to a folder"),
        ("registers_many", f"a step registers at most {MAX_MODELS} versions"),
    ],
)
def test_invalid_registrations(tmp_path: Path, entrypoint: str, says: str) -> None:
    end = run(entrypoint, tmp_path)
    assert end["outcome"] == "failed"
    assert says in end["error"]["message"]


@pytest.mark.parametrize(
    ("name", "more", "error", "says"),
    [
        ("../churn", {}, InvalidIdError, "model '../churn' is not valid"),
        ("a\nb", {}, InvalidIdError, "is not valid"),
        ("x" * 101, {}, InvalidIdError, "is not valid"),
        ("churn", {"alias": "latest"}, InvalidIdError, "latest"),
        ("churn", {"alias": "7"}, InvalidIdError, "read as a version number"),
        ("churn", {"alias": "best", "gate": "accuracy >"}, GateError, "after 'accuracy >'"),
        ("churn", {"gate": "accuracy > 1"}, ValueError, "gate= requires alias="),
        ("churn", {"metrics": {"a": "high"}}, TypeError, "metric 'a' must be a number, not 'high'"),
        ("churn", {"metrics": {"a": None}}, TypeError, "must be a number"),
        ("churn", {"metrics": {"a": True}}, TypeError, "must be a number"),
        ("churn", {"metrics": {"": 1.0}}, ValueError, "1 to 200 characters"),
        ("churn", {"metrics": {str(n): n for n in range(501)}}, ValueError, "501 metrics"),
        ("churn", {"tags": {str(n): "" for n in range(101)}}, ValueError, "101 tags"),
        ("churn", {"tags": {"a": "x" * 1001}}, ValueError, "tag 'a'"),
        ("churn", {"description": "x" * 4001}, ValueError, "description"),
        ("churn", {"reason": "x" * 4001}, ValueError, "reason"),
    ],
)
def test_invalid_registrations_fail_at_the_call(
    name: str, more: dict[str, Any], error: type[Exception], says: str
) -> None:
    memory = MemorySink()
    with use_context(Context(sink=memory)), pytest.raises(error, match=re.escape(says)):
        context().register_model(name, Model(1), **more)
    assert not memory.models


def test_outside_the_platform_registrations_stay_in_memory() -> None:
    memory = MemorySink()
    with use_context(Context(sink=memory)):
        assert trains(2) == 2
    churn, rules = memory.models
    assert isinstance(churn.value, Model)
    assert (churn.model, churn.alias, rules.metrics) == ("churn", "candidate", {"f1": 1.0})
