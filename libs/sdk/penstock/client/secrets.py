"""Secrets of a project: `Client.secrets`. Their values can be set, and cannot be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from penstock.client import views
from penstock.client.http.transport import Transport


@dataclass(frozen=True, slots=True)
class SecretVersion:
    """A version of a secret. `created_at` is in Unix seconds."""

    number: int
    created_at: float = 0.0
    created_by: str = ""


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret without its values. Times are Unix seconds.

    Attributes:
        source: what provides it: `store`, `environment`, `files` or `kubernetes`.
        versions: oldest first; none for secrets of other sources than the store.
        pipelines: which may use it in their steps.
        deployments: which may use it in webhooks and notifications. With neither, the whole project may use it.
        last_used_at: when it was used last, about to the minute; None: not yet.
        last_used_by: by what, such as `run r1, step fit`.
    """

    name: str
    source: str
    versions: list[SecretVersion] = field(default_factory=list[SecretVersion])
    pipelines: list[str] = field(default_factory=list[str])
    deployments: list[str] = field(default_factory=list[str])
    last_used_at: float | None = None
    last_used_by: str = ""


@dataclass(frozen=True, slots=True)
class KeyRotation:
    """What a rotation of the key did.

    Attributes:
        new_key: whether a key was added; not if the key file is read-only.
        keys: IDs of the keys in the file, the one that encrypts first.
        encrypted: values that were encrypted again.
        unreadable: values that need a key that is not in the file.
        dropped: keys that were removed from the file.
    """

    new_key: bool
    keys: list[str]
    encrypted: int
    unreadable: int
    dropped: int


class Secrets:
    """`Client.secrets`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> list[Secret]:
        """Return all secrets by name."""
        return [_secret(row) for row in self._transport.json("GET", "/v1/secrets")["secrets"]]

    def get(self, name: str) -> Secret:
        """Return a secret.

        Raises:
            NotFoundError: there is none of this name.
        """
        return _secret(self._transport.json("GET", _path(name)))

    def set(self, name: str, value: str) -> Secret:
        """Add a version to a secret, which is created if it does not exist.

        Args:
            name: of the secret.
            value: text of 4 characters to 32 KiB.

        Raises:
            RefusedError: the name or the value is not valid, or the operator provides a secret of this name.
        """
        return _secret(self._transport.json("PUT", _path(name), body={"value": value}))

    def allow(self, name: str, *, pipelines: Sequence[str] = (), deployments: Sequence[str] = ()) -> Secret:
        """Limit a secret to some pipelines and deployments; without any, the whole project may use it.

        Raises:
            NotFoundError: there is none of this name.
        """
        body = {"pipelines": [*pipelines], "deployments": [*deployments]}
        return _secret(self._transport.json("PUT", f"{_path(name)}/users", body=body))

    def delete(self, name: str, version: int | None = None) -> None:
        """Delete a secret, or one of its versions. Steps that start later and use it fail.

        Raises:
            NotFoundError: there is no such secret or version.
        """
        path = _path(name) if version is None else f"{_path(name)}/versions/{version}"
        self._transport.json("DELETE", path)

    def rotate_key(self, *, drop_old: bool = False) -> KeyRotation:
        """Encrypt all stored secrets with a new key. Repeatable, also after an interruption.

        Args:
            drop_old: remove the old keys from the key file; backups that were made before need them.

        Raises:
            RefusedError: a value cannot be decrypted, or the key file cannot be written.
        """
        body = {"drop_old": drop_old}
        return views.build(KeyRotation, self._transport.json("POST", "/v1/secrets/rotate-key", body=body))


def _secret(data: Mapping[str, Any]) -> Secret:
    return views.build(Secret, data, versions=[views.build(SecretVersion, row) for row in data["versions"]])


def _path(name: str) -> str:
    return f"/v1/secrets/{quote(name, safe='')}"
