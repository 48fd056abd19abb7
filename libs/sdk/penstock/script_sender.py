"""Sends the runs that `track` records in the state folder to a platform that runs elsewhere.

A process of its own for each script, so that the script neither waits for the platform nor loses what it logged when it
is killed. In: the files of a folder `outbox/<run id>`, see `penstock.tracking`. Out: requests to the HTTP API.

Promises: everything is sent in order, and at least once; the platform drops repetitions, because each part has the
index of its first entry, and a part is repeated as it was (`sent.json`). The folder is removed when the platform has
the end of the run. While the platform does not answer, the folder remains for a later sender.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import sys
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from penstock.client import platform
from penstock.client.http.transport import Transport
from penstock.errors import ClientError, RefusedError, UnauthorizedError
from penstock.store import FolderStore
from penstock_core.queries.series import Point, spelled
from penstock_core.shipping import script_end
from penstock_core.shipping.tail import Tail

OUTBOX = "outbox"
INTERVAL = 1.0
"""Seconds between two requests of a running script."""

PERSISTENCE = 60.0
"""Seconds for which a sender keeps trying after its script has ended."""

_ABOUT_TIMEOUT = 3.0
_POINTS = 1000
_ENTRIES = 500
_ENTRY_BYTES = 128 * 1024
_TIMEOUT = 10.0
_PATIENCE = 4.0

Json = dict[str, Any]


class SendError(Exception):
    """The platform refuses the run, or cannot be reached; the message says why."""


class _GrowingFile:
    """Implements `penstock_core.shipping.tail.GrowingFile` on a path."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def size(self) -> int | None:
        try:
            return self._path.stat().st_size
        except OSError:
            return None

    def read(self, offset: int, count: int) -> bytes:
        with self._path.open("rb") as file:
            file.seek(offset)
            return file.read(count)

    def truncate(self) -> bool:
        return False


