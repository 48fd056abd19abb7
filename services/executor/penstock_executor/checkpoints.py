"""The checkpoint that the next attempt of a step resumes from."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from penstock_contracts import subjects
from penstock_core.artifacts import committed
from penstock_core.errors import PenstockError, UnavailableError
from penstock_core.facts import ArtifactCommitted, AttemptRequested
from penstock_core.pipeline.values import Value
from penstock_core.ports import Recorded


async def latest_checkpoint(
    request: AttemptRequested,
    last: Callable[[list[str]], Awaitable[dict[str, Recorded]]],
    fetch: Callable[[Sequence[Value]], Awaitable[None]],
    warn: Callable[..., None],
) -> Value | None:
    """Fetch the latest checkpoint of earlier attempts that still exists; None when there is none.

    Args:
        request: the attempt.
        last: reads the last facts on subjects.
        fetch: downloads objects to this machine; raises `PenstockError` for one that no longer exists.
        warn: writes to the log of the service.

    Raises:
        UnavailableError: the log or the store does not answer.
    """
    if request.attempt == 1:
        return None
    found = await last([subjects.committed(request.run_id, request.key, "*", committed.CHECKPOINT)])
    facts = [record.fact for record in found.values() if isinstance(record.fact, ArtifactCommitted)]
    for fact in committed.checkpoints(facts, request.attempt):
        try:
            await fetch([fact.value])
        except UnavailableError:
            raise
        except PenstockError as error:
            place = f"{fact.run_id}/{fact.key}/{fact.attempt}"
            warn("checkpoint missing", attempt=place, error=str(error))
            continue
        return fact.value
    return None
