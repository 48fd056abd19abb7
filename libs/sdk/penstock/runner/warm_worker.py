"""A warm worker: loads a pipeline once, then runs its requests one after the other until its channel is closed.

The messages on the channel are those of `penstock_core.fork_server_protocol`.
"""

from __future__ import annotations

import socket
import sys
from typing import Any

from penstock.runner import attempt, linux
from penstock.runner.warm_channel import Channel, Items
from penstock.runner.warm_run import Program, WarmRun
from penstock.runner.warm_values import LoadedArtifacts
from penstock.store import FolderStore
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
    with channel:
        messages = Channel(channel)
        try:
            program = _load(order)
        except BaseException as error:
            messages.send({"refused": attempt.describe(error, None, order["attempt"]["entrypoint"])})
            return
        messages.send({"ready": True})
        while (calls := messages.calls()) is not None:
            _answer(messages, program, calls)
            _flush()


def _load(order: Json) -> Program:
    wanted = order["serve"]
    store = FolderStore(order["artifacts"], order.get("limit"))
    artifacts = LoadedArtifacts(store, unsafe=order.get("unsafe", True))
    program = Program(plain_data.read(Pipeline, wanted["pipeline"]), artifacts, wanted["executor"])
    program.preload(plain_data.read(dict[str, Value], wanted["inputs"]))
    attempt.limit_memory(order["attempt"]["resources"]["memory"])
    return program


def _answer(channel: Channel, program: Program, calls: list[Json]) -> None:
    runs = [
        WarmRun(
            program,
            plain_data.read(RunRequested, call["run"]),
            Items(channel, call["id"]) if call["stream"] else None,
        )
        for call in calls
    ]
    program.run_all(runs)
    for call, run in zip(calls, runs, strict=True):
        channel.send({"id": call["id"], "end": run.end})
    # The callers have their answers before the facts are written.
    for call, run in zip(calls, runs, strict=True):
        record = call["record"] or run.end["outcome"] != "succeeded" or run.has_artifacts
        channel.send({"id": call["id"], "facts": run.facts() if record else None})
    program.artifacts.remove_files()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    linux.flush_c_streams()
