"""Secrets in environment variables of the service: `PENSTOCK_SECRET_DB` is the secret `db` of the project `default`.

The prefix is what allows them: no reference can name another variable.
"""

from __future__ import annotations

from collections.abc import Mapping

from penstock_core import ids
from penstock_core.secrets.records import SecretRecord, SecretValue, SecretVersion

PREFIX = "PENSTOCK_SECRET_"
PROJECT = "default"


class EnvironmentSecrets:
    """A `SecretSource`. Upper and lower case, `-` and `_` are the same in its names."""

    name = "environment"

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._values = {
            name.removeprefix(PREFIX).lower(): value for name, value in variables.items() if name.startswith(PREFIX)
        }

    async def record(self, project: str, name: str) -> SecretRecord | None:
        """See the port."""
        return _record(name) if project == PROJECT and _plain(name) in self._values else None

    async def records(self, project: str) -> list[SecretRecord]:
        """See the port."""
        return [_record(name) for name in sorted(self._values) if ids.is_name(name)] if project == PROJECT else []

    async def value(self, project: str, name: str, version: int) -> SecretValue | None:
        """See the port."""
        found = self._values.get(_plain(name)) if project == PROJECT else None
        return SecretValue(value=found) if found is not None else None


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")


def _record(name: str) -> SecretRecord:
    return SecretRecord(project=PROJECT, name=name, source="environment", versions=(SecretVersion(number=0),))
