"""Who acts, which roles they have, and which permissions a role has: `ROLE_PERMISSIONS`.

The server decides who acts: it resolves each request to a principal, and facts, lists and log lines carry that
principal. What a client claims about itself is ignored.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
from collections.abc import Mapping
from typing import Protocol

from penstock_core import ids
from penstock_core.errors import InvalidIdError, PenstockError
from penstock_core.frozen import frozen

NAME_LIMIT = 400
"""Characters of a principal's name."""

PRINCIPAL_LIMIT = NAME_LIMIT + 20
"""Characters of a principal in its text form."""

DEFAULT_TOKEN = "default"  # noqa: S105
"""Name of the token that a gateway is started with (`PENSTOCK_TOKEN`)."""


class InvalidTokenError(PenstockError):
    """A token is not valid. The text says why, without the token."""


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


PUBLISHER = "publisher"
"""In place of the role of a token: it may only send events, over HTTP or NATS."""


class Permission(enum.StrEnum):
    """What an operation of the API needs: `RESOURCE.VERB`; `read` covers get, list and follow."""

    PLATFORM_READ = "platform.read"
    PLATFORM_ADMIN = "platform.admin"
    VERSIONS_READ = "versions.read"
    VERSIONS_CREATE = "versions.create"
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
    SECRETS_READ = "secrets.read"
    SECRETS_WRITE = "secrets.write"
    TOKENS_READ = "tokens.read"
    TOKENS_WRITE = "tokens.write"
    AUDIT_READ = "audit.read"


class Role(enum.StrEnum):
    """What a principal may do in a project. Each role has all permissions of those before it."""

    VIEWER = "viewer"
    """Reads everything but tokens and the values of secrets, which nobody reads."""
    OPERATOR = "operator"
    """Runs, cancels and answers; sends events and calls endpoints."""
    EDITOR = "editor"
    """Registers pipelines and models, deploys, promotes, sets limits and secrets."""
    ADMIN = "admin"
    """Manages tokens, gates, retention and the platform; deletes runs; reads the audit trail."""


_ADDED: Mapping[Role, frozenset[Permission]] = {
    Role.VIEWER: frozenset(
        {
            Permission.PLATFORM_READ,
            Permission.VERSIONS_READ,
            Permission.RUNS_READ,
            Permission.EVENTS_READ,
            Permission.DEPLOYMENTS_READ,
            Permission.ARTIFACTS_READ,
            Permission.MODELS_READ,
            Permission.LIMITS_READ,
            Permission.RETENTION_READ,
            Permission.SECRETS_READ,
        }
    ),
    Role.OPERATOR: frozenset(
        {
            Permission.RUNS_CREATE,
            Permission.RUNS_CANCEL,
            Permission.RUNS_ANSWER,
            Permission.EVENTS_SEND,
            Permission.ENDPOINTS_CALL,
            Permission.ARTIFACTS_CREATE,
        }
    ),
    Role.EDITOR: frozenset(
        {
            Permission.VERSIONS_CREATE,
            Permission.DEPLOYMENTS_WRITE,
            Permission.MODELS_REGISTER,
            Permission.MODELS_PROMOTE,
            Permission.LIMITS_WRITE,
            Permission.RUNS_ARCHIVE,
            Permission.SECRETS_WRITE,
        }
    ),
    Role.ADMIN: frozenset(
        {
            Permission.PLATFORM_ADMIN,
            Permission.MODELS_ADMIN,
            Permission.RUNS_DELETE,
            Permission.RETENTION_WRITE,
            Permission.TOKENS_READ,
            Permission.TOKENS_WRITE,
            Permission.AUDIT_READ,
        }
    ),
}

ROLES = tuple(Role)
"""All roles, from the fewest permissions to the most."""

ROLE_PERMISSIONS: Mapping[Role, frozenset[Permission]] = {
    role: frozenset[Permission]().union(*(_ADDED[lesser] for lesser in ROLES[: ROLES.index(role) + 1]))
    for role in ROLES
}
"""The permissions of each role."""

EVERY_PROJECT = "*"
"""In the roles of a principal: all projects."""

DEFAULT_PROJECT = "default"
"""The project of requests that name none."""

PLATFORM_PERMISSIONS = frozenset(
    {Permission.PLATFORM_ADMIN, Permission.RETENTION_READ, Permission.RETENTION_WRITE, Permission.AUDIT_READ}
)
"""Permissions of what all projects share: only a role in all projects has them."""


def least_role(permission: Permission) -> Role:
    """Return the role with the fewest permissions that has this one."""
    return next(role for role in ROLES if permission in ROLE_PERMISSIONS[role])


