"""Steps that yield their items: everywhere a list, and one by one in warm workers."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock import Batch, pipeline, step
from penstock.runner import warm_run
from penstock.runner.warm_channel import ITEM_LIMIT, Channel, Items
from penstock.runner.warm_run import Program, WarmRun
from penstock.runner.warm_values import LoadedArtifacts
from penstock.store import FolderStore
from penstock_core import fork_server_protocol as protocol
from penstock_core.deployments import low_latency
from penstock_core.errors import DefinitionError
from penstock_core.facts import RunRequested
from penstock_core.pipeline.streams import streamed_node
from penstock_core.pipeline.values import Inline, Value

closed: list[int] = []


@step
def count(n: int, fail_at: int = -1) -> Iterator[int]:
    done = 0
    try:
        for done in range(n):
            if done == fail_at:
                raise ValueError("no more")
            yield done
    finally:
        closed.append(done)


@step
async def count_async(n: int) -> AsyncIterator[int]:
    for i in range(n):
        yield i


@step
def texts(size: int, n: int) -> Iterator[str]:
    return ("x" * size for _ in range(n))


@step
def wrong() -> Iterator[int]:
    yield "text"  # type: ignore[misc]


@step
def untyped():  # type: ignore[no-untyped-def]
    yield 1


@step
def total(numbers: list[int]) -> int:
    return sum(numbers)


@step(batch=Batch())
def both(numbers: list[int]) -> Iterator[int]:
    yield from numbers


@pipeline
def counting(n: int, fail_at: int = -1):
    return count(n, fail_at)


@pipeline
def counting_async(n: int):
    return count_async(n)


@pipeline
def large(size: int, n: int):
    return texts(size, n)


@pipeline
def mistaken():
    return wrong()


@pipeline
def summing(n: int):
    return total(count(n))  # type: ignore[arg-type]


class Client:
    """The other end of the channel of a worker."""

    def __init__(self) -> None:
        self.socket, self.theirs = socket.socketpair()
        self.channel = Channel(self.theirs)
        self.items: list[Any] = []
        self.sent = 0
        self.acknowledge = True
        self.on_items: Callable[[], None] = lambda: None
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def close(self) -> None:
        """Wait until all that the worker has sent is read."""
        if self.thread.is_alive():
            self.theirs.shutdown(socket.SHUT_WR)
            self.thread.join(30)
        self.theirs.close()
        self.socket.close()

    def send(self, message: Any) -> None:
        self.socket.sendall(protocol.frame(json.dumps(message).encode()))

    def _read(self) -> None:
        with self.socket.makefile("rb") as incoming:
            while head := incoming.read(protocol.FRAME_HEAD):
                message = json.loads(incoming.read(protocol.frame_size(head)))
                self.items += message["items"]
                self.sent = message["sent"]
                if self.acknowledge:
                    self.send({"received": [1, self.sent]})
                self.on_items()


@pytest.fixture
def client() -> Iterator[Client]:
    found = Client()
    yield found
    found.close()


def run(tmp_path: Path, definition: Any, client: Client | None, **inputs: Any) -> WarmRun:
    compiled = definition.compile()
    program = Program(compiled, LoadedArtifacts(FolderStore(tmp_path), unsafe=False), "executor")
    names = [port.name for port in compiled.params]
    given: dict[str, Value] = {
        name: Inline(value) for name, value in {"fail_at": -1, **inputs}.items() if name in names
    }
    requested = RunRequested(run_id="r1", project="default", pipeline=compiled.name, version=1, inputs=given)
    found = WarmRun(program, requested, None if client is None else Items(client.channel, 1))
    program.run_all([found])
    return found


def test_the_output_of_a_step_that_yields_is_a_list() -> None:
    compiled = counting.compile()
    assert compiled.steps["count"].stream
    assert compiled.steps["count"].outputs[0].type == "list[int]"
    assert streamed_node(compiled) == "count"
    assert streamed_node(summing.compile()) is None
    assert counting.local(n=3) == [0, 1, 2]
    assert counting_async.local(n=3) == [0, 1, 2]
    assert summing.local(n=4) == 6
    assert untyped.outputs == {"result": list[Any]}
    assert [*count(2)] == [0, 1]


def test_items_and_batches_exclude_each_other() -> None:
    @pipeline
    def mixed(n: int):
        return both(n)  # type: ignore[arg-type]

    with pytest.raises(DefinitionError, match="yields items and has the option batch"):
        mixed.compile()


def test_retries_of_a_stream_are_refused_with_mode_low_latency() -> None:
    @pipeline
    def retried(n: int):
        return count.with_options(retries=2)(n)

    [(path, message)] = low_latency.problems(retried.compile())
    assert (path, "yields items and has retries" in message) == ("steps.count", True)


@pytest.mark.parametrize("definition", [counting, counting_async])
def test_items_are_sent_as_they_come_and_recorded_as_a_list(tmp_path: Path, client: Client, definition: Any) -> None:
    found = run(tmp_path, definition, client, n=3)
    assert found.end == {"outcome": "succeeded", "error": None, "outputs": {"result": {"value": [0, 1, 2]}}}
    client.close()
    assert client.items == [0, 1, 2]
    assert run(tmp_path, definition, None, n=3).end == found.end


def test_an_error_in_the_middle_fails_the_run_after_the_items_before_it(tmp_path: Path, client: Client) -> None:
    found = run(tmp_path, counting, client, n=5, fail_at=2)
    assert (found.end["outcome"], found.end["outputs"]) == ("failed", {})
    assert "no more" in found.end["error"]
    assert "declared as int" in run(tmp_path, mistaken, client).end["error"]


def test_a_client_that_disconnects_ends_the_function_at_its_yield(tmp_path: Path, client: Client) -> None:
    closed.clear()
    client.on_items = lambda: client.send({"cancel": 1}) if len(client.items) == 5 else None
    found = run(tmp_path, counting, client, n=10**9)
    assert found.end["outcome"] == "cancelled"
    assert len(closed) == 1
    assert [body["outcome"] for tail, body in found.facts() if tail.endswith("finished")] == ["cancelled", "cancelled"]


def test_a_slow_client_stops_the_function(tmp_path: Path, client: Client) -> None:
    client.acknowledge = False
    ending = threading.Event()

    def look() -> None:
        if client.sent > protocol.STREAM_WINDOW and not ending.is_set():
            ending.set()
            threading.Timer(0.2, lambda: client.send({"cancel": 1})).start()

    client.on_items = look
    found = run(tmp_path, large, client, size=10_000, n=10**6)
    assert found.end["outcome"] == "cancelled"
    assert client.sent <= protocol.STREAM_WINDOW + 2 * 10_002


def test_a_list_that_is_too_large_is_not_kept_and_the_run_says_so(
    tmp_path: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm_run, "KEPT", 50_000)
    found = run(tmp_path, large, client, size=10_000, n=20)
    assert (found.end["outcome"], found.end["outputs"]) == ("succeeded", {})
    facts = dict(found.facts())
    assert facts["step.texts.1.finished"]["outputs"] == {}
    assert facts["step.texts.1.finished"]["tags"] == {"stream": "not kept: 20 items, 200040 bytes"}
    assert len(run(tmp_path, large, None, size=10_000, n=5).end["outputs"]["result"]["value"]) == 5


def test_an_item_that_is_too_large_fails_the_run(tmp_path: Path, client: Client) -> None:
    found = run(tmp_path, large, client, size=ITEM_LIMIT, n=2)
    assert found.end["outcome"] == "failed"
    assert "the limit is" in found.end["error"]
