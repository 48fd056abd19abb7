"""Logs of services."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Iterator

import pytest
import structlog

from penstock_servicekit import logs


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def test_an_unexpected_pong_is_not_an_error() -> None:
    out = io.StringIO()
    logs.configure("info", "json", out)
    log = logging.getLogger("nats.aio.client")
    for error in (asyncio.InvalidStateError("invalid state"), OSError("broken pipe")):
        try:
            raise error
        except Exception:
            log.exception("nats: encountered error")
    output = out.getvalue()
    assert "broken pipe" in output
    assert "InvalidStateError" not in output