class Sender:
    """Sends one run.

    Args:
        folder: the folder of the run.
        transport: to the platform.
        store: where the script stored what it logged.
    """

    def __init__(self, folder: Path, transport: Transport, store: FolderStore) -> None:
        self._folder = folder
        self._transport = transport
        self._store = store
        self._path = f"/v1/script-runs/{folder.name}"
        self._begun = False
        self._ended = False
        self._restart()

    def _restart(self) -> None:
        """Read the files from their beginning, up to what was sent."""
        self._sent: dict[str, list[int]] = _read(self._folder / "sent.json") or {"points": [0, 0], "entries": [0, 0]}
        self._tail = _tail(self._folder)
        self._points: list[Point] = []
        self._entries: list[Json] = []
        self._commits: list[Json] = []
        self._skip = {name: done for name, (done, _) in self._sent.items()}
        self._repeat = {name: count for name, (_, count) in self._sent.items()}

    def begin(self, about: Json) -> None:
        """Start the run on the platform."""
        begin = _read(self._folder / "begin.json") or {}
        body = {name: begin[name] for name in ("name", "began_at", "inputs", "host", "file") if name in begin}
        self._put_source(about)
        self._transport.json("PUT", self._path, body={**body, **about})
        self._begun = True

    def send(self, *, last: bool = False) -> bool:
        """Send the next part of what was logged; returns whether nothing is left. With `last`, partial lines too."""
        if self._ended:
            return True
        self._fill(last)
        body: Json = {}
        points = self._part("points", self._points, _POINTS)
        if points:
            items = [[point.name, point.step, point.at, spelled(point.value)] for point in points]
            body["points"] = {"first": self._sent["points"][0], "items": items}
        entries = self._part("entries", self._entries, _count(self._entries))
        if entries:
            body["entries"] = {"first": self._sent["entries"][0], "items": entries}
        commits = self._commits[:_ENTRIES]
        if commits:
            body["artifacts"] = commits
            self._upload([entry.get("value") for entry in commits])
        report = self._tail.progress(last=last)
        if report is not None:
            body["progress"] = report._asdict()
        if body:
            _write(self._folder / "sent.json", self._sent)
            answer: Json = self._transport.json("POST", f"{self._path}/records", body=body)
            self._ended = answer["state"] != "running"
        for name, buffer in (("points", self._points), ("entries", self._entries)):
            done, count = self._sent[name]
            del buffer[:count]
            self._sent[name] = [done + count, 0]
        del self._commits[: len(commits)]
        return self._tail.exhausted and not (self._points or self._entries or self._commits)

    def end(self, about: Json) -> None:
        """End the run on the platform, and remove the folder."""
        if not self._ended:
            end = _read(self._folder / "end.json")
            if end is None:
                files = [path.stat().st_mtime for path in self._folder.glob("run.*")]
                began = (_read(self._folder / "begin.json") or {}).get("began_at", 0.0)
                end = script_end.killed(_tail(self._folder), max([began, *files]))
            self._upload(list(end.get("artifacts", {}).values()))
            self._put_source(about)
            more = {name: about[name] for name in ("environment", "source") if name in about}
            self._transport.json("PUT", f"{self._path}/end", body={**end, **more})
        shutil.rmtree(self._folder, ignore_errors=True)

    def finish(self) -> None:
        """Send everything of a script that has ended.

        Raises:
            ClientError: the platform does not answer, or refuses it.
        """
        about = _read(self._folder / "about.json") or {}
        if not self._begun:
            self.begin(about)
        while not self.send(last=True):
            pass
        self.end(about)

    def run(self) -> None:
        """Send the run while its script runs, and its end.

        Raises:
            SendError: the platform refuses it, or did not answer in time after the script had ended.
        """
        about_until = time.monotonic() + _ABOUT_TIMEOUT
        give_up = None
        while True:
            with _ended(self._folder) as ended:
                if ended and give_up is None:
                    give_up = time.monotonic() + PERSISTENCE
                try:
                    if ended:
                        return self.finish()
                    about = _read(self._folder / "about.json")
                    if not self._begun and (about is not None or time.monotonic() > about_until):
                        self.begin(about or {})
                    while self._begun and not self.send():
                        pass
                    wait = INTERVAL if self._begun else 0.1
                except ClientError as error:
                    if _is_final(error) or (give_up is not None and time.monotonic() > give_up):
                        raise SendError(str(error)) from error
                    _write(self._folder / "problem.json", {"message": str(error)})
                    self._restart()
                    wait = INTERVAL
                else:
                    (self._folder / "problem.json").unlink(missing_ok=True)
            _wait(self._folder, wait)

    def _fill(self, last: bool) -> None:
        """Read the next lines, without those that were sent."""
        while True:
            if len(self._points) < max(_POINTS, self._repeat["points"]):
                self._points += self._skipped("points", self._tail.points(last=last))
            if len(self._entries) < max(_ENTRIES, self._repeat["entries"]):
                self._entries += self._skipped("entries", self._tail.entries(last=last))
            if not self._commits:
                self._commits += self._tail.commits(last=last)
            ready = len(self._points) >= self._repeat["points"] and len(self._entries) >= self._repeat["entries"]
            if ready or self._tail.exhausted:
                return

    def _skipped(self, name: str, found: list[Any]) -> list[Any]:
        skip = min(self._skip[name], len(found))
        self._skip[name] -= skip
        return found[skip:]

    def _part(self, name: str, buffer: list[Any], count: int) -> list[Any]:
        """The next part: after a failure the same as before, because the platform may have it already."""
        count = min(self._repeat[name] or count, len(buffer))
        self._repeat[name] = 0
        self._sent[name] = [self._sent[name][0], count]
        return buffer[:count]

    def _put_source(self, about: Json) -> None:
        source = about.get("source")
        if source is not None:
            self._put(source["sha256"])

    def _upload(self, given: list[Any]) -> None:
        """Put the artifacts that JSON refers to, the manifest of a folder after its files."""
        for reference in _references(given):
            # Imported only for scripts that log objects.
            from penstock import serialize

            for sha256 in [*serialize.parts(reference, self._store), reference["sha256"]]:
                self._put(str(sha256))

    def _put(self, sha256: str) -> None:
        path = f"/v1/artifacts/{sha256}"
        if not self._transport.exists(path):
            self._transport.upload(path, self._store.path(sha256))


