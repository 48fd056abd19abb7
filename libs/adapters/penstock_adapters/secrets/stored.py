"""The encrypted store of secrets, in a bucket.

Keys, for the secret `db` of the project `demo`:

- `demo.record.db`: the record, without values. It is replaced by compare-and-set. After `delete` it has no versions and
  remains, so that a version number never gets another value.
- `demo.value.db.3`: version 3, encrypted, with its project, name and version inside: a copy under another key of the
  bucket is refused.
- `demo.used.db`: when it was used last, and by whom.
- `keys`: the name of the default key file.

A value is written before the record that names it and removed after it: what a crash leaves is a value that no record
names, which the next change of the secret removes.
"""

from __future__ import annotations

import dataclasses
import secrets as random
from collections.abc import Sequence
from pathlib import Path

import orjson
import pydantic

from penstock_adapters.nats.buckets.kv import Bucket, Entry
from penstock_adapters.nats.bus import Bus
from penstock_adapters.secrets.keys import GivenKeys, KeyFile
from penstock_contracts import subjects
from penstock_core import ids
from penstock_core.errors import PenstockError, UnavailableError
from penstock_core.frozen import frozen
from penstock_core.secrets import records
from penstock_core.secrets.records import (
    VERSIONS_KEPT,
    SecretError,
    SecretRecord,
    SecretValue,
    SecretVersion,
    UnreadableSecretError,
)

_RECORD = pydantic.TypeAdapter(SecretRecord)
_TRIES = 50
_KEYS = "keys"


@frozen()
class LastUse:
    """When a secret was used last, in Unix seconds, and by whom."""

    at: float
    by: str


@frozen(kw_only=True)
class Rotation:
    """What a rotation of the key did.

    Attributes:
        new_key: whether it added a key; not if the key file is read-only.
        keys: what identifies the keys, the one that encrypts first.
        encrypted: values that are encrypted with the first key now and were not before.
        unreadable: values that no key of the file decrypts.
        dropped: keys that were removed from the file.
    """

    new_key: bool
    keys: tuple[str, ...]
    encrypted: int
    unreadable: int
    dropped: int = 0


