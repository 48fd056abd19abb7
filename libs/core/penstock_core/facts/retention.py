"""Facts about the log of a finished run: it was archived, or the run was deleted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from penstock_core import ids
from penstock_core.errors import InvalidFactError
from penstock_core.pipeline.values import ArtifactRef

NAMES_LIMIT = 1000
"""Most digests in `RunArchived.digests`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunArchived:
    """The facts and the output of the run are in the artifact store. Its log may be purged.

    Attributes:
        archived_at: Unix seconds.
        finished_at: when the run finished, by the log's clock.
        history: the object with the facts, a compressed history.
        facts: how many facts it has.
        last_seq: sequence in the log of the last one.
        output: the object with the output and metrics of the steps; None if there were none.
        output_seq: sequence in the output stream of the last message in it.
        digests: the digests that the facts refer to; None if there are too many to list.
        folders: those of them that may be folder manifests, which refer to more.
    """

    ce_type: ClassVar[str] = "penstock.run.archived.v1"
    append_once: ClassVar[bool] = True

    run_id: str
    history: ArtifactRef
    facts: int
    last_seq: int
    archived_at: float = 0.0
    finished_at: float = 0.0
    output: ArtifactRef | None = None
    output_seq: int = 0
    digests: tuple[str, ...] | None = None
    folders: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        ids.check_name(self.run_id, "run id")
        ids.check_digest(self.history.sha256)
        if self.output is not None:
            ids.check_digest(self.output.sha256)
        if self.facts < 1 or self.last_seq < 1:
            raise InvalidFactError("an archive contains at least the request of its run")

    @property
    def tail(self) -> str:
        """End of the subject."""
        return "archived"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDeleted:
    """The run was deleted: its log, its archive, its rows. This fact stays for a while, so that its id is not reused.

    Attributes:
        project: of the run.
        pipeline: of the run.
        deleted_at: Unix seconds.
        reason: which policy or principal deleted it.
    """

    ce_type: ClassVar[str] = "penstock.run.deleted.v1"
    append_once: ClassVar[bool] = True

    run_id: str
    project: str
    pipeline: str
    deleted_at: float = 0.0
    reason: str = ""

    def __post_init__(self) -> None:
        ids.check_name(self.run_id, "run id")
        ids.check_name(self.project, "project")
        ids.check_name(self.pipeline, "pipeline")

    @property
    def tail(self) -> str:
        """End of the subject."""
        return "deleted"
