"""`penstock deploy` publishes nothing before all deployments of a file are checked."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from penstock_cli.deployments.deploy import _publish


class FakeClient:
    """Records calls; refuses the deployment `bad`."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.pipelines = SimpleNamespace(register=self.register)
        self.deployments = SimpleNamespace(apply=self.apply)

    def register(self, pipeline: str, *, publish: bool = True, log: Any = None) -> SimpleNamespace:
        self.calls.append(("publish" if publish else "register", pipeline))
        return SimpleNamespace(pipeline=pipeline, version=7)

    def apply(self, name: str, definition: dict[str, Any], *, dry_run: bool, candidate: int) -> None:
        self.calls.append(("check" if dry_run else "apply", name, candidate))
        if name == "bad":
            raise ValueError(name)


def test_all_deployments_are_checked_with_the_versions_before_these_are_published() -> None:
    client: Any = FakeClient()
    definitions = {"one": {"pipeline": "training"}, "two": {"pipeline": "scoring"}}
    prepared: Any = ["training", "scoring"]
    versions, _ = _publish(client, prepared, definitions, dry_run=False)
    assert [version.version for version in versions] == [7, 7]
    assert client.calls == [
        ("register", "training"),
        ("register", "scoring"),
        ("check", "one", 7),
        ("check", "two", 7),
        ("publish", "training"),
        ("publish", "scoring"),
    ]


def test_a_dry_run_checks_the_new_versions_and_publishes_nothing() -> None:
    client: Any = FakeClient()
    prepared: Any = ["training"]
    _publish(client, prepared, {"one": {"pipeline": "training"}}, dry_run=True)
    assert client.calls == [("register", "training"), ("check", "one", 7)]


def test_a_deployment_that_is_refused_publishes_nothing() -> None:
    client: Any = FakeClient()
    prepared: Any = ["training"]
    with pytest.raises(ValueError, match="bad"):
        _publish(client, prepared, {"good": {"pipeline": "training"}, "bad": {"pipeline": "training"}}, dry_run=False)
    assert not [call for call in client.calls if call[0] in ("publish", "apply")]
