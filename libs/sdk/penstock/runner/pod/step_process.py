"""The process of the attempt in a pod: a forked child of a fork server, as on a machine.

In: an order. Out: the end of the attempt as JSON; what the step writes goes to a `Shipper`'s outbox meanwhile.

The fork server imports the user's module in a process of its own, so nothing that the user's code does harms the
runner: it can always report what happened. See `penstock_core.fork_server_protocol`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from penstock.runner import error_info
from penstock.runner.pod import memory
from penstock_core import exhaustion, step_environment, step_exits
from penstock_core import fork_server_protocol as protocol
from penstock_core.errors import PenstockError
from penstock_core.facts import ErrorInfo
from penstock_core.shipping.messages import AttemptKey
from penstock_core.shipping.shipper import Outbox, Shipper
from penstock_core.shipping.tail import Tail

POLL = 0.2
IMPORT_TIMEOUT = 300.0
_LOG_SHOWN = 8 * 1024

Json = dict[str, Any]
Packet = tuple[list[str], bytes]


class _EndedError(PenstockError):
    """The attempt ends without a result of its process."""

    def __init__(self, outcome: str, error: Json) -> None:
        super().__init__(str(error["message"]))
        self.outcome = outcome
        self.error = error


class StepProcess:
    """Runs the step of one attempt.

    Args:
        order: the order, see `penstock_core.pod_protocol`.
        source: folder of the unpacked source bundle.
        artifacts: folder of the store, with the inputs.
        work: a new folder for the files of the attempt.
        outbox: gets what the step writes.
        tail: reads the attempt's files, by their path without suffix, after a preface.
    """

    def __init__(
        self,
        order: Json,
        source: Path,
        artifacts: Path,
        work: Path,
        outbox: Outbox,
        tail: Callable[[str, str], Tail],
    ) -> None:
        self._order = order
        self._request: Json = order["attempt"]
        self._module: str = self._request["entrypoint"].partition(":")[0]
        self._source = source
        self._artifacts = artifacts
        self._work = work
        self._outbox = outbox
        self._tail = tail
        self._began = time.time()
        self._servers = 0
        self._server: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._packets: asyncio.Queue[Packet | None] = asyncio.Queue()
        self._reason: tuple[str, Json] | None = None
        self._running = False
        self._base = ""
        self._preface = ""
        self._shipper: Shipper | None = None
        self._oom_kills = memory.oom_kills()
        self._timers: list[asyncio.TimerHandle] = []

    async def run(self) -> Json:
        """Run the step; returns the `AttemptFinished` after everything that the step wrote was given to the outbox."""
        request = self._request
        end: Json = {name: request[name] for name in ("run_id", "key", "attempt")}
        end |= {"started_at": 0.0, "finished_at": 0.0}
        try:
            await self._import()
            end = await self._perform(end)
        except _EndedError as error:
            end |= {"outcome": error.outcome, "error": error.error, "finished_at": time.time()}
        finally:
            for timer in self._timers:
                timer.cancel()
            self._close()
        if self._reason is not None:
            outcome, why = self._reason
            end |= {"outcome": outcome, "error": why, "outputs": {}, "models": []}
        if (end.get("error") or {}).get("type") == exhaustion.OUT_OF_RESOURCES:
            end["outcome"] = "lost"
        await self._drain()
        end["load_seconds"] = max(0.0, (end["started_at"] or end["finished_at"]) - self._began)
        return end

    def stop(self, outcome: str, kind: str, why: str, grace: float) -> None:
        """End the step: SIGTERM, and SIGKILL after `grace` seconds. The first reason counts."""
        if self._reason is not None:
            return
        self._reason = (outcome, error_info.plain(kind, why))
        if self._running:
            self._signal(signal.SIGTERM)
            self._timers.append(asyncio.get_running_loop().call_later(grace, self._signal, signal.SIGKILL))
        else:
            self._packets.put_nowait(None)

    def extend(self, deadline: float) -> None:
        """Let the step run until `deadline`, in seconds of the machine's boot clock: the fork server kills it then."""
        if self._running:
            self._send(protocol.encode(protocol.LEASE, 1, deadline))

    # -------------------------------------------------------------------------------------------- the fork server

    async def _import(self, *, isolate: bool = False) -> None:
        """Start a fork server and have it import the module, or leave the import to the attempt."""
        folder = self._start_server()
        self._send(protocol.encode(protocol.ISOLATE if isolate else protocol.IMPORT, self._module))
        try:
            words, body = await asyncio.wait_for(self._receive(), IMPORT_TIMEOUT)
        except TimeoutError:
            why = f"importing module {self._module!r} took longer than {IMPORT_TIMEOUT:g} s"
            raise _EndedError("timed_out", error_info.plain("Timeout", why)) from None
        self._preface += _end_of(folder / "server.log")
        match words:
            case [protocol.IMPORTED, *_]:
                return
            case [protocol.REFUSED, *_]:
                raise _EndedError("failed", json.loads(body))
            case [protocol.THREADED, *_]:
                self._close()
                names = body.decode(errors="replace")[:500]
                self._preface = (
                    f"[penstock] importing module {self._module!r} starts the thread {names}: each attempt imports "
                    "the module by itself, which takes longer. Start threads in a step instead\n"
                )
                await self._import(isolate=True)
            case _:  # it ended
                code = await asyncio.to_thread(self._exit_code)
                error = step_exits.import_crash_error(self._module, code, self._preface)
                if self._was_out_of_memory():
                    error = memory.error(self._request["resources"]["memory"])
                raise _EndedError("failed", _as_json(error))

    def _start_server(self) -> Path:
        self._servers += 1
        folder = self._work / str(self._servers)
        folder.mkdir(parents=True)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-P", "-m", "penstock.runner.forkserver"]
        with theirs, (folder / "server.log").open("ab") as log:
            self._server = subprocess.Popen(
                [*command, str(theirs.fileno()), str(os.getpid()), str(self._source), str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._source,
                env=step_environment.variables(self._request["env"], os.environ),
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        ours.setblocking(False)
        self._socket, self._packets = ours, asyncio.Queue()
        asyncio.get_running_loop().add_reader(ours, self._readable, ours, self._packets)
        return folder

    def _readable(self, link: socket.socket, packets: asyncio.Queue[Packet | None]) -> None:
        try:
            message = link.recv(protocol.PACKET)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if not message:
            asyncio.get_running_loop().remove_reader(link)
        packets.put_nowait(protocol.decode(message) if message else None)

    async def _receive(self) -> Packet:
        """Return the next message; one without words when the fork server has ended, or the attempt is stopped."""
        return await self._packets.get() or ([], b"")

    def _send(self, message: bytes) -> None:
        if self._socket is not None:
            try:
                self._socket.send(message)
            except OSError:
                return  # it has ended, which `_receive` reports

    def _signal(self, number: int) -> None:
        self._send(protocol.encode(protocol.SIGNAL, 1, int(number)))

    def _exit_code(self) -> int:
        assert self._server is not None  # noqa: S101
        try:
            return self._server.wait(10.0)
        except subprocess.TimeoutExpired:
            return 0

    def _close(self) -> None:
        """End the fork server, which ends all processes of the attempt."""
        link, self._socket = self._socket, None
        if link is not None:
            asyncio.get_running_loop().remove_reader(link)
            link.close()

    # ------------------------------------------------------------------------------------------------ the attempt

    async def _perform(self, end: Json) -> Json:
        order = {"attempt": self._request, "artifacts": str(self._artifacts)}
        order |= {name: self._order[name] for name in ("limit", "checkpoint", "unsafe")}
        body = json.dumps(order).encode()
        if len(body) > protocol.PACKET - 1000:
            path = self._work / "order"
            path.write_bytes(body)
            body = b"@" + os.fsencode(path)
        self._send(protocol.encode(protocol.RUN, 1, self._module, body=body))
        result: Json | None = None
        polling = asyncio.create_task(self._poll())
        try:
            while True:
                words, body = await self._receive()
                match words:
                    case [protocol.STARTED, _, _, slot]:
                        end["started_at"] = self._started(slot)
                    case [protocol.RESULT, _, _]:
                        result = self._read_result(body)
                        self._stop_timers()
                        self._timers.append(asyncio.get_running_loop().call_later(1.0, self._signal, signal.SIGKILL))
                    case [protocol.EXIT, _, status, expired]:
                        return result or self._exited(int(status), expired == "1")
                    case [protocol.UNFORKED, *_]:
                        why = f"no process could be created for the step: {body.decode(errors='replace')[:500]}"
                        raise _EndedError("lost", error_info.plain(exhaustion.OUT_OF_RESOURCES, why))
                    case []:
                        return result or self._server_ended()
                    case _:
                        continue
        finally:
            polling.cancel()

    def _started(self, slot: str) -> float:
        self._running = True
        base = str(self._work / str(self._servers) / slot)
        self._base = base
        attempt: AttemptKey = (self._request["run_id"], self._request["key"], self._request["attempt"])
        self._shipper = Shipper(attempt, self._tail(base, self._preface), self._outbox)
        self._preface = ""
        if self._reason is not None:
            self._signal(signal.SIGKILL)
        elif (timeout := self._request["timeout"]) is not None:
            why = f"the step ran longer than its timeout of {timeout:g} s"
            later = asyncio.get_running_loop().call_later
            self._timers.append(later(timeout, self.stop, "timed_out", "Timeout", why, self._order["grace"]))
        return time.time()

    def _read_result(self, body: bytes) -> Json:
        result: Json = json.loads(body or Path(f"{self._base}.result").read_bytes())
        return result

    def _exited(self, status: int, expired: bool) -> Json:
        """The end of an attempt whose process left no result."""
        if expired:
            why = "the runner could not reach the platform, so the attempt, which has slots of limits, was ended"
            raise _EndedError("lost", error_info.plain("Lost", why))
        code = os.waitstatus_to_exitcode(status)
        limit = self._request["resources"]["memory"]
        error = step_exits.crash_error(code, limit)
        if code == -signal.SIGKILL and self._was_out_of_memory():
            error = memory.error(limit)
        raise _EndedError("failed", _as_json(error))

    def _server_ended(self) -> Json:
        code = self._exit_code()
        error = ErrorInfo(type="Lost", message=f"the fork server of the step ended ({step_exits.describe_exit(code)})")
        if self._was_out_of_memory():
            raise _EndedError("failed", _as_json(memory.error(self._request["resources"]["memory"])))
        raise _EndedError("lost", _as_json(error))

    def _was_out_of_memory(self) -> bool:
        return memory.oom_kills() > self._oom_kills

    def _stop_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    # --------------------------------------------------------------------------------------------------- shipping

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL)
            if self._shipper is not None:
                self._shipper.poll()

    async def _drain(self) -> None:
        """Ship the rest."""
        if self._shipper is None and self._preface:
            attempt: AttemptKey = (self._request["run_id"], self._request["key"], self._request["attempt"])
            self._shipper = Shipper(attempt, self._tail(str(self._work / "none"), self._preface), self._outbox)
        if self._shipper is None:
            return
        while not self._shipper.poll(last=True):  # noqa: ASYNC110 - signs of life go on meanwhile
            await asyncio.sleep(0)


def _as_json(error: ErrorInfo) -> Json:
    return {**dataclasses.asdict(error), "bases": list(error.bases)}


def _end_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _LOG_SHOWN))
            return file.read(_LOG_SHOWN).decode(errors="replace")
    except OSError:
        return ""
