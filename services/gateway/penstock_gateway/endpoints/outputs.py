"""The output of a run as the answer of an endpoint: plain JSON, with links in place of artifacts that are not JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import IO, Any

import orjson

from penstock_adapters.nats.archived_log import ArchivedLog
from penstock_adapters.nats.results import Results
from penstock_core.facts import RunFinished
from penstock_core.pipeline import values
from penstock_core.pipeline.values import ArtifactRef, Value
from penstock_gateway.artifacts.artifact_transfer import Artifacts

INLINE_LIMIT = 8 * 1024 * 1024
"""Largest JSON artifact in bytes that is part of an answer; larger ones are links."""


class Outputs:
    """Reads outputs of runs."""

    def __init__(self, log: ArchivedLog, artifacts: Artifacts) -> None:
        self._log = log
        self._artifacts = artifacts

    async def answer(self, end: RunFinished, link: str) -> Any:
        """Return the output of a run as JSON data: that of its only output, else an object by name.

        Args:
            end: the end of the run.
            link: URL of its artifacts; the digest is appended.

        Raises:
            NoSuchPartError: a part of a value does not exist.
            UnavailableError: the log or the store does not answer.
        """
        found = {name: await self._plain(value, link) for name, value in (await self.values(end)).items()}
        return found["result"] if [*found] == ["result"] else found

    async def artifact(self, end: RunFinished, sha256: str) -> ArtifactRef | None:
        """Return the artifact with a digest that an output refers to; None if none does."""
        for value in (await self.values(end)).values():
            for reference in values.references(value):
                if reference.sha256 == sha256:
                    return reference
        return None

    async def values(self, end: RunFinished) -> dict[str, Value]:
        """Return the outputs with their references to the log resolved."""
        results = Results(end.run_id, self._log.last)
        return {name: await results.value(value) for name, value in end.outputs.items()}

    async def _plain(self, value: Value, link: str) -> Any:
        match value:
            case values.Inline(inline):
                return inline
            case values.Items(items):
                return [await self._plain(item, link) for item in items]
            case values.Fields(fields):
                return {name: await self._plain(item, link) for name, item in fields.items()}
            case values.Stored(reference) if _is_readable(reference):
                return await self._read(reference)
            case values.Element(values.Stored(reference), path) if _is_readable(reference):
                return _part(await self._read(reference), path)
            case _:
                return _link(next(values.references(value)), link)

    async def _read(self, reference: ArtifactRef) -> Any:
        file: IO[bytes] = await self._artifacts.open(reference)
        with file:
            return await asyncio.to_thread(_READERS[reference.format], file)


_READERS: dict[str, Callable[[IO[bytes]], Any]] = {
    "json": lambda file: orjson.loads(file.read()),
    "jsonl": lambda file: [orjson.loads(line) for line in file],
    "text": lambda file: file.read().decode(),
}
"""How formats are read in which plain values are stored that are too large for a fact."""


def _is_readable(reference: ArtifactRef) -> bool:
    return reference.format in _READERS and reference.size <= INLINE_LIMIT


def _part(data: Any, path: tuple[int | str, ...]) -> Any:
    for step in path:
        data = data[step]
    return data


def _link(reference: ArtifactRef, link: str) -> dict[str, Any]:
    return {
        "href": link + reference.sha256,
        "sha256": reference.sha256,
        "size": reference.size,
        "media_type": reference.media_type,
        **({"filename": reference.filename} if reference.filename else {}),
    }
