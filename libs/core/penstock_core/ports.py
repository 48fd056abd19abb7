"""The ports of the core: what adapters must implement.

Every method may raise `UnavailableError` (retryable); other errors are final. Implementations make no decisions.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from penstock_core.errors import InvalidIdError
from penstock_core.facts import AttemptFinished, AttemptRequested, AttemptStarted, Fact


@dataclass(frozen=True, slots=True)
class Recorded:
    """A fact in the log: its sequence and the log's own time of writing, in Unix seconds."""

    seq: int
    at: float
    fact: Fact


class RunLog(Protocol):
    """The append-once log of all runs."""

    async def append(self, facts: Sequence[Fact]) -> list[bool]:
        """Append facts. Returns for each whether it was written; False if its subject was taken already."""
        ...

    async def append_unless(self, fact: Fact, kinds: tuple[type[Fact], ...]) -> bool:
        """Append a fact unless the run's log contains a fact of one of these kinds or at its subject.

        Nothing is appended to the log of the run between the check and the write. Returns whether it was written.
        """
        ...

    async def read(self, run_id: str, after: int = 0) -> list[Recorded]:
        """Return the facts of a run with a sequence above `after`, in log order."""
        ...


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object of the artifact store: its digest, its size in bytes, when it was stored last, in Unix seconds."""

    sha256: str
    size: int
    modified: float


class ObjectStore(Protocol):
    """Content-addressed objects: the key is the SHA-256 of the bytes. Storing an existing object succeeds.

    An object becomes visible completely or not at all. Memory stays bounded whatever its size.
    """

    async def prepare(self) -> None:
        """Check that the store can be used, and remove leftovers of interrupted writers. Called once, at start."""
        ...

    async def put_file(self, path: str, sha256: str, size: int) -> None:
        """Store the file at `path` under its digest; size and digest are verified."""
        ...

    async def put_bytes(self, data: bytes) -> str:
        """Store bytes. Returns their digest."""
        ...

    async def put_stream(self, chunks: AsyncIterable[bytes], sha256: str, limit: int | None = None) -> int:
        """Store a stream of at most `limit` bytes under its digest, which is verified. Returns its size."""
        ...

    def open(self, sha256: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes]:
        """Stream the bytes of an object from `start` to `end` (exclusive, capped at the end of the object).

        Reading a complete object verifies its digest before the last chunk is yielded.
        """
        ...

    async def stat(self, sha256: str) -> int | None:
        """Return the size of an object in bytes; None if it does not exist."""
        ...

    async def delete(self, sha256: str) -> None:
        """Delete an object. Deleting a missing object succeeds."""
        ...

    async def close(self) -> None:
        """Close connections and threads."""
        ...


class SweptStore(Protocol):
    """What mark-and-sweep garbage collection needs of a store.

    Storing or touching an object protects it from being swept for the grace period.
    """

    async def touch(self, sha256: str) -> int | None:
        """Like `stat`, but restarts the grace period, for an object that is about to be referred to."""
        ...

    def listing(self) -> AsyncGenerator[list[StoredObject]]:
        """List all objects, in pages. Objects stored or deleted meanwhile may be missing or not."""
        ...

    async def sweep(self, sha256: str, before: float) -> bool:
        """Delete an unreferenced object in two phases: mark it first, delete it when swept again.

        It is deleted if it was marked before the Unix time `before`, and neither stored nor touched since.

        Returns:
            Whether it was deleted.
        """
        ...

    def marked(self) -> AsyncGenerator[list[str]]:
        """List the digests of marked objects, in pages. Touching an object removes its mark."""
        ...

    async def tidy(self) -> None:
        """Remove what interrupted writers left at least a day ago."""
        ...


class NoteStore(Protocol):
    """Small named entries beside the objects, such as the list of archives."""

    async def put_note(self, name: str, data: bytes) -> None:
        """Store a few bytes under a name such as `archives/default/2026/11/r1`, replacing what was stored there."""
        ...

    def notes(self, prefix: str) -> AsyncGenerator[tuple[str, bytes]]:
        """List the notes whose names have this prefix."""
        ...

    async def delete_note(self, name: str) -> None:
        """Delete a note. Deleting a missing note succeeds."""
        ...


class ObjectLocations(Protocol):
    """Where processes transfer the bytes of objects themselves, past the artifact service."""

    def locate(
        self, sha256: str, *, write: bool = False, size: int | None = None, expires: float = 3600.0
    ) -> dict[str, Any]:
        """Return where a process may read or write the bytes: `{"path"}` on this machine, or `{"url", "headers"}`.

        A location for writing is bound to the digest and, if given, the size, as far as the store can enforce it.
        """
        ...

    async def locate_parts(self, sha256: str, size: int, expires: float = 3600.0) -> dict[str, Any] | None:
        """Return where to upload an object in parts (`{"parts", "part_size", "upload"}`); None if one URL suffices."""
        ...

    async def complete_parts(self, sha256: str, upload: str, tags: Sequence[str], size: int) -> None:
        """Complete an object from its uploaded parts, or abort the upload if there are no tags."""
        ...


class ArtifactStore(ObjectStore, SweptStore, NoteStore, ObjectLocations, Protocol):
    """The store of a platform, which one adapter implements."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A mark with which sweepers and writers coordinate about an object, if the store itself has no means for it.

    Attributes:
        word: `marked`: it was unreferenced at `at`; `wanted`: it is about to be referred to; `doomed`: it is being
            deleted.
        at: Unix seconds.
        revision: of this mark; 0 if it is not stored.
    """

    word: Literal["marked", "wanted", "doomed"]
    at: float
    revision: int = 0


class Marks(Protocol):
    """Marks on objects, replaced by compare-and-set."""

    async def get(self, sha256: str) -> Mark | None:
        """Return the mark of an object, as of the last acknowledged write."""
        ...

    async def put(self, sha256: str, mark: Mark) -> Mark | None:
        """Replace the mark whose revision `mark` has. Returns the new one; None if it has changed meanwhile."""
        ...

    async def drop(self, sha256: str) -> None:
        """Forget the mark of a deleted object."""
        ...

    async def marked(self) -> list[str]:
        """List the objects whose mark is `marked`."""
        ...


_NOTE = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*\Z")


def check_note(name: str) -> str:
    """Return `name` if it is a valid name of a note: words of letters, digits, `_` and `-`, separated by slashes.

    Raises:
        InvalidIdError: it is not.
    """
    if not _NOTE.match(name):
        raise InvalidIdError(f"{name[:120]!r} is not a valid name of a note")
    return name


class AttemptEvents(Protocol):
    """What an `Executor` reports about its attempts. Calls for one attempt are made in order."""

    def started(self, fact: AttemptStarted) -> None:
        """The attempt runs."""
        ...

    def finished(self, fact: AttemptFinished) -> None:
        """The attempt ended, with its reason if it did not succeed. Nothing follows."""
        ...


class Executor(Protocol):
    """Runs attempts outside of the caller's process, and reports each one to `AttemptEvents` once it has ended.

    Attributes:
        durable: whether a submitted attempt outlives the executor, such as a pod. If the executor stops or dies, the
            delivery of the attempt goes to another one, which submits it again and so takes it over.
    """

    durable: bool

    async def submit(self, attempt: AttemptRequested) -> None:
        """Have an attempt run. Idempotent by run, step and number: submitting it again changes nothing.

        Raises:
            UnavailableError: it cannot be submitted now; nothing is reported about it.
            PenstockError: it can never run, for the reason given; nothing is reported about it.
        """
        ...

    async def cancel(self, run_id: str, key: str, attempt: int, reason: str) -> None:
        """Have an attempt end: SIGTERM, then SIGKILL after a grace period. Unknown attempts are ignored."""
        ...

    async def close(self) -> None:
        """Release everything. Attempts that do not outlive the executor are ended and reported as lost."""
        ...
