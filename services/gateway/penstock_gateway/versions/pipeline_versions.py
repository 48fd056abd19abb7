"""Pipeline versions: registered by the builder, read from their bucket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, cast

import orjson
import pydantic

from penstock_adapters.nats.buckets.versions import Versions
from penstock_adapters.nats.bus import Bus
from penstock_contracts import subjects
from penstock_contracts.api import RegisterBody, VersionList, VersionRegistered, VersionSummary, VersionView
from penstock_contracts.commands import Publications, Version, VersionReply
from penstock_core import ids, script_runs
from penstock_core.errors import UnavailableError
from penstock_core.pipeline.ir import Pipeline
from penstock_gateway.errors import BadReplyError, ConflictError, NotFoundError, UnprocessableError
from penstock_gateway.http.problems import field_errors, sentence
from penstock_gateway.message_size import check_message_size

REGISTER_TIMEOUT = 30.0

_PIPELINE: pydantic.TypeAdapter[Pipeline] = pydantic.TypeAdapter(Pipeline)


class PipelineVersions:
    """Registers, lists and gets pipeline versions of one project.

    Args:
        bus: the message bus.
        store: reads versions.
        is_reachable: returns whether the project can read an object, if it exists.
        project: the project.
    """

    def __init__(self, bus: Bus, store: Versions, is_reachable: Callable[[str], Awaitable[bool]], project: str) -> None:
        self._bus = bus
        self._is_reachable = is_reachable
        self._project = project
        self._store = store

    async def register(self, body: RegisterBody, by: str) -> VersionRegistered:
        """Have the builder register a version; `by` is the principal that publishes it.

        Raises:
            UnprocessableError: with what is wrong with the pipeline.
            ContentTooLargeError: the pipeline does not fit into a message.
        """
        try:
            pipeline = _PIPELINE.validate_python(body.pipeline)
        except pydantic.ValidationError as error:
            errors = [(f"pipeline.{field}", message) for field, message in field_errors(error)]
            raise UnprocessableError("Invalid pipeline definition", sentence(errors), errors=errors) from error
        unknown = [(field, "is unknown") for field in unknown_fields(body.pipeline, _PIPELINE.dump_python(pipeline))]
        if unknown:
            raise UnprocessableError("Invalid pipeline definition", sentence(unknown), errors=unknown)
        if not await self._is_reachable(body.source):
            # The builder would say the same: whether another project has the object is not said.
            text = f"the source bundle {body.source} is not in the artifact store: put it there, then register again"
            raise UnprocessableError("The pipeline cannot be registered", text)
        message = orjson.dumps({"project": self._project, **body.model_dump(), "by": by})
        check_message_size(self._bus, len(message), "pass large constants as files or artifacts, or split the pipeline")
        answer = await self._bus.request(subjects.BUILDER_REGISTER, message, timeout=REGISTER_TIMEOUT)
        try:
            reply = VersionReply.model_validate_json(answer.data)
        except pydantic.ValidationError as error:
            raise BadReplyError("The builder sent an invalid reply", sentence(field_errors(error))) from error
        if reply.unavailable:
            raise UnavailableError(reply.error or "the builder is not available")
        if reply.version is None:
            raise UnprocessableError("The pipeline cannot be registered", reply.error or "the builder gave no reason")
        return VersionRegistered(
            project=self._project,
            pipeline=str(body.pipeline["name"]),
            version=reply.version,
            created=reply.created,
            published=reply.published,
        )

    async def list(self, pipeline: str | None) -> VersionList:
        """Return all versions, or those of one pipeline, oldest first; unreadable ones by name and number."""
        if pipeline is not None:
            ids.check_name(pipeline, "pipeline")
        published = await self._store.publications(self._project, pipeline)
        found, unreadable = await self._store.list(self._project, pipeline)
        summaries = [_summary(version, published.get(version.name)) for version in found]
        return VersionList(versions=summaries, unreadable=unreadable)

    async def view(self, pipeline: str, number: int) -> VersionView:
        """Return a version, and whether it is published.

        Raises:
            NotFoundError: it does not exist.
        """
        found = await self.get(pipeline, number)
        return VersionView(**dict(found), **_publication(found, await self.publications(pipeline)))

    async def publications(self, pipeline: str) -> Publications | None:
        """Return the published versions of a pipeline; None when there are none."""
        return await self._store.published(self._project, pipeline)

    async def is_experiment(self, pipeline: str, number: int) -> bool:
        """Return whether a version is not published now. That of scripts never is."""
        return await self._store.is_experiment(self._project, pipeline, number)

    async def exists(self, pipeline: str) -> bool:
        """Return whether a pipeline has a version, published or not."""
        return await self._store.exists(self._project, pipeline)

    async def find(self, pipeline: str, number: int) -> Version | None:
        """Return a version, or None when it does not exist."""
        return await self._store.get(self._project, pipeline, number) if 0 < number < 2**53 else None

    async def get(self, pipeline: str, number: int | None) -> Version:
        """Return a version, by default the latest published one.

        Raises:
            NotFoundError: the pipeline or the version does not exist, or none is published.
            ConflictError: the name is that of a script's experiment.
        """
        ids.check_name(pipeline, "pipeline")
        if number == script_runs.VERSION:
            raise script_experiment(pipeline)
        latest = await self._store.latest(self._project, pipeline) if number is None else number
        if latest is None:
            raise await self._unpublished(pipeline)
        found = await self.find(pipeline, latest)
        if found is None:
            raise NotFoundError(
                f"Pipeline {pipeline!r} has no version {latest}", f"see GET /v1/versions?pipeline={pipeline}"
            )
        return found

    async def _unpublished(self, pipeline: str) -> NotFoundError:
        if not await self.exists(pipeline):
            return NotFoundError(f"Pipeline {pipeline!r} does not exist", "publish it with `penstock register FILE`")
        return NotFoundError(
            f"Pipeline {pipeline!r} has no published version",
            "publish one with `penstock register FILE`; versions made by `penstock run` are experiments, which run by "
            "their number only",
        )


def unknown_fields(given: Any, read: Any, path: str = "pipeline") -> Iterator[str]:
    """Yield the paths of fields in JSON that are not in what was read from it: a newer client may send them."""
    match given, read:
        case (dict(), dict()):
            fields, known = cast("dict[str, Any]", given), cast("dict[str, Any]", read)
            for name, value in fields.items():
                if name in known:
                    yield from unknown_fields(value, known[name], f"{path}.{name}")
                else:
                    yield f"{path}.{name}"
        case (list(), list() | tuple()):
            pairs = zip(cast("list[Any]", given), cast("Sequence[Any]", read), strict=False)
            for number, (value, known_value) in enumerate(pairs):
                yield from unknown_fields(value, known_value, f"{path}.{number}")
        case _:
            pass


def script_experiment(name: str) -> ConflictError:
    """Return the error of a request to run an experiment, which only its script can run."""
    return ConflictError(f"{name!r} is a tracked script, which the platform cannot run", "run the script again")


def _publication(version: Version, published: Publications | None) -> dict[str, Any]:
    publication = published.versions.get(version.version) if published else None
    if published is None or publication is None:
        return {}
    return {
        "published": True,
        "published_at": publication.at,
        "published_by": publication.by,
        "latest": published.latest == version.version,
    }


def _summary(version: Version, published: Publications | None) -> VersionSummary:
    return VersionSummary(
        project=version.project,
        pipeline=version.name,
        version=version.version,
        digest=version.digest,
        source=version.source,
        registered_at=version.registered_at,
        registered_by=version.registered_by,
        git=version.git,
        steps=len(version.pipeline.nodes),
        **_publication(version, published),
    )
