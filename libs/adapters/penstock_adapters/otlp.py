"""Exports spans by OTLP over HTTP, with the SDK of OpenTelemetry (the extra `tracing`).

Best effort: spans wait in a bounded queue, and are dropped with a warning while the collector is away for long. Nothing
else of the platform waits for them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from penstock_core.errors import PenstockError
from penstock_core.tracing import Span

_QUEUE = 1000
"""Runs whose spans wait."""

_TIMEOUT = 10.0
_CLOSE = 3.0
_ERROR = 2000
"""Characters of an error."""


class TracingMissingError(PenstockError):
    """The libraries of the extra are not installed."""


class OtlpExporter:
    """Exports the spans of runs.

    Args:
        endpoint: URL of the collector, such as `http://collector:4318`. Headers, certificates and more: the standard
            variables `OTEL_EXPORTER_OTLP_*`.
        warn: writes to the log of the service.

    Raises:
        TracingMissingError: the extra `tracing` is not installed.
    """

    def __init__(self, endpoint: str, warn: Callable[..., None]) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # an optional extra
        except ImportError as error:
            raise TracingMissingError(
                f"PENSTOCK_OTLP_ENDPOINT is set, but {error.name} is missing: pip install 'penstock-platform[tracing]'"
            ) from error
        self._exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=_TIMEOUT)
        self._warn = warn
        self._waiting: asyncio.Queue[Sequence[Span]] = asyncio.Queue(_QUEUE)
        self._dropped = 0

    def add(self, spans: Sequence[Span]) -> None:
        """Export spans, later."""
        try:
            self._waiting.put_nowait(spans)
        except asyncio.QueueFull:
            self._dropped += 1

    async def run(self) -> None:
        """Export until cancelled."""
        while True:
            await self._export(await self._waiting.get())
            if self._dropped:
                self._warn("traces were dropped: the collector is too slow, or away", runs=self._dropped)
                self._dropped = 0

    async def close(self) -> None:
        """Export what waits, for a moment."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE):
                while not self._waiting.empty():
                    await self._export(self._waiting.get_nowait())
        await asyncio.to_thread(self._exporter.shutdown)

    async def _export(self, spans: Sequence[Span]) -> None:
        made = [_sdk_span(one) for one in spans]
        result = await asyncio.to_thread(self._exporter.export, made)
        if result.name != "SUCCESS":
            self._warn("a trace was not exported: the collector refuses it, or is away", trace=spans[0].id.trace)


def _sdk_span(span: Span) -> Any:
    from opentelemetry.sdk.resources import Resource  # an optional extra
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
    from opentelemetry.trace.status import Status, StatusCode

    def context(span_id: str, *, remote: bool = False) -> SpanContext:
        return SpanContext(int(span.id.trace, 16), int(span_id, 16), remote, TraceFlags(TraceFlags.SAMPLED))

    return ReadableSpan(
        name=span.name,
        context=context(span.id.span),
        parent=context(span.parent, remote=True) if span.parent else None,
        resource=Resource.create({"service.name": "penstock"}),
        attributes=dict(span.attributes),
        kind=SpanKind.CONSUMER,
        status=Status(StatusCode.ERROR, span.error[:_ERROR]) if span.error else Status(StatusCode.OK),
        start_time=int(span.started_at * 1e9),
        end_time=int(span.finished_at * 1e9),
    )
