"""The lock of an environment: exact versions with hashes. Its text is an artifact, whose SHA-256 identifies it.

The text is a requirements file, which `pip install --require-hashes -r` and `uv pip sync --require-hashes` read. It is
canonical: sorted, without comments of the resolver. So equal environments have one digest, whichever machine resolved
them, and in whichever order they were declared.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from penstock_core.errors import PenstockError
from penstock_core.frozen import frozen

_HEADER = "# Penstock environment lock, Python "
_PACKAGE = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*==\s*(?P<version>[^\s;]+)\s*(;\s*(?P<marker>.+))?\Z")
_URL = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*@\s*(?P<url>https?://\S+)\s*(;\s*(?P<marker>.+))?\Z")
_HASH = re.compile(r"--hash=(?P<hash>sha(256|384|512):[0-9a-f]+)")


class InvalidLockError(PenstockError):
    """A text is no lock, or a distribution in it has no hash."""


@frozen(kw_only=True)
class LockedPackage:
    """A distribution in a lock: `name`, `version` or `url`, a `marker` (PEP 508) or none, and hashes of its files."""

    name: str
    version: str = ""
    url: str = ""
    marker: str = ""
    hashes: tuple[str, ...] = ()

    def line(self) -> str:
        """Return the distribution as in a requirements file."""
        what = f"{self.name} @ {self.url}" if self.url else f"{self.name}=={self.version}"
        return " \\\n    ".join(
            [what + (f" ; {self.marker}" if self.marker else ""), *map("--hash={}".format, self.hashes)]
        )


@frozen(kw_only=True)
class EnvironmentLock:
    """A lock for one minor version of Python; `packages` are sorted."""

    python: str
    packages: tuple[LockedPackage, ...] = ()

    def text(self) -> str:
        """Return the canonical text."""
        return "\n".join([f"{_HEADER}{self.python}", *(package.line() for package in self.packages)]) + "\n"

    def digest(self) -> str:
        """Return the SHA-256 of the text in hexadecimal."""
        return hashlib.sha256(self.text().encode()).hexdigest()

    def versions(self) -> dict[str, str]:
        """Return versions by name, of a distribution with markers all of its versions."""
        found: dict[str, str] = {}
        for package in self.packages:
            version = package.version or package.url
            found[package.name] = f"{found[package.name]} or {version}" if package.name in found else version
        return found


def make(python: str, resolved: str) -> EnvironmentLock:
    """Return the lock of what a resolver printed as a requirements file with hashes.

    Raises:
        InvalidLockError: a line is no exact version with hashes.
    """
    packages = sorted(_packages(resolved), key=lambda one: (one.name, one.version, one.url, one.marker))
    return EnvironmentLock(python=python, packages=tuple(packages))


def parse(text: str) -> EnvironmentLock:
    """Read the text of a lock.

    Raises:
        InvalidLockError: it is none.
    """
    first, _, rest = text.partition("\n")
    if not first.startswith(_HEADER):
        raise InvalidLockError("the text is not the lock of an environment")
    return make(first.removeprefix(_HEADER).strip(), rest)


def _packages(resolved: str) -> Iterator[LockedPackage]:
    for line in resolved.replace("\\\n", " ").splitlines():
        line = line.partition(" #")[0].strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("-"):
            raise InvalidLockError(
                f"the resolver printed the option {line.split()[0][:100]!r}, which a lock cannot hold"
            )
        hashes = tuple(sorted({found["hash"] for found in _HASH.finditer(line)}))
        what = _HASH.sub("", line).strip()
        found = _PACKAGE.match(what) or _URL.match(what)
        if found is None:
            raise InvalidLockError(f"{what[:200]!r} is not an exact version")
        if not hashes:
            raise InvalidLockError(f"{what[:200]!r} has no hash, so its files could not be verified")
        parts = found.groupdict()
        yield LockedPackage(
            name=re.sub(r"[-_.]+", "-", parts["name"]).lower(),
            version=parts.get("version") or "",
            url=parts.get("url") or "",
            marker=" ".join((parts["marker"] or "").split()),
            hashes=hashes,
        )
