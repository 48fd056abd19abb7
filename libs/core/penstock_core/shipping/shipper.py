"""Ships what one attempt writes, while it runs and at its end."""

from __future__ import annotations

from typing import Protocol

from penstock_core.shipping.masking import Readable
from penstock_core.shipping.messages import AttemptKey, Entry, Message, Messages, latest, stored_artifact


class Outbox(Protocol):
    """Takes what a `Shipper` has read, in order; returns at once."""

    def publish(self, message: Message) -> None:
        """Publish a part of the output or of the metrics, or the progress."""
        ...

    def commit(self, attempt: AttemptKey, body: Entry) -> None:
        """Announce an artifact or a checkpoint that the attempt stored: the body of `ArtifactCommitted`, unverified."""
        ...


class Shipper:
    """Reads the files of one attempt and passes their content on.

    Args:
        attempt: the attempt.
        tail: its files.
        outbox: gets the messages.
    """

    def __init__(self, attempt: AttemptKey, tail: Readable, outbox: Outbox) -> None:
        self._attempt = attempt
        self._tail = tail
        self._outbox = outbox
        self._messages = Messages(attempt)

    def poll(self, *, last: bool = False) -> bool:
        """Ship at most about `BATCH` bytes of each file. With `last`, partial lines too.

        Returns:
            Whether nothing is left; after the attempt has ended, call it with `last` until this is so.
        """
        points = self._tail.points(last=last)
        entries = self._tail.entries(last=last)
        for message in self._messages.metrics(points):
            self._outbox.publish(message)
        for message in self._messages.output(latest(points) + entries):
            self._outbox.publish(message)
        report = self._tail.progress(last=last)
        if report is not None:
            self._outbox.publish(self._messages.progress(report))
        for entry in self._tail.commits(last=last):
            self._outbox.commit(self._attempt, stored_artifact(self._attempt, entry))
        return self._tail.exhausted
