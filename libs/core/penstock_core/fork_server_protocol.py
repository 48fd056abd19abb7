"""The messages between an executor, its fork servers and the attempts that they fork.

The executor starts `python -m penstock.runner.forkserver FD PARENT SOURCE WORK` and talks to it over one SOCK_SEQPACKET
socket. A message is a header line of words, then a body that may be empty, of at most `PACKET` bytes together.

executor → fork server
    import MODULE                       import it; answered by `imported` or `refused`
    isolate MODULE                      do not import it: each attempt imports it by itself; answered by `imported`
    run ID MODULE       + order JSON    fork an attempt; the body is `@PATH` when the JSON is in a file. The secrets of
                                        the attempt follow after a NUL, as JSON; they are never in a file
    signal ID NUMBER                    send a signal to the attempt's process group
    lease ID DEADLINE                   kill the attempt at this time of the machine's boot clock, in seconds, unless a
                                        later deadline comes before
    (end of file)                       kill every attempt and exit

fork server → executor
    threaded MODULE + text              importing it starts threads, which no forked process would have; the body names
                                        them. The executor starts another fork server and has it `isolate` the module
    imported MODULE BYTES               BYTES: size of the server's own log, so that what an import prints is not lost
    refused MODULE      + error JSON    the module cannot be imported; the body is an `ErrorInfo`
    started ID PID SLOT                 sent before the attempt may begin
    unforked ID         + text          no process could be created
    exit ID STATUS EXPIRED              wait status; no process of it is left. After a result, 0 says that it left no
                                        files. EXPIRED is 1 if it was killed at its deadline

attempt → executor, over the same socket
    result ID WROTE     + JSON          `AttemptFinished`; WROTE is 1 when it wrote to any of its files; the body is
                                        empty when the JSON is in the file SLOT.result

An order with `serve` is that of a warm worker, which runs the requests to an endpoint. Its `run` message carries the
descriptor of a stream socket, the channel to the executor. Messages there are JSON behind their length in four bytes.

executor → worker
    {"calls": [{"id": 1, "run": {…}, "record": true, "stream": false}]}
                                                            run these requests: a `RunRequested` each
    {"received": [1, SENT]}                                 the client has the items of call 1 up to SENT bytes
    {"cancel": 1}                                           the client of call 1, a stream, has disconnected
    (end of file)                                           exit

worker → executor
    {"ready": true}                                         the pipeline is loaded
    {"refused": {…}}                                        it cannot be loaded: an `ErrorInfo`; the worker exits
    {"id": 1, "items": […], "sent": SENT}                   of a stream: items, and the bytes of all so far
    {"id": 1, "end": {"outcome": …, "error": …, "outputs": {…}}}
    {"id": 1, "facts": [[TAIL, {…}], …]}                    sent after the end: the facts of the run except its request,
                                                            each as the end of its subject and its body; null if they
                                                            are not to be recorded

SLOT names the attempt's working folder inside WORK. Beside it are SLOT.log (its output), SLOT.events (JSON lines of
parameters and artifacts), SLOT.points (JSON lines of metrics), SLOT.commits (JSON lines of what it stored while it
ran), SLOT.progress (its latest progress) and SLOT.result.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote, unquote

PACKET = 96 * 1024
"""Largest message in bytes."""

IMPORT, RUN, SIGNAL, LEASE = "import", "run", "signal", "lease"
IMPORTED, REFUSED, STARTED, UNFORKED, EXIT = "imported", "refused", "started", "unforked", "exit"
ISOLATE, THREADED = "isolate", "threaded"
RESULT = "result"

FRAME_HEAD = 4
"""Bytes before each message on the channel of a worker."""

FRAME_LIMIT = 64 * 1024 * 1024
"""Largest message on the channel of a worker, in bytes."""

STREAM_WINDOW = 256 * 1024
"""Bytes of items that a worker sends before its client has received them."""

_SAFE = "/.:_-"

SUFFIXES = ("log", "events", "points", "commits", "progress", "result")
"""Of the files beside a working folder."""


def encode(kind: str, *words: object, body: bytes = b"") -> bytes:
    """A message. Words are percent-encoded where needed: a module is named after its file, which may have any name."""
    return " ".join((kind, *(quote(str(word), safe=_SAFE, errors="surrogatepass") for word in words))).encode() + (
        b"\n" + body
    )


def decode(message: bytes) -> tuple[list[str], bytes]:
    """The words of a message, its kind first, and its body."""
    head, _, body = message.partition(b"\n")
    return [unquote(word, errors="surrogatepass") for word in head.decode(errors="replace").split()], body


def order_body(order: bytes, secrets: bytes, write: Callable[[bytes], bytes]) -> bytes:
    """The body of a `run` message.

    Args:
        order: JSON.
        secrets: JSON, or empty.
        write: writes an order that is too large for a message to a file, and returns the path.
    """
    tail = b"\0" + secrets if secrets else b""
    if len(order) + len(tail) > PACKET - 1000:
        order = b"@" + write(order)
    return order + tail


def split_order(body: bytes) -> tuple[bytes, bytes]:
    """The order of a `run` message, or `@` and its path, and the JSON of the secrets."""
    order, _, secrets = body.partition(b"\0")
    return order, secrets


def frame(body: bytes) -> bytes:
    """A message for the channel of a worker."""
    return len(body).to_bytes(FRAME_HEAD, "big") + body


def frame_size(head: bytes) -> int:
    """The length of the message that follows these bytes."""
    return int.from_bytes(head, "big")
