"""The ports of Penstock on one page: what the core's surroundings must offer. Adapters implement them.

Every method may raise `UnavailableError` (try again later); other errors are final. Implementations hold no decision.
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
    """A fact as the log holds it: its sequence number and the log's own time of writing, in Unix seconds."""

    seq: int
    at: float
    fact: Fact


class RunLog(Protocol):
    """The append-once log of all runs."""

    async def append(self, facts: Sequence[Fact]) -> list[bool]:
        """Append facts; for each, True when it was written and False when its place was already taken."""
        ...

    async def read(self, run_id: str, after: int = 0) -> list[Recorded]:
        """The facts of a run with a sequence number above `after`, in log order."""
        ...


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object of the artifact store: its digest, its size in bytes, and when it was put last, in Unix seconds."""

    sha256: str
    size: int
    modified: float


class ArtifactStore(Protocol):
    """Content-addressed objects: the key is the SHA-256 of the bytes. Putting what is there is success.

    An object becomes visible whole or not at all. Memory stays bounded whatever its size. Putting and touching an
    object keeps it from being swept for as long as the sweeper's grace period says.
    """

    async def prepare(self) -> None:
        """Check that the store can be used, and remove what interrupted writers left. To be called once, at start."""
        ...

    async def put_file(self, path: str, sha256: str, size: int) -> None:
        """Store the file at `path` under its digest; verifies size and digest."""
        ...

    async def put_bytes(self, data: bytes) -> str:
        """Store bytes; returns their digest."""
        ...

    async def put_stream(self, chunks: AsyncIterable[bytes], sha256: str, limit: int | None = None) -> int:
        """Store a stream of at most `limit` bytes under its digest, which is verified; returns its size."""
        ...

    def open(self, sha256: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes]:
        """Stream an object's bytes from `start` to `end` (exclusive; cut at the object's end).

        A whole read verifies the digest before it gives the last chunk: who gets all bytes got the right ones.
        """
        ...

    async def stat(self, sha256: str) -> int | None:
        """The object's size in bytes, or None when it is not there."""
        ...

    async def delete(self, sha256: str) -> None:
        """Remove an object; removing what is not there is success."""
        ...

    async def touch(self, sha256: str) -> int | None:
        """What `stat` gives, for whoever is about to name the object: its time begins anew, as if it were put now."""
        ...

    def listing(self) -> AsyncGenerator[list[StoredObject]]:
        """All objects, in parts; those that are put or removed meanwhile may be missing or not."""
        ...

    async def sweep(self, sha256: str, before: float) -> bool:
        """Remove an object that nothing names; the first time, only mark it.

        It is removed when it was marked before the Unix time `before`, and neither put nor touched since.

        Returns:
            Whether it was removed.
        """
        ...

    def marked(self) -> AsyncGenerator[list[str]]:
        """The digests of the objects that are marked, in parts. Touching an object takes its mark away."""
        ...

    async def tidy(self) -> None:
        """Remove what interrupted writers left a day ago or longer."""
        ...

    async def put_note(self, name: str, data: bytes) -> None:
        """Store a few bytes under a name such as `archives/default/2026/11/r1`, in place of what was there."""
        ...

    def notes(self, prefix: str) -> AsyncGenerator[tuple[str, bytes]]:
        """The notes whose names begin like this."""
        ...

    async def delete_note(self, name: str) -> None:
        """Remove a note; removing what is not there is success."""
        ...

    def locate(
        self, sha256: str, *, write: bool = False, size: int | None = None, expires: float = 3600.0
    ) -> dict[str, Any]:
        """Where a process may get or put the bytes itself: `{"path"}` on this machine, or `{"url", "headers"}`.

        A location for writing is bound to the digest and, where given, the size, as far as the store can enforce it.
        """
        ...

    async def locate_parts(self, sha256: str, size: int, expires: float = 3600.0) -> dict[str, Any] | None:
        """Where to put an object in parts: `{"parts", "part_size", "upload"}`; None where one location is enough."""
        ...

    async def complete_parts(self, sha256: str, upload: str, tags: Sequence[str], size: int) -> None:
        """Make an object of the parts that were put, or give them up when there are no tags."""
        ...

    async def close(self) -> None:
        """Let go of connections and threads."""
        ...


@dataclass(frozen=True, slots=True)
class Mark:
    """What sweepers and writers tell each other about an object, where the store itself has no such means.

    Attributes:
        word: `marked`: nothing named it at `at`; `wanted`: somebody is about to name it; `doomed`: it is being removed.
        at: Unix seconds.
        revision: of this mark; 0 for one that is not stored.
    """

    word: Literal["marked", "wanted", "doomed"]
    at: float
    revision: int = 0


class Marks(Protocol):
    """Marks on objects; each is replaced only where it is still what was read."""

    async def get(self, sha256: str) -> Mark | None:
        """The mark of an object, as new as the last write that was acknowledged."""
        ...

    async def put(self, sha256: str, mark: Mark) -> Mark | None:
        """Replace the mark whose revision `mark` has; the new one, or None when it has changed meanwhile."""
        ...

    async def drop(self, sha256: str) -> None:
        """Forget the mark of an object that was removed."""
        ...

    async def marked(self) -> list[str]:
        """The objects whose mark says `marked`."""
        ...


_NOTE = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*\Z")


def check_note(name: str) -> str:
    """Return `name` when it may name a note: words of letters, digits, `_` and `-` between slashes.

    Raises:
        InvalidId: it may not.
    """
    if not _NOTE.match(name):
        raise InvalidIdError(f"{name[:120]!r} is no name of a note")
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
        durable: whether a submitted attempt outlives the executor, because something durable holds it. The delivery
            that brought it is then acknowledged after `submit`, otherwise only after the end of the attempt.
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
