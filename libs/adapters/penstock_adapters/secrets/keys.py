"""The file of the keys that encrypt stored secrets. It must not be inside the state folder, or in its backups.

Each line is a key: the first one encrypts, all of them decrypt. `cryptography.fernet` makes and uses them.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Generator
from pathlib import Path

from penstock_core.secrets.records import SecretError, UnreadableSecretError

_LIMIT = 64 * 1024


class KeyFile:
    """The keys in a file, which is read again when it has changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._version: tuple[int, ...] = ()
        self._keys: list[bytes] = []

    def encrypt(self, data: bytes) -> bytes:
        """Encrypt with the first key.

        Raises:
            UnreadableSecretError: there is no key.
        """
        from cryptography.fernet import Fernet  # takes 30 ms, here and below

        return Fernet(self._required()[0]).encrypt(data)

    def decrypt(self, token: bytes) -> bytes:
        """Decrypt with any key.

        Raises:
            UnreadableSecretError: there is no key, or none of them encrypted this.
        """
        from cryptography.fernet import Fernet, InvalidToken, MultiFernet

        try:
            return MultiFernet([Fernet(key) for key in self._required()]).decrypt(token)
        except InvalidToken as error:
            raise UnreadableSecretError(
                f"the secret is encrypted with a key that is not in {self.path}: restore that file, or set it again"
            ) from error

    def is_current(self, token: bytes) -> bool:
        """Return whether the first key has encrypted this."""
        from cryptography.fernet import Fernet, InvalidToken

        try:
            Fernet(self._required()[0]).decrypt(token)
        except InvalidToken:
            return False
        return True

    def create(self) -> None:
        """Write a first key, unless there is one.

        Raises:
            SecretError: the file cannot be written.
        """
        if not self._read():
            with self._locked():
                if not self._read():
                    self._write([_new_key()])

    def add(self) -> bool:
        """Put a new key before the others; False if the file is read-only, such as a mounted one."""
        if not self._writable():
            return False
        with self._locked():
            self._write([_new_key(), *self._required()])
        return True

    def drop_old(self) -> int:
        """Remove all keys but the first. Returns how many.

        Raises:
            SecretError: the file cannot be written.
        """
        with self._locked():
            keys = self._required()
            if len(keys) > 1:
                self._write(keys[:1])
            return len(keys) - 1

    @property
    def ids(self) -> list[str]:
        """What identifies the keys, in order. A key has 256 random bits, so its digest does not reveal it."""
        return [hashlib.sha256(key).hexdigest()[:8] for key in self._read()]

    def _required(self) -> list[bytes]:
        keys = self._read()
        if not keys:
            raise UnreadableSecretError(
                f"the keys of the secrets are missing: {self.path} does not exist or is empty. Restore it, or set "
                "PENSTOCK_SECRETS_KEY_FILE to where it is"
            )
        return keys

    def _read(self) -> list[bytes]:
        try:
            about = self.path.stat()
            version = (about.st_mtime_ns, about.st_ino, about.st_size)
            if version != self._version:
                with self.path.open("rb") as file:
                    lines = [line.strip() for line in file.read(_LIMIT).splitlines()]
                keys = [line for line in lines if line and not line.startswith(b"#")]
                _check(keys)
                self._version, self._keys = version, keys
        except FileNotFoundError:
            self._version, self._keys = (), []
        except OSError as error:
            raise UnreadableSecretError(
                f"the keys of the secrets, {self.path}, cannot be read: {error.strerror}. Set "
                "PENSTOCK_SECRETS_KEY_FILE to a file outside of the state folder"
            ) from error
        except ValueError:
            raise UnreadableSecretError(
                f"{self.path} has a line that is no key: 32 bytes in URL-safe Base64"
            ) from None  # the error may have the line
        return self._keys

    def _writable(self) -> bool:
        return os.access(self.path.parent, os.W_OK) and os.access(self.path, os.W_OK)

    def _write(self, keys: list[bytes]) -> None:
        """Replace the file at once: after a crash, it has the old keys or the new ones."""
        part = self.path.with_name(f".{self.path.name}.new")
        try:
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb") as file:  # noqa: PTH123
                file.write(b"\n".join(keys) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.path)
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise SecretError(f"the keys of the secrets cannot be written to {self.path}: {error.strerror}") from error

    @contextlib.contextmanager
    def _locked(self) -> Generator[None]:
        """Exclude other processes that write the file."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(self.path.with_name(f".{self.path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SecretError(
                f"the keys of the secrets cannot be written to {self.path}: {error.strerror}. Set "
                "PENSTOCK_SECRETS_KEY_FILE to a file that the platform may write, outside of its state folder"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._version = ()
            yield
        finally:
            os.close(lock)


class GivenKeys(KeyFile):
    """Keys from the setting `PENSTOCK_SECRETS_KEY`, separated by white space: operators rotate them.

    Args:
        text: the keys.
    """

    def __init__(self, text: str) -> None:
        super().__init__(Path("PENSTOCK_SECRETS_KEY"))
        self._given = text.encode().split()

    def create(self) -> None:
        """See the base: there are keys."""

    def add(self) -> bool:
        """See the base."""
        return False

    def drop_old(self) -> int:
        """See the base."""
        raise SecretError("the keys are in PENSTOCK_SECRETS_KEY: remove the old ones there")

    def _read(self) -> list[bytes]:
        try:
            _check(self._given)
        except ValueError:
            raise UnreadableSecretError(
                "PENSTOCK_SECRETS_KEY has a word that is no key: 32 bytes in URL-safe Base64"
            ) from None  # the error may have the word
        return self._given


def _new_key() -> bytes:
    from cryptography.fernet import Fernet

    return Fernet.generate_key()


def _check(keys: list[bytes]) -> None:
    """Raise `ValueError` if one is none."""
    from cryptography.fernet import Fernet

    for key in keys:
        Fernet(key)
