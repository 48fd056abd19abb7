"""Who acts, and which permissions the operations of the API need.

The server decides who acts: it resolves each request to a principal, and facts, lists and log lines carry that
principal. What a client claims about itself is ignored.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
from typing import Protocol

from penstock_core import ids
from penstock_core.errors import InvalidIdError
from penstock_core.frozen import frozen

NAME_LIMIT = 400
"""Characters of a principal's name."""

PRINCIPAL_LIMIT = NAME_LIMIT + 20
"""Characters of a principal in its text form."""

DEFAULT_TOKEN = "default"  # noqa: S105
"""Name of the token that a gateway is started with (`PENSTOCK_TOKEN`)."""


class PrincipalKind(enum.StrEnum):
    """What kind of principal acts."""

    USER = "user"
    """A person, such as the owner of the state folder of a local platform."""
    TOKEN = "token"  # noqa: S105
    """A named access token: a script, a CI job, another service."""
    TRIGGER = "trigger"
    """A deployment, whose triggers start runs."""
    RUN = "run"
    """A step of a run, which starts a child run or registers a model."""
    SERVICE = "service"
    """A service of the platform, such as the scheduler that replaces an older run."""
    LINK = "link"
    """A signed link to a question; the name is the principal that made the link."""


@frozen()
class Principal:
    """Who acts. The text form is `KIND:NAME`, such as `user:ada`, `token:ci`, `trigger:nightly` or `run:ID/STEP`.

    Raises:
        InvalidIdError: the name is empty, longer than `NAME_LIMIT` or has characters that cannot be printed.
    """

    kind: PrincipalKind
    name: str

    def __post_init__(self) -> None:
        if not self.name or len(self.name) > NAME_LIMIT or not self.name.isprintable():
            raise InvalidIdError(f"principal name {self.name[:120]!r}: use 1 to {NAME_LIMIT} printable characters")

    def __str__(self) -> str:
        return f"{self.kind.value}:{self.name}"


def trigger(deployment: str) -> str:
    """The principal of runs that a deployment starts."""
    return str(Principal(PrincipalKind.TRIGGER, deployment))


def run_step(run_id: str, key: str) -> str:
    """The principal of what a step of a run does."""
    return str(Principal(PrincipalKind.RUN, f"{run_id}/{key}"))


def run_of(by: str) -> str:
    """Return the id of the run whose step a principal in its text form is; empty if it is none."""
    kind, _, name = by.partition(":")
    return name.partition("/")[0] if kind == PrincipalKind.RUN else ""


def service(name: str) -> str:
    """The principal of what a service of the platform does by itself."""
    return str(Principal(PrincipalKind.SERVICE, name))


def link(made_by: str) -> Principal:
    """The principal of answers given through a signed link that `made_by` made."""
    return Principal(PrincipalKind.LINK, made_by[:NAME_LIMIT])


def user(name: str) -> Principal:
    """A person by the name of an account; characters that cannot be printed are dropped."""
    shown = "".join(letter for letter in name if letter.isprintable())[:NAME_LIMIT]
    return Principal(PrincipalKind.USER, shown or "unknown")


@frozen(kw_only=True)
class AccessToken:
    """A named token as it is stored. The token itself is not stored: only `digest`, its SHA-256.

    A plain hash is enough, because tokens are random and have 256 bits: there is nothing to guess. `endpoint` is the
    deployment whose endpoint is all that the token may use; empty: the token is not limited to one.
    """

    name: str
    digest: str
    created_at: float
    created_by: str = ""
    endpoint: str = ""

    def __post_init__(self) -> None:
        ids.check_name(self.name, "token name")
        ids.check_digest(self.digest)
        if self.endpoint:
            ids.check_name(self.endpoint, "deployment")

    @property
    def full_name(self) -> str:
        """The name by which the token is stored and acts: `ci`, or `nightly/ci` for an endpoint."""
        return f"{self.endpoint}/{self.name}" if self.endpoint else self.name

    @property
    def principal(self) -> Principal:
        """Who acts with this token."""
        return Principal(PrincipalKind.TOKEN, self.full_name)


def token_digest(token: str) -> str:
    """The SHA-256 by which a token is stored and looked up."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def same_digest(one: str, other: str) -> bool:
    """Compare two digests in a time that does not depend on where they differ."""
    return hmac.compare_digest(one.encode(), other.encode())


class TokenStore(Protocol):
    """Named tokens, found by the digest of the token or by name."""

    async def find(self, digest: str) -> AccessToken | None:
        """Return the token with this digest, or None."""
        ...

    async def list(self, endpoint: str = "") -> list[AccessToken]:
        """Return the tokens of an endpoint, or those that are not limited to one, by name."""
        ...

    async def create(self, token: AccessToken) -> bool:
        """Store a token; False if the name is taken."""
        ...

    async def revoke(self, name: str, endpoint: str = "") -> bool:
        """Delete the token of this name, of an endpoint or of none; False if there is none."""
        ...


class Permission(enum.StrEnum):
    """What an operation of the API needs: `RESOURCE.VERB`; `read` covers get, list and follow.

    Every principal has all permissions until there are roles.
    """

    PLATFORM_READ = "platform.read"
    PLATFORM_ADMIN = "platform.admin"
    VERSIONS_READ = "versions.read"
    VERSIONS_CREATE = "versions.create"
    VERSIONS_PUBLISH = "versions.publish"
    RUNS_READ = "runs.read"
    RUNS_CREATE = "runs.create"
    RUNS_CANCEL = "runs.cancel"
    RUNS_ANSWER = "runs.answer"
    RUNS_ARCHIVE = "runs.archive"
    RUNS_DELETE = "runs.delete"
    EVENTS_READ = "events.read"
    EVENTS_SEND = "events.send"
    DEPLOYMENTS_READ = "deployments.read"
    DEPLOYMENTS_WRITE = "deployments.write"
    ENDPOINTS_CALL = "endpoints.call"
    ARTIFACTS_READ = "artifacts.read"
    ARTIFACTS_CREATE = "artifacts.create"
    MODELS_READ = "models.read"
    MODELS_REGISTER = "models.register"
    MODELS_PROMOTE = "models.promote"
    MODELS_ADMIN = "models.admin"
    LIMITS_READ = "limits.read"
    LIMITS_WRITE = "limits.write"
    RETENTION_READ = "retention.read"
    RETENTION_WRITE = "retention.write"
    TOKENS_READ = "tokens.read"
    TOKENS_WRITE = "tokens.write"
