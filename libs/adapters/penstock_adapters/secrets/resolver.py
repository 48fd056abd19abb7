"""Resolves references: finds the source of a secret, checks who uses it, and returns the value."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from penstock_adapters.secrets.stored import LastUse, StoredSecrets
from penstock_core.secrets import records, references
from penstock_core.secrets.records import SecretError, SecretRecord, SecretSource, SecretUser, SecretValue
from penstock_core.secrets.references import SecretReference

_USE_INTERVAL = 60.0
"""Seconds between two records of the use of a secret."""

_USES = 10_000


class Secrets:
    """All secrets that a service can use.

    Args:
        store: the platform's own.
        others: sources that operators configure. The store comes first; `set` refuses a name that another source has.
        clock: Unix seconds.
    """

    def __init__(
        self, store: StoredSecrets, others: Sequence[SecretSource] = (), clock: Callable[[], float] = time.time
    ) -> None:
        self.store = store
        self._sources: tuple[SecretSource, ...] = (store, *others)
        self._clock = clock
        self._used: dict[tuple[str, str], float] = {}

    async def find(self, project: str, name: str) -> tuple[SecretSource, SecretRecord] | None:
        """Return a secret with its source, the first one that has it; None if there is none."""
        references.check_name(name)
        for source in self._sources:
            if (record := await source.record(project, name)) is not None:
                return source, record
        return None

    async def records(self, project: str) -> list[SecretRecord]:
        """Return all secrets of a project by name."""
        found: dict[str, SecretRecord] = {}
        for source in self._sources:
            for record in await source.records(project):
                found.setdefault(record.name, record)
        return [found[name] for name in sorted(found)]

    async def resolve(self, reference: SecretReference, user: SecretUser, by: str) -> SecretValue:
        """Return the value that a reference names.

        Args:
            reference: the reference.
            user: the pipeline or the deployment that uses it, and its project.
            by: what uses it, such as `run r1, step train`, for the record of its last use.

        Raises:
            SecretError: there is no such secret or version, the user may not use it, or its value cannot be used. The
                message has no part of the value.
            UnavailableError: its source does not answer; trying again may help.
        """
        source, record = await self.check(reference, user)
        number = 0 if source is not self.store else record.find(reference.version)
        value = await source.value(user.project, reference.name, number)
        if value is None:
            raise records.missing(reference, user.project)
        try:
            records.check_value(value.value)
        except SecretError as error:
            raise SecretError(
                f"secret {reference.name!r} of the source {source.name!r} cannot be used: {error}"
            ) from error
        await self._record_use(user.project, reference.name, by)
        return value

    async def check(self, reference: SecretReference, user: SecretUser) -> tuple[SecretSource, SecretRecord]:
        """Check that a reference can be resolved, as far as this is known without its value.

        Raises:
            SecretError: there is no such secret or version, or the user may not use it.
            UnavailableError: its source does not answer; trying again may help.
        """
        found = await self.find(user.project, reference.name)
        if found is None:
            raise records.missing(reference, user.project)
        source, record = found
        record.check(user)
        if source is self.store:
            record.find(reference.version)
        elif reference.version is not None:
            raise SecretError(
                f"secret {reference.name!r} comes from the source {source.name!r}, which has no versions: remove "
                f"'@{reference.version}'"
            )
        return found

    async def _record_use(self, project: str, name: str, by: str) -> None:
        now = self._clock()
        if now - self._used.get((project, name), 0.0) >= _USE_INTERVAL:
            if len(self._used) >= _USES:
                self._used.clear()
            self._used[project, name] = now
            await self.store.record_use(project, name, LastUse(now, by))
