"""The sender of scripts' runs against a platform that fails at any request, before or after it has done its work."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from penstock import script_sender, track
from penstock.errors import UnreachableError
from penstock.store import FolderStore
from penstock.tracking import TrackedRun


class Unreliable:
    """A platform that keeps the first message of each index, as the broker does, and fails at random."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.stored: dict[str, dict[int, list[Any]]] = {"points": {}, "entries": {}}
        self.objects: set[str] = set()
        self.ends: list[Any] = []

    def _fail(self) -> None:
        if self._chance.random() < 0.2:
            raise UnreachableError("away")

    def json(self, method: str, path: str, *, body: Any) -> Any:
        self._fail()
        body = json.loads(json.dumps(body))
        for name in ("points", "entries"):
            if name in body:
                self.stored[name].setdefault(body[name]["first"], body[name]["items"])
        if path.endswith("/end"):
            self.ends.append(body)
        self._fail()
        return {"state": "running"}

    def exists(self, path: str) -> bool:
        self._fail()
        return path in self.objects

    def upload(self, path: str, content: Path) -> None:
        assert content.is_file()
        self._fail()
        self.objects.add(path)

    def items(self, name: str) -> list[Any]:
        """All items in order; fails if one is missing or was sent with two indexes."""
        found: list[Any] = []
        for first in sorted(self.stored[name]):
            assert first == len(found)
            found += self.stored[name][first]
        return found


def record(home: Path, monkeypatch: pytest.MonkeyPatch) -> TrackedRun:
    monkeypatch.setenv("PENSTOCK_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("PENSTOCK_HOME", str(home))
    monkeypatch.setattr("penstock.tracking.Tracking._send", lambda self: None)  # pyright: ignore[reportUnknownLambdaType]
    with track("unreliable") as run:
        for step in range(3500):
            run.log_metric("loss", step, step=step)
            if step % 100 == 0:
                run.log_param(f"p{step}", "x" * 9000)
        run.log_artifact("model", b"weights")
    return run


@pytest.mark.parametrize("seed", range(12))
def test_everything_arrives_once_however_often_the_platform_and_the_sender_fail(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = record(tmp_path, monkeypatch)
    (folder,) = script_sender.recorded(tmp_path)
    transport: Any = Unreliable(random.Random(seed))
    while folder.is_dir():
        sender = script_sender.Sender(folder, transport, FolderStore(tmp_path / "artifacts"))
        try:
            sender.finish()
        except UnreachableError:
            continue
    assert [point[3] for point in transport.items("points")] == list(range(3500))
    params = [entry["param"] for entry in transport.items("entries") if "param" in entry]
    assert params == [f"p{step}" for step in range(0, 3500, 100)]
    assert all(end["metrics"] == {"loss": 3499} for end in transport.ends)
    assert transport.objects
    assert run.run_id == folder.name


def test_a_run_for_another_platform_is_local_with_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_URL", "http://127.0.0.1:1")
    with track("local", home=tmp_path) as run:
        pass
    assert (tmp_path / "tracked" / run.run_id / "end.json").is_file()
    assert script_sender.recorded(tmp_path) == []
