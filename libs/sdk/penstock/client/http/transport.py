"""HTTP requests to the platform: one connection per request, retries with back-off, resumable server-sent events.

All requests are idempotent: reads, content-addressed uploads, and posts that carry an idempotency key or have the same
effect when repeated. Therefore broken connections, time-outs and the statuses 429, 502, 503 and 504 are retried, and
the address of the platform is looked up before each attempt: a restarted platform may listen on another port.

A request ends within `patience` seconds without a response plus one `timeout`: with its response or a `ClientError`.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from penstock.client.http import sse
from penstock.client.http.sse import Message
from penstock.client.platform import Address
from penstock.errors import (
    ClientError,
    NoPlatformError,
    NotFoundError,
    RefusedError,
    UnauthorizedError,
    UnreachableError,
)
from penstock_core import step_environment

RETRYABLE_STATUSES = frozenset({429, 502, 503, 504})
CHUNK = 1024 * 1024
_FIRST_DELAY = 0.05
_LONGEST_DELAY = 1.0
_FIRST_PATIENCE = 5.0

Query = Mapping[str, object]


class _RetryableError(Exception):
    """A failure worth a retry: the reason, and the delay that the server requested.

    `final` is the error when retries do not help; None: the platform is unreachable.
    """

    def __init__(self, why: str, wait: float = 0.0, final: ClientError | None = None) -> None:
        self.wait = wait
        self.final = final
        super().__init__(why)


class _StreamEndedError(_RetryableError):
    """The server closed a stream regularly, perhaps before its last message."""


class Transport:
    """Sends requests to the address that `locate` returns, in a project; empty: the default one."""

    def __init__(
        self,
        locate: Callable[[], Address],
        timeout: float,
        patience: float,
        *,
        expected: bool = False,
        project: str = "",
    ) -> None:
        self.locate = locate
        self.project = project
        self.timeout = timeout
        self.patience = patience
        self.on_retry: Callable[[str], None] | None = None
        # A wrong address should fail soon, so patience is short until the first response.
        self._answered_before = expected

    # -------------------------------------------------------------------------------------------------- requests

    def json(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Send `body` as JSON; return the JSON of the response, None if it is empty."""
        data = json.dumps(body, default=_fields).encode() if body is not None else None
        sent = {"content-type": "application/json", **(headers or {})} if data is not None else dict(headers or {})

        def once() -> Any:
            with self._open(method, path, query=query, body=data, headers=sent) as response:
                text = response.read()
            return json.loads(text) if text else None

        return self._retry(once)

    def response(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Mapping[str, str], Any]:
        """Send `body` as JSON; return status, headers by lower-case name, and JSON of the response."""
        data = json.dumps(body, default=_fields).encode() if body is not None else None
        sent = {"content-type": "application/json", **(headers or {})} if data is not None else dict(headers or {})

        def once() -> tuple[int, Mapping[str, str], Any]:
            with self._open(method, path, body=data, headers=sent) as response:
                text = response.read()
                received = {name.lower(): value for name, value in response.headers.items()}
                return response.status, received, json.loads(text) if text else None

        return self._retry(once)

    def exists(self, path: str) -> bool:
        """Whether `HEAD path` finds a resource."""

        def once() -> bool:
            with self._open("HEAD", path):
                return True

        try:
            return self._retry(once)
        except NotFoundError:
            return False

    def upload(self, path: str, content: Path | bytes) -> None:
        """PUT bytes, or the contents of a file."""

        def once() -> None:
            if isinstance(content, bytes):
                with self._open("PUT", path, body=content) as response:
                    response.read()
                return
            with (
                content.open("rb") as data,
                self._open("PUT", path, body=data, size=content.stat().st_size) as response,
            ):
                response.read()

        self._retry(once)

    def download(self, path: str, into: IO[bytes], *, query: Query | None = None) -> str:
        """GET bytes into a file; a broken connection is resumed with a range request. Return the media type."""
        start = into.tell()

        def once() -> str:
            done = into.tell() - start
            ranged = {"range": f"bytes={done}-"} if done else {}
            with self._open("GET", path, query=query, headers=ranged) as response:
                if done and response.status != 206:
                    into.seek(start)
                    into.truncate()
                missing = int(response.getheader("content-length") or 0)
                while chunk := response.read(CHUNK):
                    missing -= into.write(chunk)
                if missing > 0:
                    # http.client takes a broken connection for the end of the body.
                    raise http.client.IncompleteRead(b"", missing)
                return response.headers.get("content-type", "application/octet-stream")

        return self._retry(once)

    # ---------------------------------------------------------------------------------------------------- streams

    def follow(
        self,
        path: str,
        *,
        query: Query | None = None,
        after: int = 0,
        is_last: Callable[[Message | None], bool],
        deadline: float | None = None,
    ) -> Iterator[Message]:
        """Stream server-sent events, reconnecting where a connection breaks.

        Args:
            path: path of the stream.
            query: its query.
            after: id of the last event received; earlier ones are skipped.
            is_last: called with each message, and with None when the server closes the stream; True ends the stream.
                Status 204 ends it, too.
            deadline: time of `time.monotonic()` at which the stream ends in any case.
        """
        last = after
        contact = _Contact(time.monotonic())
        delay = _FIRST_DELAY
        opened = False
        while not _deadline_passed(deadline):
            try:
                headers = {"accept": "text/event-stream", **({"last-event-id": str(last)} if last else {})}
                with self._open("GET", path, query=query, headers=headers) as response:
                    opened = True
                    if response.status == 204:
                        return
                    chunks = contact.during(_chunks(response, deadline, self.timeout))
                    for message in sse.messages(chunks):
                        contact.at, delay = time.monotonic(), _FIRST_DELAY
                        if message.id and message.id <= last:
                            continue
                        last = message.id or last
                        yield message
                        if is_last(message):
                            return
                        contact.at = time.monotonic()
                if _deadline_passed(deadline) or is_last(None):
                    return
                raise _StreamEndedError("the platform ended the stream")
            except NotFoundError:
                # A platform that has just restarted may not have read its log yet.
                if not opened:
                    raise
                contact.at, delay = self._pause(
                    _RetryableError("the platform does not know the run"), contact.at, delay
                )
            except (_RetryableError, NoPlatformError, OSError, http.client.HTTPException) as error:
                contact.at, delay = self._pause(error, contact.at, delay)

    def events(self, method: str, path: str, *, body: object, timeout: float) -> Iterator[Message]:
        """Send `body` as JSON, and yield the server-sent events of the response; `timeout` is between two of them.

        Once the response has begun, nothing is repeated: `UnreachableError` says that the connection broke.
        """
        headers = {"content-type": "application/json", "accept": "text/event-stream"}
        data = json.dumps(body, default=_fields).encode()
        with self._retry(lambda: self._open(method, path, body=data, headers=headers)) as response:
            response.patience(timeout)
            try:
                yield from sse.messages(_chunks(response, None, timeout))
            except (OSError, http.client.HTTPException) as error:
                raise UnreachableError(f"the answer is incomplete: {_describe(error)}") from error

    # -------------------------------------------------------------------------------------------------- machinery

    def _retry(self, once: Callable[[], Any]) -> Any:
        since = time.monotonic()
        delay = _FIRST_DELAY
        while True:
            try:
                return once()
            except (_RetryableError, NoPlatformError, OSError, http.client.HTTPException) as error:
                since, delay = self._pause(error, since, delay)

    @property
    def present_patience(self) -> float:
        """Seconds for which requests are repeated now: fewer until the platform has answered once."""
        return self.patience if self._answered_before else min(self.patience, _FIRST_PATIENCE)

    def _pause(self, error: Exception, since: float, delay: float) -> tuple[float, float]:
        """Sleep before the next attempt, or raise the final error when patience has run out."""
        if isinstance(error, NoPlatformError) and not self._answered_before:
            raise error
        patience = self.present_patience
        if time.monotonic() - since > patience:
            if isinstance(error, ClientError):
                raise error
            if isinstance(error, _RetryableError) and error.final is not None:
                raise error.final
            raise UnreachableError(
                f"the platform at {self._where()} did not answer for {patience:.0f} s ({_describe(error)}): "
                "run `penstock doctor` to find out why; accepted runs continue"
            ) from error
        if self.on_retry is not None and not isinstance(error, _StreamEndedError):
            self.on_retry(_describe(error))
        wait = error.wait if isinstance(error, _RetryableError) else 0.0
        time.sleep(min(max(delay, wait), 10.0))
        return since, min(delay * 2, _LONGEST_DELAY)

    def _where(self) -> str:
        try:
            return self.locate().url
        except ClientError:
            return "its last address"

    def _open(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: bytes | IO[bytes] | None = None,
        size: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> _Response:
        """Send the request once; raise `RefusedError`, `_RetryableError` or a connection error."""
        address = self.locate()
        sent = {"authorization": f"Bearer {address.token}", **(headers or {})} if address.token else dict(headers or {})
        if self.project:
            sent.setdefault("penstock-project", self.project)
        if step_environment.TRACEPARENT in os.environ:  # of a step, or of what else has a trace
            sent.setdefault("traceparent", os.environ[step_environment.TRACEPARENT])
        if size is not None:
            sent["content-length"] = str(size)
        if query:
            path = f"{path}?{urllib.parse.urlencode({k: v for k, v in query.items() if v is not None}, doseq=True)}"
        response = self._send(address.url, path, method, body, sent)
        if response.status in (301, 302, 303, 307, 308):
            # A presigned URL of the artifact store must not receive our token.
            onward = response.getheader("location", "")
            granted = json.loads(response.getheader("penstock-send-headers") or "{}")
            response.close()
            kept = {name: value for name, value in sent.items() if name in ("range", "accept", "content-length")}
            kept |= {name.lower(): value for name, value in granted.items()}
            if body is not None and not isinstance(body, bytes):
                body.seek(0)
            response = self._send(onward, "", method, body, kept)
            if method == "PUT" and response.status in (409, 412):
                # Another client uploaded the same object: its digest is its name, so the contents are equal.
                self._answered_before = True
                return response
        self._answered_before = True
        if response.status >= 400:
            with response:
                raise _error_for(response, path)
        return response

    def _send(
        self, url: str, path: str, method: str, body: bytes | IO[bytes] | None, headers: Mapping[str, str]
    ) -> _Response:
        parts = urllib.parse.urlsplit(url + path)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ClientError(
                f"{url!r} is not a URL of a platform: set PENSTOCK_URL to one such as http://127.0.0.1:8765"
            )
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname, parts.port, timeout=self.timeout, blocksize=CHUNK)
        try:
            target = parts.path + (f"?{parts.query}" if parts.query else "")
            # A server that rejects an upload early closes the connection while we send; its response can still be read.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, target or "/", body=body, headers=dict(headers))
            return _Response(connection)
        except BaseException:
            connection.close()
            raise


