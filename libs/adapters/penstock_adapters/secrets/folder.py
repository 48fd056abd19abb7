"""Secrets in files that the operator mounts: `FOLDER/PROJECT/NAME`, as Kubernetes and Docker mount them.

No reference can name a file elsewhere: names have neither slashes nor dots.
"""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

from penstock_core import ids
from penstock_core.secrets.records import (
    VALUE_LIMIT,
    SecretRecord,
    SecretValue,
    SecretVersion,
    UnreadableSecretError,
)


class FolderSecrets:
    """A `SecretSource`."""

    name = "files"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def record(self, project: str, name: str) -> SecretRecord | None:
        """See the port."""
        path = self._path(project, name)
        return _record(project, name) if path is not None and await asyncio.to_thread(path.exists) else None

    async def records(self, project: str) -> list[SecretRecord]:
        """See the port."""
        names = await asyncio.to_thread(self._names, project)
        return [_record(project, name) for name in names]

    async def value(self, project: str, name: str, version: int) -> SecretValue | None:
        """See the port. One line break at the end is not part of the value."""
        path = self._path(project, name)
        return await asyncio.to_thread(_read, path, name) if path is not None else None

    def _path(self, project: str, name: str) -> Path | None:
        return self._folder / project / name if ids.is_name(project) and ids.is_name(name) else None

    def _names(self, project: str) -> list[str]:
        try:
            return sorted(
                one.name for one in (self._folder / project).iterdir() if ids.is_name(one.name) and one.is_file()
            )
        except OSError:
            return []


def _read(path: Path, name: str) -> SecretValue | None:
    try:
        # To open a FIFO would block until somebody writes into it.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnreadableSecretError(f"the file of secret {name!r} cannot be read: {error.strerror}") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UnreadableSecretError(f"the file of secret {name!r} is not a regular file")
        data = os.read(descriptor, VALUE_LIMIT + 3)
    finally:
        os.close(descriptor)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        # `from None`: the error has the value.
        raise UnreadableSecretError(
            f"the file of secret {name!r} is not UTF-8: encode binary data with Base64"
        ) from None
    return SecretValue(value=text.removesuffix("\n").removesuffix("\r"))


def _record(project: str, name: str) -> SecretRecord:
    return SecretRecord(project=project, name=name, source="files", versions=(SecretVersion(number=0),))
