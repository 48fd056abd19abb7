"""Builds of declared environments: their facts in the stream BUILDS, and their view over HTTP."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from penstock_contracts.bodies import RequestBody
from penstock_contracts.commands import LockedEnvironment
from penstock_core.environments.declaration import FILE, LINES, EnvironmentDeclaration
from penstock_core.environments.image_options import DOCKERFILE, REFERENCE, SYSTEM, ImageOptions
from penstock_core.ids import NAME_PATTERN

_Lines = Field(default_factory=list[str], max_length=LINES)


class ImageBody(RequestBody):
    """How the image of an environment is made, for pods; `base`, `dockerfile` and `image` exclude each other."""

    base: str = Field(default="", max_length=REFERENCE, description="image to install the environment on")
    system: list[str] = Field(default_factory=list[str], max_length=SYSTEM, description="packages for apt-get")
    dockerfile: str = Field(default="", max_length=DOCKERFILE, description="Dockerfile of the base")
    image: str = Field(default="", max_length=REFERENCE, description="a complete image: NAME@sha256:…")
    platforms: list[str] = Field(default_factory=list[str], max_length=20, description="such as linux/arm64")


class DeclarationBody(RequestBody):
    """An environment to be resolved to exact versions with hashes, and installed.

    An equal declaration that was resolved before gives the same environment. With `refresh` it is resolved again, so
    that newer versions of its distributions are found.
    """

    name: str = Field(pattern=NAME_PATTERN)
    python: str = Field(pattern=r"^3\.[0-9]{1,2}$", description="minor version of Python, such as 3.12")
    requirements: list[str] = _Lines
    constraints: list[str] = _Lines
    index: str = Field(default="", max_length=1000, description="URL of the package index, if it is not the default")
    extra_indexes: list[str] = Field(default_factory=list[str], max_length=100)
    pyproject: str = Field(default="", max_length=FILE, description="content of pyproject.toml, for uv.lock")
    uv_lock: str = Field(default="", max_length=FILE, description="content of uv.lock")
    extras: list[str] = Field(default_factory=list[str], max_length=100)
    image: ImageBody = Field(default_factory=ImageBody)
    refresh: bool = False

    def declaration(self) -> EnvironmentDeclaration:
        """Return the declaration.

        Raises:
            InvalidDeclarationError: it is not valid.
        """
        return EnvironmentDeclaration(
            name=self.name,
            python=self.python,
            requirements=tuple(self.requirements),
            constraints=tuple(self.constraints),
            index=self.index,
            extra_indexes=tuple(self.extra_indexes),
            pyproject=self.pyproject,
            uv_lock=self.uv_lock,
            extras=tuple(self.extras),
            image=ImageOptions(
                base=self.image.base,
                system=tuple(self.image.system),
                dockerfile=self.image.dockerfile,
                image=self.image.image,
                platforms=tuple(self.image.platforms),
            ),
        )


class EnvironmentRequested(BaseModel):
    """Build n of an environment is to be made. `at` is in Unix seconds, `by` the principal."""

    declaration: EnvironmentDeclaration
    build: int
    at: float
    by: str = ""


class EnvironmentFinished(BaseModel):
    """A build ended at `at` in Unix seconds: with an environment, an error, or it was cancelled.

    `cancelled_by` is a principal.
    """

    environment: LockedEnvironment | None = None
    error: str = ""
    cancelled_by: str = ""
    seconds: float = 0.0
    at: float = 0.0


class EnvironmentLog(BaseModel):
    """Lines that a build printed."""

    lines: list[str]


class LockView(BaseModel):
    """The lock of an environment: a requirements file with hashes, whose SHA-256 is its digest."""

    digest: str
    text: str


class EnvironmentView(BaseModel):
    """A build of a declared environment.

    Attributes:
        id: SHA-256 of the declaration.
        build: number of the build; a refresh makes another one.
        state: `ready` environments can be named in registrations; why one failed is in `error`.
        log: lines of the build's log after the cursor that was given, and `after`, the next cursor.
    """

    id: str
    build: int
    state: Literal["building", "ready", "failed"]
    environment: LockedEnvironment | None = None
    error: str = ""
    log: list[str] = Field(default_factory=list[str])
    after: int = 0
