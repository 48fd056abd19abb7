"""A forked child: made ready before it has anything to do, then runs one attempt and ends.

Promises: it leads its own session, so that the whole of it can be ended; it dies with the fork server; all that it and
its descendants write goes to its log; it reports at most one end; nothing of the fork server's code runs after it.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

from penstock.runner import error_info, given_secrets, linux, multi_node, process_end, seeds, workers
from penstock.runner.attempt import perform
from penstock_core import exhaustion, step_environment, trace_context
from penstock_core import fork_server_protocol as protocol

RESULT_LIMIT = 2 * 1024 * 1024
"""Largest end of an attempt as JSON text, in bytes."""

_DESCRIPTOR = struct.Struct("i")
_ROOM = socket.CMSG_LEN(_DESCRIPTOR.size)
_FLAGS = int(socket.MSG_CMSG_CLOEXEC)
DO_NOT_WAIT = int(socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
"""Plain numbers: to combine members of an enumeration in each child would copy thirty more pages of memory."""

_REHEARSAL = json.dumps(
    {
        "run_id": "", "key": "", "attempt": 0, "pipeline": "", "project": "",
        "entrypoint": f"{__name__}:rehearse", "inputs": {"value": {"value": 1}}, "resources": {"memory": None},
    }
)  # fmt: skip


def run_child(parent: int, orders: socket.socket, link: socket.socket, slot: str) -> NoReturn:
    """Be the child from fork to end.

    Args:
        parent: process id of the fork server.
        orders: socket that hands over the `run` message, or nothing but its end.
        link: socket to the executor, shared with the fork server and all other children.
        slot: path of this child's working folder, which is made here; its files lie beside it.
    """
    code = 70  # EX_SOFTWARE: a fault of the runner itself, unless the result was sent
    try:
        try:
            log = _prepare(parent, slot)
        except OSError as error:
            _out_of_resources(orders.recv(protocol.PACKET), link, error)
            raise
        message, descriptors = _wait(orders)
        orders.close()
        if descriptors:
            _serve(message, descriptors[0], slot)
            code = 1
        else:
            read = bool(message) and _attempt(message, link, slot, log)
            code = 1 if read or not _clean(slot) else 0
    except BaseException:
        traceback.print_exc()  # into the attempt's output
    finally:
        os._exit(code)


def _prepare(parent: int, slot: str) -> int:
    """All that can be done before the attempt is known. Returns a descriptor of the log."""
    os.setsid()
    linux.die_with_parent(parent)
    os.mkdir(slot, 0o700)  # noqa: PTH102 - as fast as can be
    os.chdir(slot)
    log = os.open(f"{slot}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    seeds.refresh()
    process_end.adopt()
    return log


def _out_of_resources(message: bytes, link: socket.socket, error: OSError) -> None:
    """Report that there was no room for the attempt's files."""
    if message and exhaustion.is_exhaustion(error):
        (_, number, _), body = protocol.decode(message)
        request = _read_order(body)["attempt"]
        end = {name: request[name] for name in ("run_id", "key", "attempt")}
        end["error"] = error_info.plain(exhaustion.OUT_OF_RESOURCES, f"no room for the files of the attempt: {error}")
        link.sendall(
            protocol.encode(protocol.RESULT, number, 0, body=json.dumps({**end, "outcome": "failed"}).encode())
        )


def _read_order(body: bytes) -> dict[str, Any]:
    """The order, which is in a file if it is large; `secrets` are the values by the text form of their use."""
    order, secrets = protocol.split_order(body)
    if order.startswith(b"@"):
        path = Path(os.fsdecode(order[1:]))
        order = path.read_bytes()
        path.unlink()
    return json.loads(order) | {"secrets": json.loads(secrets) if secrets else {}}


def _wait(orders: socket.socket) -> tuple[bytes, list[int]]:
    """The `run` message and the descriptors with it.

    While there is none, the way is walked once, so that its memory pages are this child's own.
    """
    try:
        return receive(orders, DO_NOT_WAIT)
    except BlockingIOError:
        json.dumps(perform(json.loads(_REHEARSAL), "", "")[0])
        return receive(orders, _FLAGS)


def receive(link: socket.socket, flags: int) -> tuple[bytes, list[int]]:
    """A message, and the descriptor that came with it, if one did; what `socket.recv_fds` does, but cheaper."""
    message, extra, _, _ = link.recvmsg(protocol.PACKET, _ROOM, flags)
    return message, [_DESCRIPTOR.unpack(data)[0] for _, kind, data in extra if kind == socket.SCM_RIGHTS]


def _serve(message: bytes, descriptor: int, slot: str) -> None:
    """Be a warm worker."""
    # Only processes that become one pay for it.
    from penstock.runner import warm_worker

    _, body = protocol.decode(message)
    order = _read_order(body)
    sys.argv = [order["attempt"]["entrypoint"]]
    workers.announce(order, slot)
    warm_worker.serve(order, socket.socket(fileno=descriptor))


def _attempt(message: bytes, link: socket.socket, slot: str, log: int) -> bool:
    """Run what `message` says and report; returns whether the executor has files to read."""
    (_, number, _), body = protocol.decode(message)
    order = _read_order(body)
    request = order["attempt"]
    sys.argv = [request["entrypoint"]]
    span = trace_context.of_attempt(request["run_id"], request["key"], request["attempt"], request.get("trace", ""))
    os.environ[step_environment.TRACEPARENT] = span.traceparent()
    order["secrets"] = given_secrets.give(order["secrets"])
    own: dict[str, Any] = {"limit": order.get("limit"), "unsafe": order.get("unsafe", True)}
    own["secrets"] = order["secrets"]
    workers.announce(order, slot)
    platform = {log, link.fileno()}
    if request.get("nodes", 1) > 1:
        return _report(link, number, multi_node.run(order, slot, log, platform), slot, log, 1)
    end, recorder = perform(request, order["artifacts"], slot, order.get("checkpoint"), **own, own=platform)
    return _report(link, number, end, slot, log, recorder.size)


def _report(link: socket.socket, number: str, end: dict[str, Any], slot: str, log: int, events: int) -> bool:
    body = json.dumps(end, separators=(",", ":")).encode()
    if len(body) > RESULT_LIMIT:
        body = json.dumps(_too_large(end, len(body))).encode()
    wrote = os.fstat(log).st_size + events > 0
    large = len(body) > protocol.PACKET - 200
    if large:
        Path(f"{slot}.result").write_bytes(body)
        body = b""
    link.sendall(protocol.encode(protocol.RESULT, number, int(wrote), body=body))
    return wrote or large


def _too_large(end: dict[str, Any], size: int) -> dict[str, Any]:
    why = f"the result names so many artifacts that it has {size / 2**20:.1f} MiB (the limit is {RESULT_LIMIT >> 20})"
    error = error_info.plain("ResultTooLarge", f"{why}: return one folder or one table instead of many small values")
    return {**end, "outcome": "failed", "outputs": {}, "artifacts": {}, "models": [], "error": error}


def _clean(slot: str) -> bool:
    """Remove what is left of an attempt that wrote nothing; False when there is more, for the executor to remove."""
    try:
        os.rmdir(slot)  # noqa: PTH106 - as fast as can be
        os.unlink(f"{slot}.log")  # noqa: PTH108
    except OSError:
        return False
    return True


def rehearse(value: int) -> int:
    """The step that is called when there is nothing to do yet."""
    return value
