"""Endpoints: call deployments as functions: `Client.endpoints`."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from penstock.client import project as projects
from penstock.client.artifacts.artifacts import Artifacts
from penstock.client.http.transport import Transport
from penstock.client.runs.inputs import encode_inputs
from penstock.errors import RefusedError, UnreachableError

_WAIT = 20.0
"""Seconds that one request waits for the run; shorter than the timeout of a response."""


class Endpoints:
    """`Client.endpoints`: call endpoints, and read their types."""

    def __init__(self, transport: Transport, artifacts: Artifacts) -> None:
        self._transport = transport
        self._artifacts = artifacts
        self._modes: dict[str, str] = {}

    def call(
        self,
        name: str,
        inputs: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        idempotency_key: str | None = None,
    ) -> Any:
        """Call an endpoint and return the output of its run, as JSON data.

        A request that is repeated because the connection broke starts no second run, except on an endpoint with mode
        `low_latency` without an `idempotency_key`: there it may run twice. While the endpoint is at one of its limits,
        the call is repeated, for as long as other requests of this client are.

        Args:
            name: name of the deployment.
            inputs: values by parameter; see `Runs.submit`.
            timeout: seconds to wait for the run; None: until it has finished.
            idempotency_key: calls with the same key are one request, which is stored before it runs; default: a new
                one, or none with mode `low_latency`.

        Raises:
            RefusedError: the inputs do not fit, the deployment is paused, or the run did not succeed.
            NotFoundError: there is no such endpoint.
            TimeoutError: the run has not finished in time; it continues.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        if idempotency_key is None and self._mode(name) == "elastic":
            idempotency_key = secrets.token_hex(16)
        headers = {"idempotency-key": idempotency_key} if idempotency_key is not None else {}
        path, body = _path(self._transport, name), encode_inputs(self._artifacts, inputs or {})
        method = "POST"
        while True:
            wait = _WAIT if deadline is None else max(0.0, min(_WAIT, deadline - time.monotonic()))
            status, received, answer = self._transport.response(
                method, f"{path}?wait={wait:.3f}", body=body if method == "POST" else None, headers=headers
            )
            if status != 202:
                return answer
            method, path = "GET", received["location"]
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"the run of endpoint {name} has not finished; its answer will be at {path}")

    def stream(self, name: str, inputs: Mapping[str, Any] | None = None, *, timeout: float = 60.0) -> Iterator[Any]:
        """Call an endpoint whose output is the items that a step yields, and yield them as they come.

        Nothing is repeated: an error ends the iterator. Closing it cancels the request.

        Args:
            name: name of the deployment.
            inputs: values by parameter; see `Runs.submit`.
            timeout: seconds to wait for the next item.

        Raises:
            RefusedError: the inputs do not fit, the pipeline yields no items, or the run has failed.
            NotFoundError: there is no such endpoint.
            UnreachableError: the connection broke.
        """
        body = encode_inputs(self._artifacts, inputs or {})
        for message in self._transport.events("POST", _path(self._transport, name), body=body, timeout=timeout):
            if message.event == "end":
                return
            if message.event == "error":
                found = message.data
                raise RefusedError(int(found["status"]), str(found["title"]), str(found["detail"]))
            yield message.data
        raise UnreachableError(f"the answer of endpoint {name} ended before its last item")

    def _mode(self, name: str) -> str:
        """Return how the requests of an endpoint run; read once."""
        if name not in self._modes:
            self._modes[name] = self.schema(name).get("mode", "elastic")
        return self._modes[name]

    def schema(self, name: str) -> dict[str, Any]:
        """Return JSON Schemas of `input` and `output`, an `example` of the inputs, and which of them are `files`.

        Raises:
            NotFoundError: there is no such endpoint.
        """
        return self._transport.json("GET", f"{_path(self._transport, name)}/schema")


def _path(transport: Transport, name: str) -> str:
    return f"/v1/endpoints/{transport.project or projects.DEFAULT}/{quote(name, safe='')}"
