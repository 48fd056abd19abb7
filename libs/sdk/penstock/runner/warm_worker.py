"""A warm worker: loads a pipeline once, then runs its requests one after the other until its channel is closed.

The messages on the channel are those of `penstock_core.fork_server_protocol`.
"""

from __future__ import annotations

import json
import socket
import sys
from typing import Any, BinaryIO

from penstock.runner import attempt, linux
from penstock.runner.warm_run import Program, WarmRun
from penstock.runner.warm_values import LoadedArtifacts
from penstock.store import FolderStore
from penstock_core import fork_server_protocol as protocol
from penstock_core import plain_data
from penstock_core.facts import RunRequested
from penstock_core.pipeline.ir import Pipeline
from penstock_core.pipeline.values import Value

Json = dict[str, Any]


def serve(order: Json, channel: socket.socket) -> None:
    """Serve until the channel is closed.

    Args:
        order: as of an attempt, with the pipeline, the inputs that all requests share, and the executor in `serve`.
        channel: the channel.
    """
    with channel, channel.makefile("rb") as incoming:
        try:
            program = _load(order)
        except BaseException as error:
            _send(channel, {"refused": attempt.describe(error, None, order["attempt"]["entrypoint"])})
            return
        _send(channel, {"ready": True})
        while (calls := _receive(incoming)) is not None:
            _answer(channel, program, calls["calls"])
            _flush()


def _load(order: Json) -> Program:
    wanted = order["serve"]
    store = FolderStore(order["artifacts"], order.get("limit"))
    artifacts = LoadedArtifacts(store, unsafe=order.get("unsafe", True))
    program = Program(plain_data.read(Pipeline, wanted["pipeline"]), artifacts, wanted["executor"])
    program.preload(plain_data.read(dict[str, Value], wanted["inputs"]))
    attempt.limit_memory(order["attempt"]["resources"]["memory"])
    return program


def _answer(channel: socket.socket, program: Program, calls: list[Json]) -> None:
    runs = [WarmRun(program, plain_data.read(RunRequested, call["run"])) for call in calls]
    program.run_all(runs)
    for call, run in zip(calls, runs, strict=True):
        _send(channel, {"id": call["id"], "end": run.end})
    # The callers have their answers before the facts are written.
    for call, run in zip(calls, runs, strict=True):
        record = call["record"] or run.end["outcome"] != "succeeded" or run.has_artifacts
        _send(channel, {"id": call["id"], "facts": run.facts() if record else None})
    program.artifacts.remove_files()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    linux.flush_c_streams()


def _send(channel: socket.socket, message: Json) -> None:
    channel.sendall(protocol.frame(plain_data.write(message).encode()))


def _receive(incoming: BinaryIO) -> Json | None:
    head = incoming.read(protocol.FRAME_HEAD)
    if len(head) < protocol.FRAME_HEAD:
        return None
    return json.loads(incoming.read(protocol.frame_size(head)))
