"""Reports what happens to the attempts of one executor, and validates what they send."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import orjson

from penstock_adapters.process.job import Job
from penstock_contracts import fact_codec as codec
from penstock_contracts import subjects
from penstock_core import exhaustion
from penstock_core.facts import (
    ArtifactCommitted,
    AttemptFinished,
    AttemptRequested,
    AttemptStarted,
    ErrorInfo,
    Outcome,
)
from penstock_core.ports import AttemptEvents
from penstock_core.secrets.masking import Masker
from penstock_core.shipping import masking
from penstock_core.shipping.messages import AttemptKey, Entry, Message

_log = logging.getLogger(__name__)


class AttemptOutbox(Protocol):
    """Takes what attempts write, in order for each; returns at once."""

    def publish(self, message: Message) -> None:
        """Publish a part of the output or of the metrics of an attempt."""
        ...

    def commit(self, fact: ArtifactCommitted) -> None:
        """Announce an object that an attempt stored in the local artifact store."""
        ...


class AttemptReporter:
    """Calls the listeners of one executor. An exception of theirs is logged and affects no other attempt.

    It is the `penstock_core.shipping.shipper.Outbox` of all attempts: lines about stored artifacts that are not valid
    are dropped.
    """

    def __init__(self, executor_id: str, events: AttemptEvents, outbox: AttemptOutbox) -> None:
        self._id = executor_id
        self._events = events
        self._outbox = outbox
        self._host = socket.gethostname()

    def started(self, job: Job) -> None:
        """Report that the job's process runs."""
        run_id, key, attempt = job.name
        fact = AttemptStarted(
            run_id=run_id,
            key=key,
            attempt=attempt,
            executor=self._id,
            host=self._host,
            pid=job.pid,
            started_at=job.started_at,
        )
        _call(self._events.started, fact)

    def publish(self, message: Message) -> None:
        """See the protocol."""
        _call(self._outbox.publish, message)

    def commit(self, attempt: AttemptKey, body: Entry) -> None:
        """See the protocol."""
        fact = codec.decode(subjects.committed(*attempt, str(body["name"])), orjson.dumps(body))
        if isinstance(fact, ArtifactCommitted):
            _call(self._outbox.commit, fact)
        else:
            _log.warning("dropped an invalid line of an attempt about a stored artifact: %s", fact)

    def finished(self, fact: AttemptFinished) -> None:
        """Report the end of an attempt."""
        _call(self._events.finished, fact)

    def end(
        self, attempt: AttemptRequested, outcome: Outcome, error: ErrorInfo, started_at: float = 0.0
    ) -> AttemptFinished:
        """The end of an attempt that did not report one itself."""
        return AttemptFinished(
            run_id=attempt.run_id,
            key=attempt.key,
            attempt=attempt.attempt,
            outcome=outcome,
            error=error,
            executor=self._id,
            started_at=started_at,
            finished_at=time.time(),
        )

    def reported(self, job: Job, body: bytes) -> AttemptFinished:
        """The end that the attempt's process sent, validated. Without a `body`, it is in the result file."""
        subject = subjects.finished(*job.name)
        try:
            body = body or _read(Path(f"{job.base}.result"))
            if secrets := job.where.secrets:
                body = _masked(body, secrets.masker)
            fact = codec.decode(subject, body)
        except (OSError, ValueError) as error:
            fact = codec.UnreadableFact(subject, str(error))
        if isinstance(fact, AttemptFinished) and fact.outcome in (Outcome.SUCCEEDED, Outcome.FAILED):
            short = fact.error is not None and fact.error.type == exhaustion.OUT_OF_RESOURCES
            load = max(0.0, (fact.started_at or fact.finished_at) - job.submitted_at)
            outcome = Outcome.LOST if short else fact.outcome
            return replace(fact, executor=self._id, outcome=outcome, load_seconds=load)
        why = fact.why if isinstance(fact, codec.UnreadableFact) else "a step cannot end like this"
        error = ErrorInfo(type="BadResult", message=f"the result of the step is invalid: {why}")
        return self.end(job.request, Outcome.FAILED, error, job.started_at)


def _masked(body: bytes, masker: Masker) -> bytes:
    """Mask secrets in an end; what is no JSON object is dropped as a whole."""
    end = orjson.loads(body)
    return orjson.dumps(masking.mask_end(end, masker)) if isinstance(end, dict) else b"{}"


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(codec.MAX_BODY + 1)


def _call(listener: Callable[..., None], *args: Any) -> None:
    try:
        listener(*args)
    except Exception:
        _log.exception("a listener of the executor failed")
