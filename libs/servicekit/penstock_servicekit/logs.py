"""Structured logs: one JSON object a line, or coloured lines for people on a terminal.

Names, reasons and errors of users cannot control the terminal on which a log is read.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any, TextIO

import orjson
import structlog

from penstock_core.terminal_text import printable, printable_json


def configure(level: str, form: str, stream: TextIO | None = None) -> None:
    """Configure structlog, and route the standard library's logging through it."""
    out = stream or sys.stderr
    human = form == "human" or (form == "auto" and out.isatty())
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback)
        if human
        else structlog.processors.JSONRenderer(serializer=_as_json)
    )
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    if human:
        shared.append(_printable_values)
    number = logging.getLevelNamesMapping().get(level.upper(), logging.INFO)
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    handler.addFilter(_should_log)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(number, logging.WARNING))


def _as_json(data: Any, **_: Any) -> str:
    return printable_json(orjson.dumps(data, default=str).decode())


def _printable_values(logger: Any, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Replace control characters in the texts of a log entry; other values are rendered as their `repr`."""
    return {name: printable(value) if isinstance(value, str) else value for name, value in event.items()}


def _should_log(record: logging.LogRecord) -> bool:
    """Drop the error that nats-py logs when a PONG arrives after its timeout."""
    error = record.exc_info[1] if record.exc_info else None
    return not (record.name.startswith("nats.") and isinstance(error, asyncio.InvalidStateError))


def get(service: str) -> structlog.typing.FilteringBoundLogger:
    """Return the logger of a service."""
    return structlog.get_logger(service=service)
