"""A step with several nodes on one machine: a process for each rank. They start together, and one failure ends all.

The child of the fork server starts the ranks, prefixes what they print and waits for them. Each finds its place in the
variables that `torch.distributed` and others read. Every rank calls the step's function; rank 0 returns the outputs.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import time
import traceback
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, NoReturn

from penstock.runner import error_info, linux, seeds
from penstock.runner.attempt import perform
from penstock_core import exhaustion, step_exits

Json = dict[str, Any]

_CAUSE_WAIT = 0.3
"""Seconds in which the failures of other ranks are collected: the one that crashed is the cause, not its peers."""

_LINE_LIMIT = 64 * 1024
_CHUNK = 64 * 1024
_FULL_PIPE = 16
"""Chunks of a pipe of the largest size. A process that a rank left behind can print without end."""

_ADDRESS = "127.0.0.1"


@dataclass(slots=True)
class _Rank:
    """A process: `output` and `answer` are the ends of pipes from which its output and its end are read."""

    number: int
    pid: int
    pidfd: int
    output: int
    answer: int
    line: bytes = b""
    received: list[bytes] = field(default_factory=list[bytes])
    end: Json | None = None
    crashed: bool = False
    killed: bool = False

    @property
    def failed(self) -> bool:
        return self.end is not None and self.end["outcome"] != "succeeded" and not self.killed


def variables(rank: int, nodes: int, port: int) -> dict[str, str]:
    """Return the environment variables of a rank, by the names of `torch.distributed`."""
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(nodes),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(nodes),
        "MASTER_ADDR": _ADDRESS,
        "MASTER_PORT": str(port),
    }


def run(order: Json, slot: str, log: int, platform: set[int]) -> Json:
    """Run all ranks of an attempt.

    Args:
        order: the attempt with `nodes`, its artifact store and its checkpoint.
        slot: path of the attempt's files, without their endings.
        log: descriptor of the attempt's output.
        platform: descriptors that no rank may have.

    Returns:
        The `AttemptFinished`: that of rank 0, or of the rank that failed first.
    """
    request = order["attempt"]
    handlers: dict[int, Any] = {
        number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGINT)
    }
    ranks: list[_Rank] = []
    try:
        _start(ranks, order, slot, platform, handlers)
    except OSError as error:
        return _failed_to_start(request, error)
    return _Supervisor(ranks, request, log).wait()


def _start(ranks: list[_Rank], order: Json, slot: str, platform: set[int], handlers: Mapping[int, Any]) -> None:
    """Fork all ranks. They wait until the last one exists: `gate` is closed then."""
    nodes = order["attempt"]["nodes"]
    with socket.create_server((_ADDRESS, 0)) as free:
        port = free.getsockname()[1]
    mine = os.getpid()
    gate, key = os.pipe()
    try:
        for number in range(nodes):
            output, printed = os.pipe()
            answer, answered = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.close(key)
                others = {one for rank in ranks for one in (rank.output, rank.answer, rank.pidfd)}
                for descriptor in platform | others | {output, answer}:
                    os.close(descriptor)
                place = variables(number, nodes, port)
                _be(order, slot, number, place, (mine, gate, printed, answered), handlers)
            os.close(printed)
            os.close(answered)
            ranks.append(_Rank(number, pid, os.pidfd_open(pid), output, answer))
    except OSError:
        _kill(ranks)  # before the gate opens: no rank calls the function without the others
        raise
    finally:
        os.close(gate)
        os.close(key)


def _be(
    order: Json,
    slot: str,
    rank: int,
    place: Mapping[str, str],
    links: tuple[int, int, int, int],
    handlers: Mapping[int, Any],
) -> NoReturn:
    """Be a rank from fork to end."""
    parent, gate, printed, answered = links
    code = 70  # EX_SOFTWARE: a fault of the runner itself, unless the end was sent
    try:
        linux.die_with_parent(parent)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.dup2(printed, 1)
        os.dup2(printed, 2)
        os.close(printed)
        os.environ.update(place)
        seeds.refresh()
        os.read(gate, 1)
        os.close(gate)
        own: Json = {
            "limit": order.get("limit"),
            "unsafe": order.get("unsafe", True),
            "secrets": order.get("secrets"),
        }
        checkpoint = order.get("checkpoint")
        end, _ = perform(order["attempt"], order["artifacts"], slot, checkpoint, **own, own={answered}, rank=rank)
        _write(answered, json.dumps(end, separators=(",", ":")).encode())
        code = 0
    except BaseException:
        traceback.print_exc()  # into the attempt's output
    finally:
        os._exit(code)


def _write(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]


class _Supervisor:
    """Waits for the ranks of an attempt."""

    def __init__(self, ranks: list[_Rank], request: Json, log: int) -> None:
        self._ranks = ranks
        self._request = request
        self._log = log
        self._selector = selectors.DefaultSelector()
        self._left = {rank.number: rank for rank in ranks}
        self._kill_at: float | None = None

    def wait(self) -> Json:
        """Wait until all ranks have ended; returns the end of the attempt."""
        for rank in self._ranks:
            for descriptor, ready in ((rank.output, self._print), (rank.answer, self._answer), (rank.pidfd, self._end)):
                os.set_blocking(descriptor, False)
                self._selector.register(descriptor, selectors.EVENT_READ, (ready, rank))
        while self._left:
            timeout = None if self._kill_at is None else max(0.0, self._kill_at - time.monotonic())
            for key, _ in self._selector.select(timeout):
                ready, rank = key.data
                ready(rank)
            if self._kill_at is not None and time.monotonic() >= self._kill_at:
                _kill(self._left.values())
                self._kill_at = None
        for rank in self._ranks:
            for _ in range(_FULL_PIPE):
                if not self._print(rank):
                    break
            self._print_line(rank, rank.line)
        return self._result()

    def _print(self, rank: _Rank) -> bool:
        """Copy what a rank printed, line by line; False if there is nothing more."""
        chunk = self._read(rank.output)
        if not chunk:
            return False
        *lines, rank.line = (rank.line + chunk).split(b"\n")
        for line in lines:
            self._print_line(rank, line + b"\n")
        if len(rank.line) > _LINE_LIMIT:
            self._print_line(rank, rank.line + b"\n")
            rank.line = b""
        return True

    def _print_line(self, rank: _Rank, line: bytes) -> None:
        if line:
            with suppress(OSError):  # the disk is full: the step goes on, as with one node
                _write(self._log, b"[rank %d] %b" % (rank.number, line))

    def _answer(self, rank: _Rank) -> None:
        rank.received.append(self._read(rank.answer))

    def _read(self, descriptor: int) -> bytes:
        """Read what is there; at the end of the pipe it is not watched any longer."""
        try:
            chunk = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return b""
        if not chunk:
            with suppress(KeyError):
                self._selector.unregister(descriptor)
        return chunk

    def _end(self, rank: _Rank) -> None:
        _, status = os.waitpid(rank.pid, 0)
        self._selector.unregister(rank.pidfd)
        del self._left[rank.number]
        while chunk := self._read(rank.answer):
            rank.received.append(chunk)
        try:
            rank.end = json.loads(b"".join(rank.received))
        except ValueError:
            rank.crashed = True
            memory = self._request["resources"]["memory"]
            error = asdict(step_exits.crash_error(os.waitstatus_to_exitcode(status), memory))
            rank.end = {**_head(self._request), "outcome": "failed", "error": error, "finished_at": time.time()}
        if rank.failed and self._kill_at is None:
            self._kill_at = time.monotonic() + _CAUSE_WAIT

    def _result(self) -> Json:
        failed = [rank for rank in self._ranks if rank.failed]
        if not failed:
            assert self._ranks[0].end is not None  # noqa: S101 - each rank has one after it has ended
            return self._ranks[0].end
        cause = min(failed, key=_causality)
        assert cause.end is not None  # noqa: S101
        end = {**(self._ranks[0].end or {}), **cause.end}
        message = f"rank {cause.number} of {len(self._ranks)}: {end['error']['message']}"
        end["error"] = {**end["error"], "message": error_info.clean(message[: error_info.MESSAGE_LIMIT])}
        return end


def _causality(rank: _Rank) -> tuple[bool, float]:
    """Sort a rank that crashed first, then by time: the others fail because it is gone."""
    assert rank.end is not None  # noqa: S101
    return not rank.crashed, rank.end["finished_at"]


def _kill(ranks: Iterable[_Rank]) -> None:
    for rank in ranks:
        rank.killed = True
        os.kill(rank.pid, signal.SIGKILL)  # a zombie at most: nobody else waits for it


def _head(request: Json) -> Json:
    return {name: request[name] for name in ("run_id", "key", "attempt")}


def _failed_to_start(request: Json, error: OSError) -> Json:
    kind = exhaustion.OUT_OF_RESOURCES if exhaustion.is_exhaustion(error) else type(error).__name__
    why = f"the {request['nodes']} processes of the step could not be started: {error}"
    return {**_head(request), "outcome": "failed", "error": error_info.plain(kind, why), "finished_at": time.time()}
