"""Steps with several nodes: what happens if not all processes can be started."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from penstock.runner import multi_node


def test_no_rank_calls_the_function_if_another_one_cannot_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attempt is repeated, so a rank that had begun would do its work twice."""
    started: list[int] = []
    fork, kill = os.fork, multi_node._kill  # pyright: ignore[reportPrivateUsage]

    def limited() -> int:
        if started:
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
        started.append(fork())
        return started[0]

    def slow(ranks: Iterable[Any]) -> None:
        time.sleep(0.3)
        kill(ranks)

    def performed(*_: Any, **__: Any) -> Any:
        (tmp_path / "called").touch()

    monkeypatch.setattr(signal, "signal", lambda *_: None)  # this process is not that of an attempt
    monkeypatch.setattr(os, "fork", limited)
    monkeypatch.setattr(multi_node, "_kill", slow)
    monkeypatch.setattr(multi_node, "perform", performed)
    attempt = {"run_id": "r", "key": "k", "attempt": 1, "nodes": 2, "resources": {"memory": None}}
    end = multi_node.run({"attempt": attempt, "artifacts": ""}, str(tmp_path / "slot"), 2, set())
    os.waitpid(started[0], 0)
    assert end["outcome"] == "failed" and "2 processes of the step" in end["error"]["message"]
    assert not (tmp_path / "called").exists()
