"""The main program of the child process of a preview: `python -I -m penstock_artifacts.previews.child ORDER`.

In: ORDER, a JSON object with `format`, `media_type`, `filename`, `size`, `parent`, `seconds`, `memory`; the artifact's
bytes on descriptor 3, to be read only; an empty working folder. Out: one JSON object on standard output, the fields of
a `Preview` without its name. It imports no other part of the platform.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from penstock_artifacts.previews import confinement
from penstock_artifacts.previews.readers import Choice, NoPreviewError, choose

OUTPUT_LIMIT = 512 * 1024
"""Largest preview as JSON text, in bytes."""


def main() -> None:
    """Make the preview of the order."""
    order = json.loads(sys.argv[1])
    confined = confinement.begin(order["parent"], order["seconds"])
    signal.signal(signal.SIGXCPU, _out_of_time)
    try:
        with open(3, "rb") as file:
            found = make(order, file, lambda: confined.extend(confinement.confine(order["memory"])))
    except NoPreviewError as error:
        found = {**_none(str(error)), "final": error.final}
    except MemoryError:
        found = _none(f"reading it needs more than {order['memory'] >> 20} MiB of memory")
    except TimeoutError:
        found = _none(f"reading it takes more than {order['seconds']} s")
    except RecursionError:
        found = _none("it is nested too deeply")
    except Exception as error:
        found = _none(f"it cannot be read: {_words(error)}")
    text = json.dumps(found, allow_nan=False)
    if len(text) > OUTPUT_LIMIT:
        text = json.dumps(_none("its preview would be too large"))
    sys.stdout.write(text)
    sys.stdout.flush()
    os._exit(0)  # skip the threads and finalisers of libraries


def make(order: dict[str, Any], file: io.BufferedReader, confined: Callable[[], object]) -> dict[str, Any]:
    """Choose the reader, import it, drop all privileges, then read.

    Raises:
        NoPreviewError: there is none for this kind of file.
    """
    head = os.pread(file.fileno(), 512, 0)
    choice: Choice = choose(order["format"], order["media_type"], order["filename"], head)
    try:
        for name in choice.needs:
            import_module(name)
        reader = getattr(import_module(f"penstock_artifacts.previews.{choice.module}"), choice.function)
    except ImportError as error:
        library = (error.name or "a library").partition(".")[0]
        raise NoPreviewError(f"{library} is not installed beside the artifacts service", final=False) from error
    confined()
    return reader(file, order["size"])


def _none(reason: str) -> dict[str, Any]:
    return {"kind": "none", "reason": reason}


def _words(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text.encode("utf-8", "replace").decode()[:300]


def _out_of_time(number: int, frame: object) -> None:
    del number, frame
    raise TimeoutError


if __name__ == "__main__":
    main()
