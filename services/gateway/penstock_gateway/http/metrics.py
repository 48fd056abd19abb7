"""Counters of HTTP requests for Prometheus, by operation of the API."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

REQUESTS = Counter("penstock_http_requests", "Requests that were answered.", ["operation", "method", "status"])
SECONDS = Histogram(
    "penstock_http_request_seconds",
    "Time until the end of the response.",
    ["operation"],
    buckets=(0.005, 0.02, 0.1, 0.5, 2, 10, 60, 300),
)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def count(operation: str | None, method: str, status: int | None, seconds: float) -> None:
    """Count a request. Clients choose paths and methods freely, so unknown ones are counted together.

    Args:
        operation: the function that serves the operation; None if none does, or the request was refused before.
        method: the HTTP method.
        status: the status that was sent; None if none was.
        seconds: time until the end of the response.
    """
    name = operation or "none"
    REQUESTS.labels(name, method if method in _METHODS else "other", f"{status // 100}xx" if status else "none").inc()
    SECONDS.labels(name).observe(seconds)
