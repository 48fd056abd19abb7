"""Where artifacts come from and what came of them, from Python. `Client` has this."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote

from penstock.client import views
from penstock.client.transport import Transport


class NamedArtifact(NamedTuple):
    """An artifact as an attempt knows it: the name of its input or output, and its digest."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class LineageAttempt:
    """An attempt that made or used an artifact, or something that it was made of.

    Attributes:
        run_id, key, attempt: the attempt; an empty key stands for the run itself, which was given the artifact.
        pipeline, version: what it was an attempt of.
        source: digest of its code.
        level: how far it is away, from 1.
        reads, makes: the artifacts that it read and made.
    """

    run_id: str
    key: str
    attempt: int
    pipeline: str
    version: int
    level: int
    source: str | None = None
    reads: tuple[NamedArtifact, ...] = ()
    makes: tuple[NamedArtifact, ...] = ()


@dataclass(frozen=True, slots=True)
class Lineage:
    """The lineage of an artifact: `up`, the attempts that it was made by, `down`, those that used it, nearest first.

    `whole` is False where there is more than this.
    """

    sha256: str
    up: tuple[LineageAttempt, ...]
    down: tuple[LineageAttempt, ...]
    whole: bool


class LineageMixin:
    """The part of `Client` that knows lineages."""

    transport: Transport

    def lineage(self, sha256: str) -> Lineage:
        """Where an artifact comes from and what came of it, over all runs.

        Args:
            sha256: its digest, 64 hexadecimal digits, as in `run.steps["fit"].outputs["result"]["artifact"]["sha256"]`.

        Raises:
            NotFound: no run has named such an artifact.
        """
        found = self.transport.json("GET", f"/v1/artifacts/{quote(sha256)}/lineage")
        up, down = (tuple(_link(row) for row in found[side]) for side in ("up", "down"))
        return Lineage(found["sha256"], up, down, found["whole"])


def _link(row: dict[str, Any]) -> LineageAttempt:
    return views.build(LineageAttempt, row, reads=_named(row["reads"]), makes=_named(row["makes"]))


def _named(uses: Sequence[dict[str, Any]]) -> tuple[NamedArtifact, ...]:
    return tuple(NamedArtifact(use["name"], use["sha256"]) for use in uses)
