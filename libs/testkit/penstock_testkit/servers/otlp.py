"""A receiver of traces by OTLP over HTTP, as a process of its own, which decodes them by OpenTelemetry's schema."""

from __future__ import annotations

import json
import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from penstock_testkit.servers.child import Child
from penstock_testkit.servers.ports import free_ports


class OtlpReceiver:
    """The receiver; `spans` returns what it has received."""

    def __init__(self, folder: Path) -> None:
        self.url = f"http://127.0.0.1:{free_ports(1)[0]}"
        self._folder = folder
        self._child: Child | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [sys.executable, "-m", "penstock_testkit.servers.otlp", self.url.rpartition(":")[2]]
        self._child = Child("otlp", command, self._folder / "otlp.log", self._folder)
        self._child.wait_until(self._answers, 30)

    def stop(self) -> None:
        """Stop it."""
        if self._child is not None:
            self._child.stop()

    def spans(self) -> list[dict[str, Any]]:
        """Return the spans: ids in hexadecimal, names, times in Unix nanoseconds, attributes."""
        with urllib.request.urlopen(self.url, timeout=10) as answer:  # noqa: S310 - on loopback
            return json.load(answer)

    def _answers(self) -> bool:
        try:
            self.spans()
        except OSError:
            return False
        return True


def _serve(port: int) -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (  # only this process needs it
        ExportTraceServiceRequest,
        ExportTraceServiceResponse,
    )

    received: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            request = ExportTraceServiceRequest.FromString(body)
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    received.extend(_read(span) for span in scope.spans)
            self._answer(ExportTraceServiceResponse().SerializeToString(), "application/x-protobuf")

        def do_GET(self) -> None:
            self._answer(json.dumps(received).encode(), "application/json")

        def _answer(self, body: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


def _read(span: Any) -> dict[str, Any]:
    return {
        "trace": span.trace_id.hex(),
        "span": span.span_id.hex(),
        "parent": span.parent_span_id.hex(),
        "name": span.name,
        "start": span.start_time_unix_nano,
        "end": span.end_time_unix_nano,
        "error": span.status.message,
        "attributes": {one.key: one.value.string_value or one.value.int_value for one in span.attributes},
    }


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
