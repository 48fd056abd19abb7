"""The lineage of an artifact: the attempts that produced it and those that used it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penstock.client import views


@dataclass(frozen=True, slots=True)
class NamedArtifact:
    """An artifact under the name that an attempt has for it: that of its input or output."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class LineageAttempt:
    """An attempt upstream or downstream of an artifact.

    Attributes:
        key: key of the step; empty for the run itself, when the artifact is one of its inputs.
        source: digest of the step's code.
        level: distance from the artifact, from 1.
        reads: artifacts that the attempt read.
        makes: artifacts that it produced.
    """

    run_id: str
    key: str
    attempt: int
    pipeline: str
    version: int
    level: int
    state: str = ""
    source: str | None = None
    reads: tuple[NamedArtifact, ...] = ()
    makes: tuple[NamedArtifact, ...] = ()


@dataclass(frozen=True, slots=True)
class Lineage:
    """The lineage of an artifact, nearest attempts first.

    Attributes:
        up: the attempts that produced it.
        down: the attempts that used it.
        whole: False where the lineage has more attempts than these.
    """

    sha256: str
    up: tuple[LineageAttempt, ...]
    down: tuple[LineageAttempt, ...]
    whole: bool
    size: int = 0
    media_type: str = ""
    format: str = ""
    filename: str = ""


def parse_lineage(data: Mapping[str, Any]) -> Lineage:
    """Read a lineage from the API's JSON."""
    up, down = (tuple(_attempt(row) for row in data[side]) for side in ("up", "down"))
    return views.build(Lineage, data, up=up, down=down)


def _attempt(row: Mapping[str, Any]) -> LineageAttempt:
    return views.build(LineageAttempt, row, reads=_named(row["reads"]), makes=_named(row["makes"]))


def _named(uses: Sequence[Mapping[str, Any]]) -> tuple[NamedArtifact, ...]:
    return tuple(NamedArtifact(use["name"], use["sha256"]) for use in uses)
