"""Sets and lists secrets. Values go in and never come out."""

from __future__ import annotations

import time

from penstock_adapters.secrets.resolver import Secrets
from penstock_adapters.secrets.stored import LastUse
from penstock_contracts.secrets import KeyRotation, SecretList, SecretUsersBody, SecretVersionView, SecretView
from penstock_core import ids
from penstock_core.secrets import references
from penstock_core.secrets.records import SecretRecord
from penstock_gateway.errors import ConflictError, NotFoundError


class SecretsService:
    """Changes the store of secrets."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets
        self._store = secrets.store

    async def list(self, project: str) -> SecretList:
        """Return the secrets of a project."""
        used = await self._store.last_uses(project)
        found = await self._secrets.records(project)
        return SecretList(secrets=[_view(record, used.get(record.name)) for record in found])

    async def get(self, project: str, name: str) -> SecretView:
        """Return a secret.

        Raises:
            NotFoundError: it does not exist.
        """
        found = await self._secrets.find(project, name) if ids.is_name(name) else None
        if found is None:
            raise _missing(name)
        return _view(found[1], (await self._store.last_uses(project)).get(name))

    async def set(self, project: str, name: str, value: str, by: str) -> SecretView:
        """Add a version to a secret, which is created if it does not exist.

        Raises:
            ConflictError: another source has a secret of this name.
            SecretError: the value cannot be a secret, or cannot be encrypted.
        """
        references.check_name(name)
        await self._check_source(project, name)
        return _view(await self._store.put(project, name, value, by=by, at=time.time()))

    async def allow(self, project: str, name: str, users: SecretUsersBody) -> SecretView:
        """Set which pipelines and deployments may use a secret.

        Raises:
            NotFoundError: it does not exist.
            ConflictError: it is not in the store.
        """
        await self._check_source(project, name)
        record = (
            await self._store.allow(project, name, users.pipelines, users.deployments) if ids.is_name(name) else None
        )
        if record is None:
            raise _missing(name)
        return _view(record)

    async def delete(self, project: str, name: str, version: int | None = None) -> None:
        """Delete a secret, or one version.

        Raises:
            NotFoundError: it does not exist.
            ConflictError: it is not in the store.
        """
        await self._check_source(project, name)
        if not ids.is_name(name) or not await self._store.delete(project, name, version):
            raise _missing(name, version)

    async def rotate_key(self, *, drop_old: bool) -> KeyRotation:
        """Encrypt all stored secrets with a new key.

        Raises:
            SecretError: there is no key, or old keys cannot be removed.
        """
        found = await self._store.rotate(drop_old=drop_old)
        return KeyRotation(
            new_key=found.new_key,
            keys=list(found.keys),
            encrypted=found.encrypted,
            unreadable=found.unreadable,
            dropped=found.dropped,
        )

    async def _check_source(self, project: str, name: str) -> None:
        found = await self._secrets.find(project, name) if ids.is_name(name) else None
        if found is not None and found[0] is not self._store:
            raise ConflictError(
                f"Secret {name!r} comes from the source {found[1].source!r}",
                "change it there, or choose another name",
            )


def _missing(name: str, version: int | None = None) -> NotFoundError:
    what = (
        f"Secret {name[:100]!r} does not exist"
        if version is None
        else f"Secret {name[:100]!r} has no version {version}"
    )
    return NotFoundError(what, "list secrets with `penstock secrets list`")


def _view(record: SecretRecord, used: LastUse | None = None) -> SecretView:
    versions = [
        SecretVersionView(number=one.number, created_at=one.at, created_by=one.by)
        for one in record.versions
        if one.number
    ]
    return SecretView(
        name=record.name,
        source=record.source,
        versions=versions,
        pipelines=list(record.pipelines),
        deployments=list(record.deployments),
        last_used_at=used.at if used is not None else None,
        last_used_by=used.by if used is not None else "",
    )
