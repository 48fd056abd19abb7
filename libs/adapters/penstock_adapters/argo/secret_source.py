"""Secrets that an operator keeps in Kubernetes: the key `db` of the Secret `penstock-secrets-demo` is `db` of `demo`.

No reference can name another Secret: its name is made of the project, and its namespace is the operator's setting.
"""

from __future__ import annotations

import base64
import re

from penstock_adapters.argo.api import ApiError, KubernetesApi, secret
from penstock_core import ids
from penstock_core.errors import UnavailableError
from penstock_core.secrets.records import SecretRecord, SecretValue, SecretVersion, UnreadableSecretError

PREFIX = "penstock-secrets-"

_PROJECT = re.compile(r"[a-z0-9]([a-z0-9-]{0,200}[a-z0-9])?\Z")
"""Names of projects that can be part of the name of a Secret."""


class KubernetesSecrets:
    """A `SecretSource`. It connects when it is used first.

    Args:
        namespace: of the Secrets.
    """

    name = "kubernetes"

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._api: KubernetesApi | None = None

    async def record(self, project: str, name: str) -> SecretRecord | None:
        """See the port."""
        return _record(project, name) if ids.is_name(name) and name in await self._data(project) else None

    async def records(self, project: str) -> list[SecretRecord]:
        """See the port."""
        return [_record(project, name) for name in sorted(await self._data(project)) if ids.is_name(name)]

    async def value(self, project: str, name: str, version: int) -> SecretValue | None:
        """See the port. One line break at the end is not part of the value."""
        found = (await self._data(project)).get(name) if ids.is_name(name) else None
        if found is None:
            return None
        try:
            text = base64.b64decode(found).decode()
        except ValueError:
            # `from None`: the error has the value.
            raise UnreadableSecretError(f"secret {name!r} is not UTF-8: encode binary data with Base64") from None
        return SecretValue(value=text.removesuffix("\n").removesuffix("\r"))

    async def close(self) -> None:
        """Close the connection."""
        if self._api is not None:
            await self._api.close()

    async def _data(self, project: str) -> dict[str, str]:
        """The keys of a project's Secret with their values in Base64; empty if there is none."""
        if not _PROJECT.match(project):
            return {}
        name = f"{PREFIX}{project}"
        try:
            if self._api is None:
                self._api = await KubernetesApi.connect()
            return (await self._api.get(secret(self._namespace, name))).get("data") or {}
        except ApiError as error:
            if error.status == 404:
                return {}
            raise UnavailableError(
                f"the Secret {name} in namespace {self._namespace} cannot be read: {error}"
            ) from error


def _record(project: str, name: str) -> SecretRecord:
    return SecretRecord(project=project, name=name, source="kubernetes", versions=(SecretVersion(number=0),))