def recorded(home: Path) -> list[Path]:
    """Return the folders of runs that were not sent completely, oldest first."""
    root = home / OUTBOX
    return sorted(path for path in root.glob("[!.]*") if (path / "begin.json").is_file()) if root.is_dir() else []


def url_of(folder: Path) -> str:
    """Return the URL of the platform to which a run is to be sent."""
    return str((_read(folder / "begin.json") or {}).get("url", ""))


def problem_of(folder: Path) -> str:
    """Return why a run could not be sent yet; empty if nothing is known."""
    return str((_read(folder / "problem.json") or {}).get("message", ""))


def upload(folder: Path, home: Path, address: platform.Address) -> bool:
    """Send a run whose script has ended; returns False if the script, or another sender, is still at it.

    Raises:
        ClientError: the platform does not answer, or refuses it.
    """
    with _sole_sender(folder) as alone, _ended(folder) as ended:
        if not (alone and ended):
            return False
        _sender(folder, home, address).finish()
        return True


def main(arguments: list[str]) -> int:
    """Send the run in a folder, then those of earlier scripts for the same platform."""
    folder = Path(arguments[0])
    home, address = folder.parent.parent, platform.from_environment()
    if address is None:
        return 2
    with _sole_sender(folder) as alone:
        if alone:
            try:
                _sender(folder, home, address).run()
            except SendError as error:
                if folder.is_dir():
                    _write(folder / "problem.json", {"message": str(error)})
                return 1
    for earlier in recorded(home):
        if url_of(earlier) == address.url:
            with contextlib.suppress(ClientError, OSError):
                upload(earlier, home, address)
    return 0


def _sender(folder: Path, home: Path, address: platform.Address) -> Sender:
    project = str((_read(folder / "begin.json") or {}).get("project", ""))
    transport = Transport(lambda: address, _TIMEOUT, _PATIENCE, project=project)
    return Sender(folder, transport, FolderStore(home / "artifacts"))


def _tail(folder: Path) -> Tail:
    return Tail(lambda suffix: _GrowingFile(folder / f"run.{suffix}"), time.time)


def _count(entries: list[Json]) -> int:
    """How many entries fit into one request."""
    size = 0
    for count, entry in enumerate(entries[:_ENTRIES]):
        size += len(json.dumps(entry))
        if size > _ENTRY_BYTES and count:
            return count
    return min(len(entries), _ENTRIES)


def _is_final(error: ClientError) -> bool:
    return isinstance(error, UnauthorizedError) or (isinstance(error, RefusedError) and error.status not in (429, 500))


def _references(given: Any) -> Iterator[Json]:
    """The references to artifacts in JSON as the recorder writes it."""
    if isinstance(given, list):
        for one in given:
            yield from _references(one)
    elif isinstance(given, dict):
        match given:
            case {"artifact": {"sha256": str()} as reference}:
                yield reference
            case {"items": list() as several}:
                yield from _references(several)
            case {"fields": dict() as fields}:
                yield from _references(list(fields.values()))
            case _:
                return


@contextlib.contextmanager
def _locked(path: Path) -> Generator[bool]:
    """Whether nobody else has locked a file; locks it meanwhile."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


def _ended(folder: Path) -> contextlib.AbstractContextManager[bool]:
    """Whether the script of a run has ended: it locks a file while it lives."""
    return _locked(folder / "lock")


def _sole_sender(folder: Path) -> contextlib.AbstractContextManager[bool]:
    return _locked(folder / "sender.lock")


def _wait(folder: Path, seconds: float) -> None:
    """Wait, at most until the script has written its end."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and not (folder / "end.json").exists():
        time.sleep(0.05)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def _write(path: Path, data: Any) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(data))
    part.replace(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
