"""Facts about the log of a run that is over: it was archived, or the run was deleted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from penstock_core import ids
from penstock_core.errors import InvalidFactError
from penstock_core.pipeline.values import ArtifactRef

NAMES_LIMIT = 1000
"""Most digests that `RunArchived.digests` holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunArchived:
    """The facts of the run, and what its steps wrote, are in the artifact store. What lies in the log may be purged.

    Attributes:
        archived_at: Unix seconds.
        finished_at: when the run ended, as the log has it.
        history: the object that holds the facts, a compressed history.
        facts: how many it holds.
        last_seq: place in the log of the last one.
        output: the object that holds what steps wrote and measured; None where there was nothing.
        output_seq: place in the stream of output of the last message that it holds.
        names: the digests that the facts name; None when there are too many to be told here.
        folders: those of them that may be the manifest of a folder, which names more.
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
            raise InvalidFactError("an archive holds at least the request of its run")

    @property
    def tail(self) -> str:
        """End of the subject."""
        return "archived"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDeleted:
    """The run is gone: its log, its archive, its rows. This stays for a while, so that it is not asked for again.

    Attributes:
        project: of the run.
        pipeline: of the run.
        deleted_at: Unix seconds.
        because: which policy, or who.
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
