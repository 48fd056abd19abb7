"""Secrets over HTTP, without their values."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from penstock_contracts.bodies import RequestBody
from penstock_core.ids import NAME_PATTERN
from penstock_core.secrets.records import VALUE_LIMIT, VALUE_MINIMUM

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Names = Annotated[list[Name], Field(max_length=100)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class SetSecretBody(RequestBody):
    """A new version of a secret."""

    value: str = Field(
        min_length=VALUE_MINIMUM,
        max_length=VALUE_LIMIT,
        repr=False,
        description="text of at most 32 KiB; it cannot be read again",
        json_schema_extra={"writeOnly": True, "format": "password"},
    )


class SecretUsersBody(RequestBody):
    """Which pipelines and deployments may use a secret; without any, the whole project may."""

    pipelines: Names = Field(default=[])
    deployments: Names = Field(default=[])


class SecretVersionView(_Model):
    """A version of a secret. `created_at` is in Unix seconds."""

    number: int
    created_at: float
    created_by: str = ""


class SecretView(_Model):
    """A secret without its values. Times are Unix seconds.

    `source` is what provides it: `store`, `environment`, `files` or `kubernetes`. Secrets of other sources than the
    store have no versions. `pipelines` and `deployments` are those that may use it; if both are empty, the whole
    project may. `last_used_at` is written about once a minute; null: not used yet. `last_used_by` is such as `run r1,
    step fit`.
    """

    name: str
    source: str
    versions: list[SecretVersionView]
    pipelines: list[str] = []
    deployments: list[str] = []
    last_used_at: float | None = None
    last_used_by: str = ""


class SecretList(_Model):
    """Secrets by name."""

    secrets: list[SecretView]


class RotateKeyBody(RequestBody):
    """Rotate the key that encrypts stored secrets."""

    drop_old: bool = Field(
        default=False, description="remove the old keys from the key file; backups that were made before need them"
    )


class KeyRotation(_Model):
    """What a rotation did.

    `new_key` is whether a key was added, which a read-only key file does not allow. `keys` are the IDs of the keys in
    the file, the one that encrypts first. `encrypted` values were encrypted again; `unreadable` ones need a key that is
    not in the file. `dropped` keys were removed.
    """

    new_key: bool
    keys: list[str]
    encrypted: int
    unreadable: int
    dropped: int
