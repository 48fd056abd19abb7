"""`context().send_event`: validation at the call, and the events in the end of an attempt."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from penstock import context, step, track
from penstock.errors import NotInScriptsError
from penstock.runner.attempt import perform
from penstock.step_context.contexts import Context, MemorySink, use_context
from penstock.step_context.events import MAX_EVENTS
from penstock.store import FolderStore


@step
def sends(rows: int) -> int:
    context().send_event("com.acme.ready", {"rows": rows}, key="may")
    context().send_event("com.acme.done")
    return rows


@step
def fails(rows: int) -> int:
    context().send_event("com.acme.ready", {"rows": rows})
    raise ValueError("after it was sent")


@step
def sends_many(rows: int) -> int:
    for n in range(MAX_EVENTS + 1):
        context().send_event("com.acme.ready", n)
    return rows


@step
def sends_in_a_worker(rows: int) -> int:
    pid = os.fork()
    if not pid:
        try:
            context().send_event("com.acme.ready")
        except RuntimeError:
            os._exit(17)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def ended(tmp_path: Path, name: str, rows: int) -> dict[str, Any]:
    store = FolderStore(tmp_path / "artifacts")
    request = {
        "run_id": "r", "key": name, "attempt": 1, "pipeline": "flow", "project": "default",
        "entrypoint": f"{__name__}:{name}", "inputs": {"rows": {"value": rows}}, "resources": {"memory": None},
    }  # fmt: skip
    end, _ = perform(request, str(store.root), str(tmp_path / "recorded"))
    return end


def test_the_end_of_a_successful_attempt_has_its_events(tmp_path: Path) -> None:
    assert ended(tmp_path, "sends", 3)["events"] == [
        {"type": "com.acme.ready", "data": {"rows": 3}, "key": "may"},
        {"type": "com.acme.done", "data": None, "key": ""},
    ]


def test_a_failed_attempt_sends_nothing(tmp_path: Path) -> None:
    end = ended(tmp_path, "fails", 3)
    assert (end["outcome"], "events" in end) == ("failed", False)


def test_the_number_of_events_is_limited(tmp_path: Path) -> None:
    assert "a step sends at most 20 events" in ended(tmp_path, "sends_many", 3)["error"]["message"]


def test_worker_processes_cannot_send_events(tmp_path: Path) -> None:
    assert ended(tmp_path, "sends_in_a_worker", 3)["outputs"]["result"]["value"] == 17


@pytest.mark.parametrize(
    ("type", "data", "key", "error", "message"),
    [
        ("com acme", None, "", ValueError, "the type must be words"),
        ("", None, "", ValueError, "the type must be words"),
        (5, None, "", ValueError, "the type must be words"),
        ("t", {1, 2}, "", TypeError, "the data must be JSON"),
        ("t", float("nan"), "", TypeError, "the data must be JSON"),
        ("t", "\ud800", "", TypeError, "the data must be JSON"),
        ("t", "x" * 66_000, "", ValueError, "the limit is 65536"),
        ("t", None, "k" * 1_001, ValueError, "the key must be"),
    ],
)
def test_what_is_not_valid_is_refused_where_it_is_sent(
    type: Any, data: Any, key: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        context().send_event(type, data, key=key)


def test_outside_of_the_platform_events_are_in_memory() -> None:
    sink = MemorySink()
    with use_context(Context(sink=sink)):
        assert sends(3) == 3
    assert [(sent.type, sent.data, sent.key) for sent in sink.events] == [
        ("com.acme.ready", {"rows": 3}, "may"),
        ("com.acme.done", None, ""),
    ]


def test_scripts_are_shown_the_alternative(tmp_path: Path) -> None:
    with track("script", home=tmp_path) as run, pytest.raises(NotInScriptsError, match=r"Client\(\)\.events\.send"):
        run.send_event("com.acme.ready")
