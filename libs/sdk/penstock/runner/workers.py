"""The context of an attempt in processes that its step starts: spawned workers, loky, subprocesses.

Forked workers inherit the context; other Python processes find it through an environment variable. They append to the
same files as the step, line by line.
"""

from __future__ import annotations

import json
import os
from typing import Any

from penstock.runner import given_secrets
from penstock.runner.attempt import open_context
from penstock.runner.recorder import Recorder
from penstock.step_context import contexts
from penstock.store import FolderStore

_CHECKPOINT_LIMIT = 32 * 1024
"""Longest JSON text of a checkpoint in the variable: the kernel allows 128 KiB for each."""

_NAMES = ("run_id", "key", "attempt", "pipeline", "project", "seed")


def announce(order: dict[str, Any], base: str, opener: str = __name__) -> None:
    """Make the attempt's context available to the processes that this one starts.

    Args:
        order: the attempt, its artifact store, its checkpoint and its secrets by name.
        base: path of the recorder's files, without their endings.
        opener: module whose `open_announced` opens the context.
    """
    checkpoint = order.get("checkpoint")
    short = checkpoint is not None and len(json.dumps(checkpoint)) <= _CHECKPOINT_LIMIT
    about = {
        "opener": opener,
        "request": {name: order["attempt"].get(name) for name in _NAMES},
        "artifacts": order["artifacts"],
        "limit": order.get("limit"),
        "unsafe": order.get("unsafe", True),
        "checkpoint": checkpoint if short else None,
        "base": base,
        "secrets": given_secrets.share(order.get("secrets", {})),
        "owner": os.getpid(),
    }
    os.environ[contexts.WORKER_VARIABLE] = json.dumps(about)


def open_announced(about: dict[str, Any], recorder: type[Recorder] = Recorder) -> contexts.Context:
    """The context that `announce` has described, whose sink is a `recorder`."""
    return open_context(
        about["request"],
        FolderStore(about["artifacts"], about["limit"]),
        about["base"],
        about["checkpoint"],
        unsafe=about["unsafe"],
        owner=about["owner"],
        recorder=recorder,
        secrets=given_secrets.shared(about["secrets"]),
    )
