"""The identity of a Python environment: implementation, minor version and installed distributions, never a path.

`packages` maps normalized names of distributions to versions. A distribution installed from a local folder has the
digest of its files behind its version, because its version alone does not identify its content.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """An environment: `implementation` such as `cpython`, `version` such as `3.11.7`, and `packages`."""

    implementation: str
    version: str
    packages: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def python(self) -> str:
        """Implementation and minor version, such as `cpython 3.11`."""
        return f"{self.implementation} {'.'.join(self.version.split('.')[:2])}"

    def digest(self) -> str:
        """SHA-256 in hexadecimal of what the environment is identified by."""
        identity = [2, self.python, sorted(_relevant(self.packages).items())]
        return hashlib.sha256(json.dumps(identity, separators=(",", ":")).encode()).hexdigest()


def differences(wanted: Environment, found: Environment) -> list[str]:
    """What `found` lacks of `wanted`, for people; empty where code for `wanted` can run in `found`.

    Additional distributions are no difference.
    """
    result = [] if wanted.python == found.python else [f"Python {wanted.python} is required, it has {found.python}"]
    have = found.packages
    for name, version in sorted(_relevant(wanted.packages).items()):
        if name not in have:
            result.append(f"{name} {version} is missing")
        elif have[name] != version:
            result.append(f"{name} {version} is required, it has {have[name]}")
    return result


def shorten(differences: list[str]) -> str:
    """The first differences and the number of further ones."""
    more = len(differences) - _SHOWN
    return "; ".join(differences[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _relevant(packages: Mapping[str, str]) -> dict[str, str]:
    """Without installers, and without Penstock's own distributions: the platform may be updated between runs."""
    return {name: version for name, version in packages.items() if not _is_tool(name)}


def _is_tool(name: str) -> bool:
    return name in ("pip", "uv", "penstock") or name.startswith("penstock-")
