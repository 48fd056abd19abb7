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
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from penstock.runner import error_info
from penstock.runner.pod import memory
from penstock.runner.pod.fork_servers import ForkServer, ForkServers, Packet
from penstock_core import exhaustion, step_exits
from penstock_core import fork_server_protocol as protocol
from penstock_core.errors import PenstockError
from penstock_core.facts import ErrorInfo
from penstock_core.secrets.given import GivenSecrets
from penstock_core.shipping.masking import MaskedTail, mask_end
from penstock_core.shipping.messages import AttemptKey
from penstock_core.shipping.shipper import Outbox, Shipper
from penstock_core.shipping.tail import Tail

POLL = 0.2
IMPORT_TIMEOUT = 300.0

Json = dict[str, Any]


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
        secrets: what the step is given, and what masks it.
        source: folder of the unpacked source bundle.
        artifacts: folder of the store, with the inputs.
        servers: the fork servers of this pod.
        outbox: gets what the step writes.
        tail: reads the attempt's files, by their path without suffix, after a preface.
    """

    def __init__(
        self,
        order: Json,
        secrets: GivenSecrets,
        source: Path,
        artifacts: Path,
        servers: ForkServers,
        outbox: Outbox,
        tail: Callable[[str, str], Tail],
    ) -> None:
        self._order = order
        self._secrets = secrets
        self._request: Json = order["attempt"]
        self._module: str = self._request["entrypoint"].partition(":")[0]
        self._source = source
        self._artifacts = artifacts
        self._servers = servers
        self._outbox = outbox
        self._tail = tail
        self._began = time.time()
        self._server: ForkServer | None = None
        self._number = 0
        self._reason: tuple[str, Json] | None = None
        self._running = False
        self._clean = False
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
            self._stop_timers()
            if not self._clean:
                self._servers.close()
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
        elif self._server is not None:
            self._server.packets.put_nowait(None)

    def extend(self, deadline: float) -> None:
        """Let the step run until `deadline`, in seconds of the machine's boot clock: the fork server kills it then."""
        if self._running:
            self._send(protocol.encode(protocol.LEASE, self._number, deadline))

    # -------------------------------------------------------------------------------------------- the fork server

    async def _import(self, *, isolated: bool = False) -> None:
        """Have a fork server import the module, or leave the import to the attempt."""
        server = self._server = self._servers.get(self._source, self._request["env"], isolated=isolated)
        self._check_stopped()
        if self._module in server.imported:
            return
        self._send(protocol.encode(protocol.ISOLATE if server.isolated else protocol.IMPORT, self._module))
        try:
            words, body = await asyncio.wait_for(self._receive(), IMPORT_TIMEOUT)
        except TimeoutError:
            why = f"importing module {self._module!r} took longer than {IMPORT_TIMEOUT:g} s"
            raise _EndedError("timed_out", error_info.plain("Timeout", why)) from None
        self._preface += server.new_log()
        self._check_stopped()
        match words:
            case [protocol.IMPORTED, *_]:
                server.imported.add(self._module)
            case [protocol.REFUSED, *_]:
                raise _EndedError("failed", json.loads(body))
            case [protocol.THREADED, *_]:
                self._servers.close()
                names = body.decode(errors="replace")[:500]
                self._preface = (
                    f"[penstock] importing module {self._module!r} starts the thread {names}: each attempt imports "
                    "the module by itself, which takes longer. Start threads in a step instead\n"
                )
                await self._import(isolated=True)
            case _:  # it ended
                error = step_exits.import_crash_error(self._module, await server.exit_code(), self._preface)
                if self._was_out_of_memory():
                    error = memory.error(self._request["resources"]["memory"])
                raise _EndedError("failed", _as_json(error))

    def _check_stopped(self) -> None:
        if self._reason is not None:
            raise _EndedError(*self._reason)

    async def _receive(self) -> Packet:
        """Return the next message; one without words when the fork server has ended, or the attempt is stopped."""
        assert self._server is not None  # noqa: S101 - set by `_import`
        return await self._server.packets.get() or ([], b"")

    def _send(self, message: bytes) -> None:
        if self._server is not None:
            self._server.send(message)

    def _signal(self, number: int) -> None:
        self._send(protocol.encode(protocol.SIGNAL, self._number, int(number)))

    # ------------------------------------------------------------------------------------------------ the attempt

    async def _perform(self, end: Json) -> Json:
        assert self._server is not None  # noqa: S101 - set by `_import`
        self._number = self._server.next_number()
        order = {"attempt": self._request, "artifacts": str(self._artifacts)}
        order |= {name: self._order[name] for name in ("limit", "checkpoint", "unsafe")}
        body = protocol.order_body(json.dumps(order).encode(), self._secrets.encoded(), self._write_order)
        self._send(protocol.encode(protocol.RUN, self._number, self._module, body=body))
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
                        self._clean = True
                        return result or self._exited(int(status), expired == "1")
                    case [protocol.UNFORKED, *_]:
                        why = f"no process could be created for the step: {body.decode(errors='replace')[:500]}"
                        raise _EndedError("lost", error_info.plain(exhaustion.OUT_OF_RESOURCES, why))
                    case []:
                        return result or await self._server_ended()
                    case _:
                        continue
        finally:
            polling.cancel()

    def _started(self, slot: str) -> float:
        self._running = True
        assert self._server is not None  # noqa: S101 - set by `_import`
        base = str(self._server.folder / slot)
        self._base = base
        self._shipper = self._new_shipper(base)
        if self._reason is not None:
            self._signal(signal.SIGKILL)
        elif (timeout := self._request["timeout"]) is not None:
            why = f"the step ran longer than its timeout of {timeout:g} s"
            later = asyncio.get_running_loop().call_later
            self._timers.append(later(timeout, self.stop, "timed_out", "Timeout", why, self._order["grace"]))
        return time.time()

    def _write_order(self, order: bytes) -> bytes:
        assert self._server is not None  # noqa: S101 - set by `_import`
        path = self._server.folder / f"{self._number}.order"
        path.write_bytes(order)
        return os.fsencode(path)

    def _read_result(self, body: bytes) -> Json:
        result: Json = json.loads(body or Path(f"{self._base}.result").read_bytes())
        return mask_end(result, self._secrets.masker) if self._secrets else result

    def _new_shipper(self, base: str) -> Shipper:
        attempt: AttemptKey = (self._request["run_id"], self._request["key"], self._request["attempt"])
        tail = self._tail(base, self._preface)
        self._preface = ""
        return Shipper(attempt, MaskedTail(tail, self._secrets.masker) if self._secrets else tail, self._outbox)

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

    async def _server_ended(self) -> Json:
        assert self._server is not None  # noqa: S101 - set by `_import`
        code = await self._server.exit_code()
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
            self._shipper = self._new_shipper("/none")
        if self._shipper is None:
            return
        while not self._shipper.poll(last=True):  # noqa: ASYNC110 - signs of life go on meanwhile
            await asyncio.sleep(0)


def _as_json(error: ErrorInfo) -> Json:
    return {**dataclasses.asdict(error), "bases": list(error.bases)}