def _deadline_passed(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() >= deadline


class _Response:
    """A response that closes its connection when it is closed."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self._connection = connection
        # The connection drops its reference to the socket when the server sends `connection: close`.
        self._socket = connection.sock
        self._response = response = connection.getresponse()
        self.status = response.status
        self.headers = response.headers
        self.read = response.read
        self.read1 = response.read1
        self.getheader = response.getheader

    def patience(self, seconds: float) -> None:
        """Set the time-out of the next read."""
        if self._socket is not None:
            self._socket.settimeout(max(seconds, 0.001))

    def close(self) -> None:
        self._response.close()
        self._connection.close()

    def __enter__(self) -> _Response:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _error_for(response: _Response, path: str) -> Exception:
    """Return the error for a response of status 400 and above, from its problem document (RFC 9457)."""
    text = response.read(CHUNK)
    try:
        problem = json.loads(text)
        title, detail = str(problem.get("title") or ""), str(problem.get("detail") or "")
        named = tuple((str(one["field"]), str(one["message"])) for one in problem.get("errors") or ())
    except (ValueError, AttributeError, KeyError, TypeError):
        title, detail, named = "", "", ()
    status = response.status
    if status in RETRYABLE_STATUSES:
        try:
            wait = float(response.getheader("retry-after", "0") or 0)
        except ValueError:
            wait = 0.0
        # A limit answers, so the platform is not unreachable.
        final = RefusedError(status, title, detail) if status == 429 else None
        return _RetryableError(detail or title or f"the platform answered {status}", wait, final)
    if status == 401 or status == 403:
        return UnauthorizedError(status, title, detail or "the platform rejected the token: check PENSTOCK_TOKEN")
    if status == 404:
        return NotFoundError(status, title, detail or f"not found: {path}")
    if status >= 500:
        return RefusedError(status, title, detail or f"the platform failed ({status}): see its log")
    return RefusedError(status, title, detail or f"the platform rejected the request ({status})", named)


@dataclass(slots=True)
class _Contact:
    """When the platform was heard from last, by `time.monotonic()`."""

    at: float

    def during(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Pass on the chunks of a stream. Comments among them keep a stream without messages open for hours."""
        for number, chunk in enumerate(chunks):
            if number:  # every stream begins with a comment, also one that ends at once
                self.at = time.monotonic()
            yield chunk


def _chunks(response: _Response, deadline: float | None, timeout: float) -> Iterator[bytes]:
    """Yield the bytes of a stream as they arrive, until the deadline."""
    while not _deadline_passed(deadline):
        if deadline is not None:
            response.patience(min(deadline - time.monotonic(), timeout))
        chunk = response.read1(65536)
        if not chunk:
            return
        yield chunk


def _describe(error: BaseException) -> str:
    if isinstance(error, ClientError | _RetryableError):
        return str(error)
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, http.client.HTTPException | ConnectionError):
        return "the connection broke"
    return str(error).strip() or type(error).__name__


def _fields(value: object) -> object:
    """Serialize the dataclasses of the core."""
    slots: tuple[str, ...] | None = getattr(type(value), "__slots__", None)
    if slots is None or not hasattr(type(value), "__dataclass_fields__"):
        raise TypeError(f"{type(value).__name__} is not JSON serializable")
    return {name: getattr(value, name) for name in slots}
