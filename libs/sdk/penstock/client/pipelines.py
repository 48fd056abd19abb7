"""Registered pipelines and their versions: `Client.pipelines`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from penstock.client import version_diffs, views
from penstock.client.artifacts.artifacts import Artifacts
from penstock.client.http.transport import Transport
from penstock.client.version_diffs import VersionDiff
from penstock.errors import BuildFailedError, NotFoundError
from penstock_core import git_sources

if TYPE_CHECKING:
    from penstock.authoring import Pipeline
    from penstock.sources import PreparedPipeline


@dataclass(frozen=True, slots=True)
class Version:
    """A registered version of a pipeline.

    Attributes:
        created: False when an equal version existed already; only after `Pipelines.register`.
        digest: digest of the version's identity; `source` is the digest of its source bundle.
        registered_by: the principal that registered it first.
        published: whether deployments and child runs may use it; a version that is not is an experiment.
        published_at: when it was published last, in Unix seconds, and `published_by` by whom; not after `register`.
        latest: whether it was published last of all; not after `register`.
        git: commit, branch and whether there were uncommitted changes, for a source in a Git repository.
        steps: number of steps; only in lists.
        environments: what the environments that the pipeline declares resolved to, by name; only after `Pipelines.get`.
        own_environment: Python and the distributions that it was registered from; only after `Pipelines.get`.
        definition: the compiled pipeline as JSON (parameters, steps, nodes, outputs); only after `Pipelines.get`.
    """

    pipeline: str
    version: int
    project: str = "default"
    created: bool = False
    digest: str = ""
    source: str = ""
    registered_at: float | None = None
    registered_by: str = ""
    published: bool = False
    published_at: float | None = None
    published_by: str = ""
    latest: bool = False
    git: dict[str, Any] | None = None
    steps: int | None = None
    environments: dict[str, Any] = field(default_factory=dict[str, Any], repr=False)
    own_environment: dict[str, Any] = field(default_factory=dict[str, Any], repr=False)
    definition: dict[str, Any] = field(default_factory=dict[str, Any], repr=False)

    def __repr__(self) -> str:
        return f"Version({self.pipeline!r}, {self.version})"


class Pipelines:
    """`Client.pipelines`: register pipelines and read their versions."""

    def __init__(self, transport: Transport, artifacts: Artifacts) -> None:
        self._transport = transport
        self._artifacts = artifacts

    def register(
        self,
        pipeline: Pipeline | PreparedPipeline | str | os.PathLike[str],
        *,
        publish: bool = True,
        log: Callable[[str], None] | None = None,
    ) -> Version:
        """Compile a pipeline, build its environments, upload its source, register it as a version and publish that.

        Idempotent: equal pipeline, code and environment return the existing version.

        Args:
            pipeline: a `Pipeline` object, a file or folder that defines one (`FILE` or `FILE:PIPELINE`), or a source in
                Git such as `git+https://host/repo@main#subdirectory=train`, which the platform builds.
            publish: make it the version that `latest` resolves to; False: register an experiment.
            log: receives the lines that builds of its environments print.

        Raises:
            BuildFailedError: a source in Git cannot be built.
            DefinitionError: the pipeline does not compile; names the user's file and line.
            EnvironmentFailedError: an environment that it declares cannot be built.
            SourceError: the file cannot be imported.
        """
        if isinstance(pipeline, str) and pipeline.startswith(git_sources.PREFIX):
            return self._build(pipeline, publish, log)
        # The compiler is imported only by clients that register.
        from penstock import sources
        from penstock_core.pipeline.ir import without_defaults

        prepared = pipeline if isinstance(pipeline, sources.PreparedPipeline) else sources.prepare(pipeline)
        environments = self._environments(prepared, log)
        self._artifacts.upload(prepared.source.data, prepared.source.digest)
        body = {
            "pipeline": without_defaults(prepared.ir),
            "source": prepared.source.digest,
            "code": prepared.code,
            "environment": prepared.environment,
            "environments": environments,
            "interpreter": prepared.interpreter,
            "git": prepared.git,
            "publish": publish,
        }
        return views.build(Version, self._transport.json("POST", "/v1/versions", body=body))

    def _build(self, source: str, publish: bool, log: Callable[[str], None] | None) -> Version:
        from penstock.client.builds import Builds

        builds = Builds(self._transport)
        built = builds.wait(builds.start(source, publish=publish), log=log)
        if built.version is None:
            raise BuildFailedError(f"{source} was built without a version")
        return Version(built.pipeline, built.version, created=built.created, published=built.published)

    def _environments(self, prepared: PreparedPipeline, log: Callable[[str], None] | None) -> dict[str, dict[str, Any]]:
        if not prepared.ir.environments:
            return {}
        from penstock.client.environments import Environments

        environments = Environments(self._transport)
        return {one.name: environments.build(one, log=log).resolved for one in prepared.ir.environments}

    def versions(self, pipeline: str | None = None) -> list[Version]:
        """Return the registered versions of one pipeline, or of all, oldest first."""
        rows = self._transport.json("GET", "/v1/versions", query={"pipeline": pipeline})["versions"]
        return [views.build(Version, row) for row in rows]

    def get(self, pipeline: str, version: int | None = None) -> Version:
        """Return a version with its `definition`.

        Args:
            pipeline: name of the pipeline.
            version: number of the version; default the latest published one.

        Raises:
            NotFoundError: there is no such version, or none is published.
        """
        if version is None:
            version = next((known.version for known in self.versions(pipeline) if known.latest), None)
            if version is None:
                advice = "`penstock register FILE` publishes one"
                raise NotFoundError(404, "Not found", f"pipeline {pipeline!r} has no published version: {advice}")
        found = self._transport.json("GET", f"/v1/versions/{quote(pipeline)}/{version}")
        own = {"version": found["environment"]["version"], "packages": found["environment"]["packages"]}
        return views.build(Version, found, pipeline=found["name"], definition=found["pipeline"], own_environment=own)

    def files(self, version: Version) -> dict[str, bytes]:
        """Return the files of a version's source bundle by name."""
        with tempfile.TemporaryFile() as file:
            self._transport.download(f"/v1/artifacts/{quote(version.source)}", file)
            file.seek(0)
            return version_diffs.read_files(file.read())

    def download(self, version: Version, to: str | os.PathLike[str]) -> list[str]:
        """Write the files of a version's source bundle into a folder that is empty or new; return their names.

        Raises:
            FileExistsError: the folder is not empty.
        """
        folder = Path(to)
        if folder.exists() and any(folder.iterdir()):
            raise FileExistsError(f"{folder} is not empty")
        files = self.files(version)
        root = folder.resolve()
        for name, content in files.items():
            target = (root / name).resolve()
            if not target.is_relative_to(root):
                raise ValueError(f"the source bundle has a file outside of its folder: {name!r}")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        return sorted(files)

    def diff(self, before: Version, after: Version) -> VersionDiff:
        """Return what differs between two versions, each as `get` returns it."""
        same = before.source == after.source
        own = [{"": one.own_environment, **one.environments} for one in (before, after)]
        return VersionDiff(
            "" if same else version_diffs.diff_files(self.files(before), self.files(after)),
            version_diffs.diff_pipelines(before.definition, after.definition),
            version_diffs.diff_environments(*own),
        )