@frozen(kw_only=True)
class Grant:
    """A principal and what it may do: its role in each project, or the endpoint that is all it may call.

    Attributes:
        roles: by project; `EVERY_PROJECT` for all of them.
        endpoint: the deployment whose endpoint is all that may be used; empty: not limited to one.
        project: that of the endpoint, or that to which a publisher sends events; `EVERY_PROJECT` for all.
        publisher: whether events may be sent, and nothing else done.
    """

    principal: Principal
    roles: Mapping[str, Role]
    endpoint: str = ""
    project: str = DEFAULT_PROJECT
    publisher: bool = False

    @property
    def everywhere(self) -> Role | None:
        """The role in all projects; None without one."""
        return self.roles.get(EVERY_PROJECT)

    def role(self, project: str) -> Role | None:
        """Return the role in a project, the higher one of those for it and for all projects; None without one."""
        found = [role for role in (self.roles.get(project), self.roles.get(EVERY_PROJECT)) if role is not None]
        return max(found, key=ROLES.index, default=None)

    def allows(self, permission: Permission, project: str) -> bool:
        """Return whether an operation that needs a permission is allowed in a project."""
        if self.endpoint:
            return permission is Permission.ENDPOINTS_CALL and project == self.project
        if self.publisher:
            return permission is Permission.EVENTS_SEND and self.project in (project, EVERY_PROJECT)
        role = self.everywhere if permission in PLATFORM_PERMISSIONS else self.role(project)
        return role is not None and permission in ROLE_PERMISSIONS[role]


@frozen(kw_only=True)
class AccessToken:
    """A named token as it is stored. The token itself is not stored: only `digest`, its SHA-256.

    A plain hash is enough, because tokens are random and have 256 bits: there is nothing to guess.

    Attributes:
        project: in which the token has its role; `EVERY_PROJECT` for all of them.
        role: None for a token of an endpoint or of a publisher.
        endpoint: the deployment whose endpoint is all that the token may use; empty: the token is not limited to one.
        publisher: whether the token may only send events to the project, over HTTP or NATS.
        created_at: Unix seconds.
        expires_at: Unix seconds from which the token is refused; None: never.
    """

    name: str
    digest: str
    created_at: float
    created_by: str = ""
    project: str
    role: Role | None = None
    endpoint: str = ""
    publisher: bool = False
    expires_at: float | None = None

    def __post_init__(self) -> None:
        ids.check_name(self.name, "token name")
        ids.check_digest(self.digest)
        if self.project != EVERY_PROJECT or self.endpoint:
            ids.check_name(self.project, "project")
        if self.endpoint:
            ids.check_name(self.endpoint, "deployment")

    @property
    def full_name(self) -> str:
        """The name by which the token is stored and acts: `ci`, or `default/nightly/ci` for an endpoint."""
        return f"{self.project}/{self.endpoint}/{self.name}" if self.endpoint else self.name

    @property
    def principal(self) -> Principal:
        """Who acts with this token."""
        return Principal(PrincipalKind.TOKEN, self.full_name)

    @property
    def grant(self) -> Grant:
        """What the token may do."""
        roles = {self.project: self.role} if self.role is not None and not self.endpoint else {}
        return Grant(
            principal=self.principal,
            roles=roles,
            endpoint=self.endpoint,
            project=self.project,
            publisher=self.publisher,
        )

    def expired(self, now: float) -> bool:
        """Return whether the token is refused at a time, because it has expired."""
        return self.expires_at is not None and now >= self.expires_at


def token_digest(token: str) -> str:
    """The SHA-256 by which a token is stored and looked up."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def same_digest(one: str, other: str) -> bool:
    """Compare two digests in a time that does not depend on where they differ."""
    return hmac.compare_digest(one.encode(), other.encode())


@frozen(kw_only=True)
class BlockedUser:
    """A person whose tokens are refused and whose deployments start no runs. `at` is in Unix seconds."""

    name: str
    by: str
    at: float


class Revocations(Protocol):
    """What a gateway refuses although its issuer signed it: single tokens, and all tokens of a person."""

    async def refused(self, digest: str, user: str) -> bool:
        """Return whether the token is revoked that has this digest without its signature, or its user is blocked."""
        ...

    async def revoke(self, digest: str, until: float, now: float) -> None:
        """Refuse a token from now on; `until` is when it expires. Both are Unix seconds."""
        ...

    async def is_blocked(self, user: str) -> bool:
        """Return whether a person is blocked."""
        ...

    async def block(self, user: BlockedUser) -> None:
        """Refuse all tokens of a person from now on."""
        ...

    async def unblock(self, user: str) -> bool:
        """Accept the tokens of a person again; False if the person is not blocked."""
        ...

    async def blocked(self) -> list[BlockedUser]:
        """Return the blocked persons by name."""
        ...


class TokenStore(Protocol):
    """Named tokens, found by the digest of the token or by name. Endpoints are given as `PROJECT/DEPLOYMENT`."""

    async def find(self, digest: str) -> AccessToken | None:
        """Return the token with this digest, or None."""
        ...

    async def get(self, name: str) -> AccessToken | None:
        """Return the token of this name that is not limited to an endpoint, or None."""
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

    async def last_used(self) -> Mapping[str, float]:
        """Return when tokens were used last, in Unix seconds, by full name."""
        ...

    async def record_use(self, full_name: str, at: float) -> None:
        """Store when a token was used last."""
        ...
