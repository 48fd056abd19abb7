"""CloudEvents 1.0 over HTTP: structured (body), binary (attributes as headers, data as body), or a batch of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import unquote

from fastapi import Request

from penstock_contracts import event_codec
from penstock_contracts.event_codec import InvalidEventError
from penstock_core import run_events
from penstock_core.deployments.events import Event
from penstock_core.json_schema import kind
from penstock_gateway.errors import UnprocessableError
from penstock_gateway.http import bodies

BATCH = "application/cloudevents-batch+json"

BATCH_LIMIT = 1_000
"""Most events in a batch."""

BODY_LIMIT = event_codec.DATA_LIMIT + 64 * 1024
"""Largest body of one event in bytes: its data and attributes."""

BATCH_BODY_LIMIT = 8 * 1024 * 1024


def is_batch(request: Request) -> bool:
    """Whether the body is a list of events."""
    return request.headers.get("content-type", "").split(";")[0].strip().lower() == BATCH


async def read(request: Request, project: str) -> list[Event]:
    """Return the events in a request: one, or those of a batch.

    Raises:
        RequestError: 400, 413 or 415, the body cannot be read.
        UnprocessableError: with the attributes that are missing or invalid.
    """
    if is_batch(request):
        found = bodies.parse_json(await bodies.read_bytes(request, BATCH_BODY_LIMIT))
        return _batch(project, found)
    raw = await bodies.read_bytes(request, BODY_LIMIT)
    if "ce-type" not in request.headers:
        bodies.check_media_type(request)
        return [_event(project, bodies.parse_json(raw))]
    if raw.strip():
        bodies.check_media_type(request)
    attributes = {
        name[3:]: unquote(value) for name, value in request.headers.items() if name.startswith("ce-") and value
    }
    try:
        return [_sent(project, attributes, bodies.parse_json(raw) if raw.strip() else None)]
    except InvalidEventError as error:
        raise _refused(error.errors) from error


def _batch(project: str, found: Any) -> list[Event]:
    if not isinstance(found, list):
        raise _refused([("body", f"must be a list of CloudEvents, not {kind(found)}")])
    given = cast("list[Any]", found)
    if not 0 < len(given) <= BATCH_LIMIT:
        raise _refused([("body", f"has {len(given)} events; a batch has 1 to {BATCH_LIMIT}")])
    events: list[Event] = []
    errors: list[tuple[str, str]] = []
    for n, one in enumerate(given):
        try:
            events.append(_sent(project, *event_codec.structured(one)))
        except InvalidEventError as error:
            errors += [(f"[{n}].{attribute}", message) for attribute, message in error.errors]
    if errors:
        raise _refused(errors)
    return events


def _event(project: str, found: Any) -> Event:
    try:
        return _sent(project, *event_codec.structured(found))
    except InvalidEventError as error:
        raise _refused(error.errors) from error


def _sent(project: str, attributes: Mapping[str, Any], data: Any) -> Event:
    """Return an event of a client.

    Raises:
        InvalidEventError: an attribute is missing or invalid, or the source or type is one of the platform.
    """
    event = event_codec.event(project, attributes, data)
    if (problem := run_events.sent_problem(event, cli=True)) is not None:
        raise InvalidEventError([problem])
    return event


def _refused(errors: list[tuple[str, str]]) -> UnprocessableError:
    detail = "; ".join(f"{path} {message}" for path, message in errors[:20])
    return UnprocessableError("The event is invalid", detail, errors=errors[:100])
