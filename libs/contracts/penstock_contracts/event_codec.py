"""The codec of events in the stream `EVENTS`: the NATS binding of CloudEvents 1.0.

Binary mode has the attributes as headers (`ce-id`, `ce-source`, `ce-type`, …) and the payload as body. Structured mode
has all of it as one JSON object, with the content type `application/cloudevents+json`. Both can be read; Penstock
writes binary mode. The subject `events.{project}.{type}` has the type.

Values of headers are percent-encoded, as in the HTTP binding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, cast
from urllib.parse import quote, unquote

import orjson

from penstock_contracts import subjects
from penstock_core import ids
from penstock_core.deployments.definition import is_event_type
from penstock_core.deployments.events import Event, event_digest
from penstock_core.errors import PenstockError
from penstock_core.json_schema import kind

DATA_LIMIT = 64 * 1024
"""Largest payload as JSON, in bytes: it fits into the inputs of a run."""

DEPTH_LIMIT = 64
"""Deepest nesting of a payload."""

ATTRIBUTE_LIMIT = 1_000
"""Longest value of an attribute, in characters."""

EXTENSIONS_LIMIT = 30

JSON = "application/json"
STRUCTURED = "application/cloudevents+json"

_RESERVED = ("specversion", "id", "type", "source", "subject", "time", "datacontenttype", "dataschema", "data")


class InvalidEventError(PenstockError):
    """An event cannot be accepted. `errors` are pairs of an attribute and what is wrong there."""

    user_fault: ClassVar[bool] = True

    def __init__(self, errors: list[tuple[str, str]]) -> None:
        self.errors = errors
        super().__init__("; ".join(f"{attribute} {message}" for attribute, message in errors))


def event(project: str, attributes: Mapping[str, Any], data: Any, received_at: float = 0.0, sequence: int = 0) -> Event:
    """Return an event from its attributes by their CloudEvents names, and its payload.

    Raises:
        InvalidEventError: with every attribute that is missing or invalid.
    """
    found: list[tuple[str, str]] = []
    for name, value in attributes.items():
        if not (name.isascii() and name.isalnum() and name == name.lower() and len(name) <= 50):
            found.append((name[:50], "is not a name of an attribute: use lower-case letters and digits"))
        elif not isinstance(value, str | int | bool):
            found.append((name, f"must be text, an integer or true or false, not {kind(value)}"))
        elif len(str(value)) > ATTRIBUTE_LIMIT:
            found.append((name, f"has {len(str(value))} characters; the limit is {ATTRIBUTE_LIMIT}"))
    for name in ("id", "source", "type"):
        if not attributes.get(name):
            found.append((name, "is missing"))
        elif not isinstance(attributes[name], str):
            found.append((name, f"must be text, not {kind(attributes[name])}"))
    if not found and not is_event_type(attributes["type"]):
        found.append(("type", "must be words of letters, digits, '_' and '-', separated by dots"))
    extensions = {name: value for name, value in attributes.items() if name not in _RESERVED}
    if len(extensions) > EXTENSIONS_LIMIT:
        found.append(("extensions", f"are {len(extensions)}; the limit is {EXTENSIONS_LIMIT}"))
    problem = _data_problem(data)
    if problem:
        found.append(("data", problem))
    if found:
        raise InvalidEventError(found)
    return Event(
        project=project,
        type=attributes["type"],
        source=attributes["source"],
        id=attributes["id"],
        time=str(attributes.get("time") or ""),
        subject=str(attributes.get("subject") or ""),
        extensions=extensions,
        data=data,
        received_at=received_at,
        sequence=sequence,
    )


def subject(found: Event) -> str:
    """Return the subject of an event."""
    return subjects.event(found.project, found.type)


def headers(found: Event) -> dict[str, str]:
    """Return the attributes as headers, and the identity by which the broker drops duplicates."""
    named: dict[str, Any] = {
        **found.extensions,
        "specversion": "1.0",
        "id": found.id,
        "source": found.source,
        "type": found.type,
        "subject": found.subject,
        "time": found.time,
    }
    shown = {f"ce-{name}": quote(_text(value), safe=_SAFE) for name, value in named.items() if value != ""}
    identity = event_digest(found.project, found.source, found.id)
    return {**shown, "content-type": JSON, "Nats-Msg-Id": f"event.{identity}"}


def encode(found: Event) -> bytes:
    """Encode the payload as JSON."""
    return orjson.dumps(found.data)


def read(at: str, given: Mapping[str, str], body: bytes, received_at: float, sequence: int) -> Event:
    """Decode the message with subject `at`, in binary or structured mode.

    Raises:
        InvalidEventError: it is not an event.
    """
    project, type = _parse(at)
    named = {name.lower(): value for name, value in given.items()}
    content_type = named.get("content-type", JSON).split(";")[0].strip().lower()
    if len(body) > 2 * DATA_LIMIT:
        raise InvalidEventError([("data", f"has {len(body)} bytes; the limit is {DATA_LIMIT}")])
    if content_type == STRUCTURED:
        attributes, data = structured(_json(body))
    else:
        attributes = {name[3:]: unquote(value) for name, value in named.items() if name.startswith("ce-")}
        data = _json(body) if body.strip() else None
    attributes.setdefault("type", type)
    if attributes["type"] != type:
        raise InvalidEventError([("type", f"is {str(attributes['type'])[:100]!r}, but the subject has {type!r}")])
    return event(project, attributes, data, received_at, sequence)


def structured(found: Any) -> tuple[dict[str, Any], Any]:
    """Split a structured event into its attributes and its payload.

    Raises:
        InvalidEventError: it is not an object, or its payload is not JSON.
    """
    if not isinstance(found, dict):
        raise InvalidEventError([("body", f"must be a CloudEvent, not {kind(found)}")])
    attributes = {name: value for name, value in cast("dict[str, Any]", found).items() if value is not None}
    if "data_base64" in attributes:
        raise InvalidEventError([("data_base64", "is not supported; send JSON as `data`")])
    return attributes, attributes.pop("data", None)


# Printable ASCII except for the percent sign and the quotation mark, as in the HTTP binding.
_SAFE = "".join(chr(n) for n in range(0x21, 0x7F) if chr(n) not in '%"')


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _parse(at: str) -> tuple[str, str]:
    words = at.split(".", 2)
    if len(words) != 3 or words[0] != "events" or not ids.is_name(words[1]):
        raise InvalidEventError([("subject", "must be events.{project}.{type}")])
    return words[1], words[2]


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except (orjson.JSONDecodeError, RecursionError) as error:
        raise InvalidEventError([("data", f"is not JSON: {error}")]) from error


def _data_problem(data: Any) -> str:
    if _depth(data) > DEPTH_LIMIT:
        return f"is nested more than {DEPTH_LIMIT} levels deep"
    try:
        size = len(orjson.dumps(data))
    except (TypeError, ValueError) as error:
        return f"is not JSON: {error}"
    if size > DATA_LIMIT:
        return f"has {size} bytes as JSON; the limit is {DATA_LIMIT}: store it as an artifact and send a reference"
    return ""


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level and depth <= DEPTH_LIMIT + 1:
        depth += 1
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below += cast("dict[str, Any]", item).values()
            elif isinstance(item, list):
                below += cast("list[Any]", item)
        level = [item for item in below if isinstance(item, dict | list)]
    return depth
