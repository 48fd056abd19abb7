"""What is known of secrets beside their values, who may use one, and the port of what provides values."""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, Protocol

from penstock_core import ids
from penstock_core.errors import PenstockError
from penstock_core.frozen import frozen
from penstock_core.secrets.references import SecretReference

VALUE_LIMIT = 32 * 1024
"""Largest value in bytes of UTF-8."""

VALUE_MINIMUM = 4
"""Characters of the shortest value: a shorter one cannot be masked without making logs unreadable."""

VERSIONS_KEPT = 10
"""Versions of a secret; a new one removes the oldest."""


class SecretError(PenstockError):
    """A secret cannot be used. The message names it, and has no part of its value."""

    user_fault: ClassVar[bool] = True


class SecretRefusedError(SecretError):
    """A pipeline or deployment may not use a secret."""


class UnreadableSecretError(SecretError):
    """A value is there and cannot be read, such as without its key."""


@frozen(kw_only=True)
class SecretUser:
    """Who uses a secret: a pipeline, by a step of its runs, or a deployment, by its webhooks and notifications."""

    project: str
    pipeline: str = ""
    deployment: str = ""

    def __str__(self) -> str:
        if self.pipeline or self.deployment:
            return f"pipeline {self.pipeline!r}" if self.pipeline else f"deployment {self.deployment!r}"
        return "a rule of the project, or a Git source that does not name its pipeline (…:PIPELINE)"


@frozen(kw_only=True)
class SecretVersion:
    """A version of a secret; its value is stored elsewhere. `at` is in Unix seconds, `by` a principal."""

    number: int
    at: float = 0.0
    by: str = ""


@frozen(kw_only=True)
class SecretRecord:
    """A secret without its values.

    Attributes:
        source: what provides it: `store`, `environment`, `files` or `kubernetes`.
        versions: oldest first. Sources other than the store have one version, without a number.
        last: number of the newest version that there ever was.
        pipelines: which may use it in their steps.
        deployments: which may use it in webhooks and notifications. With neither, the whole project may use it.
    """

    project: str
    name: str
    source: str = "store"
    versions: tuple[SecretVersion, ...] = ()
    last: int = 0
    pipelines: tuple[str, ...] = ()
    deployments: tuple[str, ...] = ()

    @property
    def latest(self) -> SecretVersion | None:
        """The newest version."""
        return self.versions[-1] if self.versions else None

    def check(self, user: SecretUser) -> None:
        """Check that somebody may use the secret.

        Raises:
            SecretRefusedError: not so.
        """
        limited = self.pipelines or self.deployments
        allowed = user.pipeline in self.pipelines if user.pipeline else user.deployment in self.deployments
        if user.project != self.project or (limited and not allowed):
            raise SecretRefusedError(
                f"secret {self.name!r} may not be used by {user}: allow it with `penstock secrets allow {self.name}`"
            )

    def find(self, version: int | None) -> int:
        """Return the number of a version, of the latest one for None.

        Raises:
            SecretError: there is no such version.
        """
        if version is None and self.latest is not None:
            return self.latest.number
        if version is not None and any(one.number == version for one in self.versions):
            return version
        known = ", ".join(str(one.number) for one in self.versions) or "none"
        raise SecretError(f"secret {self.name!r} has no version {version or 1} (its versions: {known})")


@frozen(kw_only=True)
class SecretValue:
    """A value. It is not part of its text form, so that no log or traceback shows it. `version` 0: the only one."""

    value: str = field(repr=False)
    version: int = 0

    def __repr__(self) -> str:
        return f"SecretValue(version={self.version})"


class SecretSource(Protocol):
    """Provides secrets of projects.

    Attributes:
        name: of the source, in records.
    """

    name: str

    async def record(self, project: str, name: str) -> SecretRecord | None:
        """Return what is known of a secret; None if this source does not have it."""
        ...

    async def records(self, project: str) -> list[SecretRecord]:
        """Return the secrets of a project by name."""
        ...

    async def value(self, project: str, name: str, version: int) -> SecretValue | None:
        """Return the value of a version, one that the record names; None if it is not there any more.

        Raises:
            UnreadableSecretError: it cannot be read.
            UnavailableError: the source does not answer; trying again may help.
        """
        ...


def check_value(value: str) -> str:
    """Return a value if it can be a secret.

    Raises:
        SecretError: it is too short or too long, or has a NUL.
    """
    if len(value) < VALUE_MINIMUM:
        raise SecretError(f"the value is too short: values of fewer than {VALUE_MINIMUM} characters cannot be masked")
    if len(value) > VALUE_LIMIT or len(value.encode("utf-8", "replace")) > VALUE_LIMIT:
        raise SecretError(f"the value is too large: it may have {VALUE_LIMIT // 1024} KiB")
    if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise SecretError("the value is not text: encode binary data with Base64")
    return value


def missing(reference: SecretReference, project: str) -> SecretError:
    """The error of a reference to a secret that no source has."""
    name = ids.check_name(reference.name, "secret name")
    return SecretError(
        f"secret {name!r} does not exist in project {project!r}: set it with `penstock secrets set {name}`"
    )
