"""Builds of versions from Git repositories: their facts in the stream BUILDS, and the view of all builds over HTTP."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from penstock_contracts.bodies import RequestBody
from penstock_core.git_sources import LONGEST, GitSource

BuildState = Literal["building", "ready", "failed", "cancelled"]


class BuildBody(RequestBody):
    """A version to be built from a Git repository.

    Equal requests share one build until it has resolved the branch or tag to a commit. A commit that was built before
    gives the same version.
    """

    url: str = Field(max_length=LONGEST, description="URL of the repository, without credentials")
    ref: str = Field(default="", max_length=LONGEST, description="branch, tag or full commit; empty: default branch")
    path: str = Field(default="", max_length=LONGEST, description="folder or Python file in the repository")
    pipeline: str = Field(default="", max_length=100, description="name of the pipeline, if the file has several")
    submodules: bool = False
    lfs: bool = Field(default=False, description="whether files in Git LFS are downloaded")
    secret: str = Field(default="", max_length=100, description="name of the secret with a token or a private key")
    publish: bool = Field(default=True, description="publish the version; otherwise it is an experiment")

    def source(self) -> GitSource:
        """Return the source.

        Raises:
            InvalidGitSourceError: it is not valid.
        """
        return GitSource(**self.model_dump(exclude={"publish"}))


class BuildRequested(BaseModel):
    """Build n of a version is to be made. `at` is in Unix seconds, `by` the principal."""

    source: GitSource
    publish: bool
    build: int
    at: float
    by: str = ""


class BuildResolved(BaseModel):
    """The branch or tag of a build was resolved to a commit, which all later tries use."""

    commit: str


class BuildFinished(BaseModel):
    """A build ended: with a version, with an error, or because a principal cancelled it.

    Attributes:
        joined: number of the build of the same commit that makes the version; the other fields are empty.
        cancelled_by: principal.
        at: when it ended, in Unix seconds.
    """

    pipeline: str = ""
    version: int | None = None
    created: bool = False
    published: bool = False
    warnings: list[str] = Field(default_factory=list[str])
    error: str = ""
    cancelled_by: str = ""
    joined: int | None = None
    seconds: float = 0.0
    at: float = 0.0


class BuildView(BaseModel):
    """A build of a version or of an environment.

    Attributes:
        id: `KIND-DIGEST-N`: build n of what has this digest.
        source: what is built: a Git source, or the name of an environment.
        commit: that the branch or tag was resolved to.
        environment: digest of the lock; only of environments.
        log: lines of the build's log after the cursor that was given, and `after`, the next cursor.
    """

    id: str
    kind: Literal["version", "environment"]
    state: BuildState
    source: str
    requested_at: float
    requested_by: str = ""
    commit: str = ""
    pipeline: str = ""
    version: int | None = None
    created: bool = False
    published: bool = False
    environment: str = ""
    warnings: list[str] = Field(default_factory=list[str])
    error: str = ""
    seconds: float = 0.0
    log: list[str] = Field(default_factory=list[str])
    after: int = 0


class BuildList(BaseModel):
    """Builds of a project, newest first."""

    builds: list[BuildView]
