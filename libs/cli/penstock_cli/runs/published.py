"""`penstock run NAME[@VERSION]`: runs of a registered pipeline, whose source need not be on this machine."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock_cli.errors import UsageError
from penstock_cli.runs import compiled
from penstock_core import git_sources, ids

if TYPE_CHECKING:
    from penstock.client.client import Client
    from penstock.client.pipelines import Version


@dataclass(frozen=True, slots=True)
class Reference:
    """A registered pipeline: a version of it, or the latest published one if `version` is None."""

    name: str
    version: int | None = None

    def __str__(self) -> str:
        return self.name if self.version is None else f"{self.name}@{self.version}"


def parse(source: str) -> Reference | None:
    """Parse the argument of `penstock run`; return None if it is a file or folder, or looks like one.

    Raises:
        UsageError: what follows the @ is not the number of a version, or it is a source in Git.
    """
    if source.startswith(git_sources.PREFIX):
        raise UsageError(f"register the pipeline first: penstock register '{source}', then: penstock run NAME")
    if Path(source).exists() or source.endswith(".py") or os.sep in source:
        return None
    name, at, version = source.partition("@")
    if not ids.is_name(name):
        return None
    if not at:
        return Reference(name)
    if not (version.isascii() and version.isdecimal() and int(version) > 0):
        raise UsageError(f"{source!r}: expected NAME@VERSION with the number of a version, such as {name}@1")
    return Reference(name, int(version))


def get(client: Client, reference: Reference) -> Version:
    """Return the version with its definition.

    Raises:
        UsageError: there is none, or none is published.
    """
    known = client.pipelines.versions(reference.name)
    number = reference.version or next((version.version for version in known if version.latest), None)
    if number in {version.version for version in known}:
        return client.pipelines.get(reference.name, number)
    if known:
        have = ", ".join(str(version.version) for version in known[-10:])
        if reference.version is not None:
            raise UsageError(f"pipeline {reference.name!r} has no version {reference.version}; it has: {have}")
        raise UsageError(
            f"pipeline {reference.name!r} has no published version: `penstock register FILE` publishes one, or run an "
            f"experiment by its number, such as {reference.name}@{known[-1].version}"
        )
    published = sorted({version.pipeline for version in client.pipelines.versions() if version.latest})
    close = difflib.get_close_matches(reference.name, published, n=1)
    meant = f" (did you mean {close[0]!r}?)" if close else ""
    have = f"; published are: {', '.join(published[:20])}" if published else ""
    raise UsageError(f"there is no file {reference.name!r} and no pipeline of this name{meant}{have}")


def of(client: Client, name: str) -> Version:
    """Return the version that a command names as `PIPELINE` or `PIPELINE@VERSION`.

    Raises:
        UsageError: it is no such name, or there is no such version.
    """
    reference = parse(name)
    if reference is None:
        raise UsageError(f"{name!r} is not the name of a registered pipeline: expected PIPELINE or PIPELINE@VERSION")
    return get(client, reference)


def inputs(version: Version, params: list[str]) -> dict[str, Any]:
    """Parse `-p NAME=VALUE` by the parameters of the version.

    Raises:
        UsageError: an option has another form, or is repeated.
        InputError: a value does not fit.
    """
    return compiled.parse(version.definition["params"], params)
