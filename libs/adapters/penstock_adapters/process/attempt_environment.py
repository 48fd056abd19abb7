"""What an attempt runs in on this machine."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from penstock_core.pipeline.ir import Pipeline
from penstock_core.pipeline.values import Value
from penstock_core.secrets.given import GivenSecrets

NO_SECRETS = GivenSecrets()


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmOrder:
    """What makes the process of an attempt a warm worker, see `penstock_core.fork_server_protocol`.

    Attributes:
        pipeline: the compiled pipeline.
        inputs: those that all requests share.
        channel: the worker's end of its channel; closed once it is handed over.
    """

    pipeline: Pipeline
    inputs: dict[str, Value]
    channel: socket.socket


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptEnvironment:
    """Where an attempt runs: source, interpreter and artifacts on this machine.

    Attributes:
        source: folder of the unpacked source bundle; first on the module path.
        python: path of the interpreter that runs the user's code.
        artifacts: root folder of the local artifact store (layout: `penstock_adapters.files`).
        environment: digest of the environment; attempts with the same one and the same `source` share a fork server.
        modules: folder with Penstock's modules, for an interpreter that has none; its environment is isolated: programs
            of its own folder come first, and the executor's module path does not count.
        checkpoint: the latest checkpoint of the earlier attempts of the step, in the local store.
        limit: size in bytes of the largest artifact that the attempt may store; None for no limit.
        serve: makes it a warm worker.
        secrets: what the attempt is given, and what masks it in all that the attempt writes.
    """

    source: str
    python: str
    artifacts: str
    environment: str
    modules: str = ""
    checkpoint: Value | None = None
    limit: int | None = None
    serve: WarmOrder | None = None
    secrets: GivenSecrets = NO_SECRETS
