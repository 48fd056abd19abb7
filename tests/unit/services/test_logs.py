"""Logs of services."""

from __future__ import annotations

import asyncio
import io
import logging
import re
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


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("form", ["human", "json"])
def test_logged_text_cannot_control_the_terminal(form: str) -> None:
    hostile = "owned\x1b[2J\x1b]0;title\x07\x9b6n\u202e\x7f"
    out = Terminal()
    logs.configure("info", form, out)
    log = logs.get("gateway")
    try:
        raise ValueError(hostile)
    except ValueError:
        log.exception(hostile, reason=hostile, labels={"a": [hostile]}, error=ValueError(hostile))
        logging.getLogger("library").exception("failed: %s", hostile)
    printed = out.getvalue()
    assert printed.count("owned") == 7
    left = re.sub(r"\x1b\[[0-9;]*m", "", printed)
    assert not re.findall("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", left), left
    assert "\x1b[8m" not in printed