class StoredSecrets:
    """The store; a `SecretSource` whose secrets can be changed. Reads see every acknowledged write.

    Args:
        bus: to NATS.
        keys: the keys, or the path of their file; None: a file in the user's configuration folder.
    """

    name = "store"

    def __init__(self, bus: Bus, keys: KeyFile | Path | None) -> None:
        self._bucket = Bucket(bus, subjects.SECRETS_BUCKET)
        self._keys = KeyFile(keys) if isinstance(keys, Path) else keys

    async def record(self, project: str, name: str) -> SecretRecord | None:
        """See the port."""
        if not (ids.is_name(project) and ids.is_name(name)):
            return None
        found, _ = await self._record(project, name)
        return found if found.versions else None

    async def records(self, project: str) -> list[SecretRecord]:
        """See the port."""
        found = [_read(entry) for entry in await self._bucket.list(f"{project}.record.*")]
        return sorted((record for record in found if record.versions), key=lambda record: record.name)

    async def value(self, project: str, name: str, version: int) -> SecretValue | None:
        """See the port."""
        if not (ids.is_name(project) and ids.is_name(name)):
            return None
        entry = await self._bucket.get_fresh(f"{project}.value.{name}.{version}")
        if entry is None:
            return None
        content = orjson.loads((await self._key_file()).decrypt(entry.value))
        if (content["project"], content["name"], content["version"]) != (project, name, version):
            raise UnreadableSecretError(f"the stored value of secret {name!r} belongs to another secret")
        return SecretValue(value=content["value"], version=version)

    async def put(self, project: str, name: str, value: str, *, by: str, at: float) -> SecretRecord:
        """Add a version. Returns the new record.

        Args:
            project: of the secret.
            name: of the secret.
            value: of the version.
            by: the principal that sets it.
            at: Unix seconds.

        Raises:
            SecretError: the value cannot be a secret, or there is no key.
        """
        records.check_value(value)
        keys = await self._key_file(create=True)
        for _ in range(_TRIES):
            record, revision = await self._record(project, name)
            number = record.last + 1
            while await self._write_value(keys, project, name, number, value) is None:
                number += 1  # another writer is ahead, or died before it wrote the record
            versions = (*record.versions, SecretVersion(number=number, at=at, by=by))[-VERSIONS_KEPT:]
            new = dataclasses.replace(record, versions=versions, last=number)
            if await self._bucket.put(f"{project}.record.{name}", _json(new), revision) is not None:
                await self._tidy(new)
                return new
            await self._bucket.purge(f"{project}.value.{name}.{number}")
        raise UnavailableError(f"secret {name!r} is changed by others at the same time: try again")

    async def allow(
        self, project: str, name: str, pipelines: Sequence[str], deployments: Sequence[str]
    ) -> SecretRecord | None:
        """Limit a secret to pipelines and deployments; to none: the whole project. None if there is no such secret."""
        for _ in range(_TRIES):
            record, revision = await self._record(project, name)
            if not record.versions:
                return None
            new = dataclasses.replace(record, pipelines=tuple(pipelines), deployments=tuple(deployments))
            if await self._bucket.put(f"{project}.record.{name}", _json(new), revision) is not None:
                return new
        raise UnavailableError(f"secret {name!r} is changed by others at the same time: try again")

    async def delete(self, project: str, name: str, version: int | None = None) -> bool:
        """Delete a version, or all of them with the limits on who may use it. False if there is none."""
        for _ in range(_TRIES):
            record, revision = await self._record(project, name)
            if version is None:
                new = SecretRecord(project=project, name=name, last=record.last)
            else:
                versions = tuple(one for one in record.versions if one.number != version)
                new = dataclasses.replace(record, versions=versions)
            if len(new.versions) == len(record.versions):
                return False
            if await self._bucket.put(f"{project}.record.{name}", _json(new), revision) is not None:
                await self._tidy(new)
                if not new.versions:
                    await self._bucket.purge(f"{project}.used.{name}")
                return True
        raise UnavailableError(f"secret {name!r} is changed by others at the same time: try again")

    async def rotate(self, *, drop_old: bool = False) -> Rotation:
        """Encrypt all values with a new key. After a crash, all values are readable, and a repetition completes it.

        Args:
            drop_old: remove the old keys from the file afterwards, if no value needs them. Backups may need them.

        Raises:
            SecretError: there is no key, or old keys are to be dropped and cannot be.
        """
        keys = await self._key_file(create=True)
        added = keys.add()
        encrypted = unreadable = 0
        changed = True
        while changed:  # another gateway may still write with the key before
            changed = False
            unreadable = 0
            for entry in await self._bucket.list("*.value.*.*"):
                if keys.is_current(entry.value):
                    continue
                try:
                    new = keys.encrypt(keys.decrypt(entry.value))
                except UnreadableSecretError:
                    unreadable += 1
                    continue
                changed = True
                encrypted += await self._bucket.put(entry.key, new, entry.revision) is not None
        dropped = 0
        if drop_old:
            if unreadable:
                raise SecretError(
                    f"{unreadable} values cannot be decrypted: no key was removed. Delete them, or restore their key"
                )
            dropped = keys.drop_old()
        return Rotation(
            new_key=added, keys=tuple(keys.ids), encrypted=encrypted, unreadable=unreadable, dropped=dropped
        )

    async def last_uses(self, project: str) -> dict[str, LastUse]:
        """Return the last use of each secret of a project, by name."""
        found = await self._bucket.list(f"{project}.used.*")
        return {entry.key.rpartition(".")[2]: LastUse(**orjson.loads(entry.value)) for entry in found}

    async def record_use(self, project: str, name: str, use: LastUse) -> None:
        """Store when a secret was used last."""
        await self._bucket.put(f"{project}.used.{name}", orjson.dumps(dataclasses.asdict(use)))

    async def _record(self, project: str, name: str) -> tuple[SecretRecord, int]:
        entry = await self._bucket.get_fresh(f"{project}.record.{name}")
        if entry is None:
            return SecretRecord(project=project, name=name), 0
        return _read(entry), entry.revision

    async def _write_value(self, keys: KeyFile, project: str, name: str, version: int, value: str) -> int | None:
        content = {"project": project, "name": name, "version": version, "value": value}
        token = keys.encrypt(orjson.dumps(content))
        return await self._bucket.put(f"{project}.value.{name}.{version}", token, revision=0)

    async def _tidy(self, record: SecretRecord) -> None:
        """Remove the values that no record names. A later writer's number is above `last`."""
        kept = {one.number for one in record.versions}
        for entry in await self._bucket.list(f"{record.project}.value.{record.name}.*"):
            number = int(entry.key.rpartition(".")[2])
            if number <= record.last and number not in kept:
                await self._bucket.purge(entry.key)

    async def _key_file(self, *, create: bool = False) -> KeyFile:
        if self._keys is None:
            entry = await self._bucket.get_fresh(_KEYS)
            if entry is None and create:
                await self._bucket.put(_KEYS, random.token_hex(8).encode(), revision=0)
                entry = await self._bucket.get_fresh(_KEYS)
            if entry is None:
                raise UnreadableSecretError("the platform has no keys for secrets")
            self._keys = KeyFile(default_folder() / f"{entry.value.decode()}.keys")
        if create and not isinstance(self._keys, GivenKeys) and not self._keys.path.exists():
            if await self._bucket.list("*.value.*.*"):
                # With a new key, those secrets would seem to be lost only when they are used.
                raise UnreadableSecretError(
                    f"the key file {self._keys.path} is missing, and there are secrets that are encrypted with it: "
                    "restore it, or delete them"
                )
            self._keys.create()
        return self._keys


def default_folder() -> Path:
    """Return where key files are unless `PENSTOCK_SECRETS_KEY_FILE` is set."""
    return Path("~/.config/penstock/secret-keys").expanduser()


def _json(record: SecretRecord) -> bytes:
    return orjson.dumps(dataclasses.asdict(record))


def _read(entry: Entry) -> SecretRecord:
    try:
        return _RECORD.validate_json(entry.value)
    except pydantic.ValidationError as error:
        raise PenstockError(f"the stored secret {entry.key!r} is unreadable: {error}") from error
