"""The output of a run as the answer of an endpoint: plain JSON, with links in place of artifacts that are not JSON."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterable
from typing import IO, Any

import orjson

from penstock_adapters.nats.archived_log import ArchivedLog
from penstock_adapters.nats.results import Results
from penstock_core.facts import RunFinished
from penstock_core.pipeline import tagged, values
from penstock_core.pipeline.values import ArtifactRef, Value
from penstock_gateway.artifacts.artifact_transfer import Artifacts

INLINE_LIMIT = 8 * 1024 * 1024
"""Most bytes of JSON artifacts that are part of one answer; those beyond it are links."""

Contents = dict[tuple[str, str], Any]
"""Content of artifacts by digest and format."""


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
        found = await self.values(end)
        contents = await self._contents(found.values())
        plain = {name: _plain(value, link, contents) for name, value in found.items()}
        return plain["result"] if [*plain] == ["result"] else plain

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

    async def _contents(self, several: Iterable[Value]) -> Contents:
        """Return the content of the artifacts that are JSON, as far as they fit into one answer."""
        found: Contents = {}
        left = INLINE_LIMIT
        for reference in (one for value in several for one in values.references(value)):
            if reference.format in _READERS and _key(reference) not in found and reference.size <= left:
                left -= reference.size
                found[_key(reference)] = await self._read(reference)
        return found

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


def _key(reference: ArtifactRef) -> tuple[str, str]:
    return reference.sha256, reference.format


def _plain(value: Value, link: str, contents: Contents) -> Any:
    match value:
        case values.Inline(inline):
            return inline
        case values.Items(items):
            return [_plain(item, link, contents) for item in items]
        case values.Fields(fields):
            return {name: _plain(item, link, contents) for name, item in fields.items()}
        case values.Stored(reference) if _key(reference) in contents:
            return contents[_key(reference)]
        case values.Element(values.Stored(reference), path) if _key(reference) in contents:
            return functools.reduce(tagged.element, path, contents[_key(reference)])
        case _:
            return _link(next(values.references(value)), link)


def _link(reference: ArtifactRef, link: str) -> dict[str, Any]:
    return {
        "href": link + reference.sha256,
        "sha256": reference.sha256,
        "size": reference.size,
        "media_type": reference.media_type,
        **({"filename": reference.filename} if reference.filename else {}),
    }
