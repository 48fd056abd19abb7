"""One attempt in the user's terminal, with the inputs, the source and the environment that it had on the platform.

    python -P -m penstock.runner.debugger ORDER

ORDER is a JSON file with a `DebugOrder`. The process works in the folder of that file: its artifact store, the files
that the step writes and what it logs are in there, so that nothing reaches the platform. Exit code 0: the function
returned and its outputs can be stored; 1: it raised, or the user left the debugger; 130: Ctrl-C.
"""

from __future__ import annotations

import bdb
import faulthandler
import json
import os
import pdb
import reprlib
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypedDict

from penstock import tracebacks
from penstock.runner import attempt, given_secrets, linux, workers
from penstock.runner.recorder import Recorder
from penstock.step_context import contexts
from penstock.step_context.events import SentEvent
from penstock.step_context.models import ModelRegistration
from penstock.store import FolderStore
from penstock_core.secrets import references

Json = dict[str, Any]

_SHOWN = 300
"""Longest text of a value in characters."""

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80


class DebugOrder(TypedDict):
    """What to debug.

    `attempt` is the `AttemptRequested`; `checkpoint` a stored value or None; `source` the folder that is first on the
    module path; `artifacts` the root of a store with the objects that inputs and checkpoint refer to; `secrets` the
    uses of secrets, whose values are in variables of the terminal.
    """

    attempt: Json
    checkpoint: Json | None
    source: str
    artifacts: str
    post_mortem: bool
    secrets: list[str]


class PrintingRecorder(Recorder):
    """A recorder in the folder of the debugger that prints what is logged."""

    def metric(self, name: str, value: float, step: int | None) -> None:
        """Record and print a metric."""
        super().metric(name, value, step)
        _say(f"metric {name} = {value:.6g}" + ("" if step is None else f" (step {step})"))

    def param(self, name: str, value: Any) -> None:
        """Record and print a parameter."""
        super().param(name, value)
        _say(f"param {name} = {_short.repr(value)}")

    def tag(self, name: str, value: str) -> None:
        """Record and print a tag."""
        super().tag(name, value)
        _say(f"tag {name} = {value}")

    def artifact(self, name: str, value: object) -> None:
        """Store an object in the debugger's folder and print its form."""
        super().artifact(name, value)
        _say(f"artifact {name} = {_described(self.artifacts[name])}")

    def model(self, wanted: ModelRegistration) -> None:
        """Store a model in the debugger's folder and print its name."""
        super().model(wanted)
        _say(f"model {wanted.model}: not registered, because this is a debugger")

    def event(self, sent: SentEvent) -> None:
        """Print an event."""
        super().event(sent)
        _say(f"event {sent.type}: not sent, because this is a debugger")

    def progress(self, done: float, total: float, text: str) -> None:
        """Record and print progress."""
        super().progress(done, total, text)
        _say(f"progress {done:g}/{total:g} {text}".rstrip())


def debug(order: DebugOrder, folder: Path) -> int:
    """Call the function of an attempt; returns the exit code."""
    request = order["attempt"]
    store = FolderStore(order["artifacts"])
    base = str(folder / "recorded")
    secrets = given_secrets.give({text: _value(text) for text in order["secrets"]})
    context = attempt.open_context(
        request, store, base, order["checkpoint"], unsafe=True, recorder=PrintingRecorder, secrets=secrets
    )
    contexts.set_context(context)
    workers.announce({**order, "secrets": secrets}, base, opener=__name__)
    end: Json = {}
    try:
        attempt.limit_memory(request["resources"]["memory"])
        outputs = attempt.call(request, store, end, unsafe=True, before=lambda inputs: _announce(request, inputs))
    except bdb.BdbQuit:
        _say("left the debugger")
        return 1
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    except BaseException as error:
        attempt.limit_memory(None)
        return _failed(error, post_mortem=order["post_mortem"])
    finally:
        attempt.limit_memory(None)
    for name, value in outputs.items():
        _say(f"{name} = {_described(value)}")
    _say(f"returned after {end['finished_at'] - end['started_at']:.3g} s; nothing was recorded")
    return 0


def _value(text: str) -> str:
    return os.environ[references.passed(text) or references.local_variable(text)]


def open_announced(about: Json) -> contexts.Context:
    """Return the context in a process that the debugged step has started."""
    return workers.open_announced(about, recorder=PrintingRecorder)


def _failed(error: BaseException, *, post_mortem: bool) -> int:
    sys.stdout.flush()
    sys.stderr.write(tracebacks.user_traceback(error) + "\n")
    if not post_mortem:
        _say("the step raised; --pdb opens a debugger at the line that raised")
        return 1
    _say("post mortem: `up` and `down` change the frame, `p NAME` prints a variable, `q` leaves")
    pdb.post_mortem(_users_part(error.__traceback__))
    return 1


def _users_part(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback without the frames of the platform that called the user's function."""
    first = trace
    while trace is not None and tracebacks.is_platform(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    return trace or first


def _announce(request: Json, inputs: Mapping[str, Any]) -> None:
    given = ", ".join(f"{name}={_shown(value)}" for name, value in inputs.items())
    _say(f"calling {request['entrypoint'].partition(':')[2]}({given})")


def _shown(value: object) -> str:
    """Return a loaded value in a few words: tables and arrays by their shape."""
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape:
        return f"<{type(value).__name__} {' x '.join(map(str, shape))}>"
    return " ".join(_short.repr(value).split())


def _described(value: Any) -> str:
    """Return a stored value for people: JSON, or the form and size of its artifact."""
    match value:
        case {"artifact": {"format": form, "size": size}}:
            return f"{form}, {size} bytes"
        case {"value": plain}:
            text = json.dumps(plain, ensure_ascii=False)
        case _:
            text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _say(text: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(f"[penstock] {text}\n")
    sys.stderr.flush()


def main() -> None:
    """Debug the attempt of the order that the command line names."""
    linux.die_with_parent(os.getppid())
    faulthandler.enable()  # a crash in native code shows the Python stack
    signal.signal(signal.SIGINT, signal.default_int_handler)  # pdb and the command may have changed it
    file = Path(sys.argv[1])
    order: DebugOrder = json.loads(file.read_bytes())
    work = file.parent / "work"
    work.mkdir()
    os.chdir(work)
    sys.path.insert(0, order["source"])
    sys.argv = [order["attempt"]["entrypoint"]]
    sys.exit(debug(order, file.parent))


if __name__ == "__main__":
    main()
