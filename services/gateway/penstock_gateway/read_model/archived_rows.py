"""Rows of archived runs, whose facts are read from the archive instead of the log."""

from __future__ import annotations

from collections.abc import Sequence

from structlog.typing import FilteringBoundLogger

from penstock_adapters.nats.archived_log import Archives
from penstock_adapters.nats.follower import StreamMessage
from penstock_contracts import fact_codec
from penstock_core.errors import PenstockError, UnavailableError
from penstock_core.facts import RunArchived
from penstock_gateway.read_model.database import ReadModel

_BATCH = 2000
_KEPT_KINDS = (".archived", ".deleted")


class ArchivedRows:
    """Called with messages of the log before they are projected; returns those that are still to be projected.

    Rows of a run that was archived after it was projected exist already: writing them again changes nothing.
    """

    def __init__(self, archives: Archives, model: ReadModel, log: FilteringBoundLogger) -> None:
        self._archives = archives
        self._model = model
        self._log = log

    async def __call__(self, items: Sequence[StreamMessage]) -> Sequence[StreamMessage]:
        """Write the rows of the runs whose archiving is among the messages.

        Raises:
            UnavailableError: the store or the database does not answer.
        """
        written: set[str] = set()
        for item in items:
            if item.subject.endswith(".archived"):
                fact = fact_codec.read(item.subject, item.data)
                if isinstance(fact, RunArchived) and await self._write(fact):
                    written.add(fact.run_id)
        if not written:
            return items
        return [
            item for item in items if item.subject.endswith(_KEPT_KINDS) or item.subject.split(".", 3)[2] not in written
        ]

    async def _write(self, fact: RunArchived) -> bool:
        try:
            facts = await self._archives.facts(fact)
        except UnavailableError:
            raise
        except PenstockError as error:
            self._log.error(
                "archive of a run cannot be read; it is listed without steps", run=fact.run_id, error=str(error)
            )
            return False
        for start in range(0, len(facts), _BATCH):
            part = facts[start : start + _BATCH]
            await self._model.write(lambda model, part=part: model.store(part))
        return True
