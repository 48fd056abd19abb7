"""The body of a request to an endpoint: the inputs of its run, as JSON or as the parts of a form.

Files, and values that are too large for an event, are stored as artifacts, which the event refers to.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import itertools
import mimetypes
from dataclasses import asdict
from typing import IO, Any, cast

import orjson
from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect
from starlette.types import Message

from penstock_contracts import event_codec
from penstock_core import json_schema, parameter_texts
from penstock_core.errors import InputError, InvalidInputsError
from penstock_core.json_schema import kind
from penstock_core.pipeline.ir import Pipeline, Port
from penstock_core.pipeline.values import ArtifactRef
from penstock_gateway.artifacts.artifact_transfer import Artifacts
from penstock_gateway.endpoints import interface
from penstock_gateway.endpoints.form_parser import FieldsTooLargeError, FormParser
from penstock_gateway.http import bodies
from penstock_gateway.http.problems import RequestError

_FORM = "multipart/form-data"
_PARTS = 200
_PROBLEMS_SHOWN = 20
_STORED = 4 * 1024
"""Values of more bytes are stored as artifacts if the whole body is too large for an event."""

CONTENT: dict[str, Any] = {
    "application/json": {"schema": {"type": "object", "description": "inputs by parameter"}},
    _FORM: {"schema": {"type": "object", "description": "inputs by parameter: files, text, and other values as JSON"}},
}
"""The media types of bodies."""


async def read(request: Request, pipeline: Pipeline, artifacts: Artifacts, limit: int) -> dict[str, Any]:
    """Return the inputs in a request; none if its body is empty.

    Args:
        request: the request.
        pipeline: the one that runs.
        artifacts: where files and large values are stored.
        limit: the largest form in bytes.

    Raises:
        RequestError: the body cannot be read.
        InvalidInputsError: a large value does not fit its parameter.
    """
    ports = {port.name: port for port in pipeline.params}
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() == _FORM:
        inputs = await _form(request, ports, artifacts, limit)
    else:
        inputs = await _json(request)
    if len(orjson.dumps(inputs)) <= event_codec.DATA_LIMIT:
        return inputs
    return {name: await _small(name, value, ports.get(name), artifacts) for name, value in inputs.items()}


async def _json(request: Request) -> dict[str, Any]:
    raw = await bodies.read_bytes(request, bodies.JSON_LIMIT)
    if not raw.strip():
        return {}
    bodies.check_media_type(request)
    found = bodies.parse_json(raw)
    if not isinstance(found, dict):
        message = f"must be a JSON object with the inputs by name, not {kind(found)}"
        raise RequestError(422, f"The body {message}", errors=[("body", message)])
    return cast("dict[str, Any]", found)


# ----------------------------------------------------------------------------------------------------------------- form


async def _form(request: Request, ports: dict[str, Port], artifacts: Artifacts, limit: int) -> dict[str, Any]:
    bodies.check_length(request, limit)
    limited = Request(request.scope, _Limited(request, limit))
    parser = FormParser(
        request.headers, limited.stream(), max_files=_PARTS, max_fields=_PARTS, max_part_size=bodies.JSON_LIMIT
    )
    try:
        form = await parser.parse()
    except FieldsTooLargeError as error:
        raise RequestError(413, error.message, headers={"connection": "close"}) from error
    except MultiPartException as error:
        raise RequestError(400, f"The form cannot be read: {error.message}") from error
    except ClientDisconnect as error:
        raise RequestError(400, "The body is incomplete: the connection was closed before its end") from error
    try:
        _check_once(form)
        _check_values(form, ports)
        return {name: await _part(name, part, ports.get(name), artifacts) for name, part in form.items()}
    finally:
        await form.close()


class _Limited:
    """Receives a request's body up to a number of bytes."""

    def __init__(self, request: Request, limit: int) -> None:
        self._request = request
        self._limit = self._left = limit

    async def __call__(self) -> Message:
        message = await self._request.receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise bodies.too_large(self._limit)
        return message


def _check_once(form: FormData) -> None:
    names = [name for name, _ in form.multi_items()]
    if twice := {name for name in names if names.count(name) > 1}:
        message = "is given more than once"
        raise RequestError(
            422, f"Part {min(twice)[:100]!r} {message}", errors=[(name[:100], message) for name in sorted(twice)]
        )


def _check_values(form: FormData, ports: dict[str, Port]) -> None:
    """Refuse values, which are read into memory, of more than `JSON_LIMIT` bytes together."""
    total = 0
    for name, part in form.items():
        port = ports.get(name)
        if isinstance(part, str):
            total += len(part.encode())
        elif port is None or not interface.is_file(port):
            total += part.size or 0
        if total > bodies.JSON_LIMIT:
            message = f"and the values before it have more than {bodies.JSON_LIMIT} bytes, the limit of all values"
            raise RequestError(413, f"Part {name[:100]!r} {message}", errors=[(name[:100], message)])


async def _part(name: str, part: UploadFile | str, port: Port | None, artifacts: Artifacts) -> Any:
    if isinstance(part, str):
        return _value(part.encode(), port)
    if port is not None and interface.is_file(port):
        return await _file(part, artifacts)
    return _value(await part.read(), port)


def _value(raw: bytes, port: Port | None) -> Any:
    """Return a part as the value that its parameter takes; what cannot be read stays text, which is refused later."""
    text = raw.decode("utf-8", "replace")
    try:
        return parameter_texts.parse(text, port.schema if port is not None else None)
    except InputError:
        return text


async def _file(part: UploadFile, artifacts: Artifacts) -> dict[str, Any]:
    sha256, size = await asyncio.to_thread(_digest, part.file)
    await artifacts.add(part.file, sha256, size)
    name = (part.filename or "file").replace("\\", "/").rpartition("/")[2]
    media_type = part.content_type or mimetypes.guess_type(name)[0] or "application/octet-stream"
    reference = ArtifactRef(
        sha256=sha256, size=size, media_type=media_type, format="file", filename=name, python_type="pathlib:Path"
    )
    return {"artifact": asdict(reference)}


def _digest(file: IO[bytes]) -> tuple[str, int]:
    file.seek(0)
    digest = hashlib.file_digest(cast("io.BufferedIOBase", file), "sha256").hexdigest()
    return digest, file.tell()


# --------------------------------------------------------------------------------------------------------- large values


async def _small(name: str, value: Any, port: Port | None, artifacts: Artifacts) -> Any:
    """Return a value, or a reference to it if it is large."""
    data = orjson.dumps(value)
    if len(data) <= _STORED or port is None:
        return value
    # The run sees a reference, so this is the only check of the value.
    wrong = [*itertools.islice(json_schema.problems(value, port.schema), _PROBLEMS_SHOWN)]
    if wrong:
        raise InvalidInputsError("Invalid request", [(f"{name}{path}", message) for path, message in wrong])
    sha256 = hashlib.sha256(data).hexdigest()
    await artifacts.add(io.BytesIO(data), sha256, len(data))
    reference = ArtifactRef(
        sha256=sha256,
        size=len(data),
        media_type="application/json",
        format="json",
        python_type=f"builtins:{type(value).__name__}",
        items=len(cast("list[Any]", value)) if isinstance(value, list) else None,
    )
    return {"artifact": asdict(reference)}
