"""The informer against sequences of lists and watch events, as a real API server sends and breaks them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from penstock_adapters.argo import informer
from penstock_adapters.argo.api import GoneError
from penstock_adapters.argo.informer import Informer
from penstock_core.errors import UnavailableError

Json = dict[str, Any]


def item(name: str, state: str = "", version: int = 1) -> Json:
    return {"metadata": {"name": name, "resourceVersion": str(version)}, "state": state}


class Server:
    """Answers one list and one watch after the other. A watch ends with an error if its last entry is one."""

    def __init__(self, *answers: Any) -> None:
        self._answers = list(answers)
        self.asked: list[str] = []
        self.exhausted = asyncio.Event()

    def _next(self) -> Any:
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def list(self, path: str, selector: str) -> tuple[list[Json], str]:
        self.asked.append("list")
        return self._next(), "10"

    async def watch(self, path: str, selector: str, version: str) -> AsyncGenerator[tuple[str, Json]]:
        self.asked.append(f"watch {version}")
        if not self._answers:
            self.exhausted.set()
            await asyncio.Event().wait()
        for event in self._next():
            if isinstance(event, Exception):
                raise event
            yield event


async def follow(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[tuple[str, str | None]], dict[str, str]]:
    """Run an informer to the end of the answers; returns what it reported, and what it has."""
    monkeypatch.setattr(informer, "FIRST_PAUSE", 0.001)
    seen: list[tuple[str, str | None]] = []
    watched: Informer[str] = Informer(
        server, "/x", "a=b", lambda one: one["state"], lambda *change: seen.append(change), lambda *_, **__: None
    )
    task = asyncio.create_task(watched.run())
    await asyncio.wait_for(server.exhausted.wait(), 10)
    task.cancel()
    return seen, watched.objects


async def test_changes_are_reported_once_and_a_deletion_after_the_last_state(monkeypatch: pytest.MonkeyPatch) -> None:
    events = [
        ("ADDED", item("b", "new", 11)),
        ("MODIFIED", item("b", "new", 12)),
        ("MODIFIED", item("a", "run", 13)),
        ("DELETED", item("a", "end", 14)),
        ("BOOKMARK", item("", "", 20)),
    ]
    server = Server([item("a", "old")], events)
    seen, left = await follow(server, monkeypatch)
    assert seen == [("a", "old"), ("b", "new"), ("a", "run"), ("a", "end"), ("a", None)]
    assert left == {"b": "new"}
    assert server.asked == ["list", "watch 10", "watch 20"]  # it continues after the bookmark


@pytest.mark.parametrize("error", [GoneError("too old"), UnavailableError("broke")])
async def test_after_an_error_everything_is_listed_and_only_changes_are_reported(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server([item("a", "1"), item("b", "1")], [error], [item("b", "2"), item("c", "1")])
    seen, left = await follow(server, monkeypatch)
    assert seen == [("a", "1"), ("b", "1"), ("a", None), ("b", "2"), ("c", "1")]
    assert left == {"b": "2", "c": "1"} and server.asked == ["list", "watch 10", "list", "watch 10"]


async def test_a_list_that_fails_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(UnavailableError("away"), UnavailableError("away"), [item("a", "1")])
    seen, _ = await follow(server, monkeypatch)
    assert seen == [("a", "1")] and server.asked[:3] == ["list"] * 3
