"""Artifacts of JSON that callers of an endpoint give: they may not have a path or a class in them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import IO

import orjson

from penstock_core.errors import InvalidInputsError
from penstock_core.pipeline.values import ArtifactRef, Stored, Value
from penstock_gateway.artifacts.artifact_transfer import Artifacts
from penstock_gateway.endpoints import input_rules
from penstock_gateway.http import bodies


async def check(artifacts: Artifacts, given: Iterable[str], inputs: Mapping[str, Value]) -> None:
    """Check the artifacts of JSON among the inputs of a run that its caller has given, by name.

    Raises:
        InvalidInputsError: one has a path or a class in it, is too large, or cannot be read.
    """
    for name in given:
        value = inputs.get(name)
        if isinstance(value, Stored) and value.artifact.format in input_rules.JSON_FORMATS:
            await _check_content(artifacts, name, value.artifact)


async def _check_content(artifacts: Artifacts, name: str, artifact: ArtifactRef) -> None:
    file = await artifacts.open(artifact)
    try:
        problem = await asyncio.to_thread(_content_problem, file, artifact.format)
    finally:
        file.close()
    if problem:
        raise InvalidInputsError("Invalid request", [(name, problem)])


def _content_problem(file: IO[bytes], format: str) -> str:
    data = file.read(bodies.JSON_LIMIT + 1)
    if len(data) > bodies.JSON_LIMIT:
        return f"is JSON of more than {bodies.JSON_LIMIT} bytes: send a file or a table"
    try:
        parts = [orjson.loads(line) for line in (data.splitlines() if format == "jsonl" else [data])]
    except orjson.JSONDecodeError as error:
        return f"is not JSON: {error}"
    return input_rules.tag_problem(parts)
