"""Archives of runs: the facts in the log and the output stream, as compressed JSON lines in the artifact store.

The history of a run is what `penstock runs export` writes (`penstock_contracts.run_history`), compressed. Its output
has one line for each message:

    {"seq":17,"at":1795244644.98,"subject":"logs.….train.1","data":{…}}

Equal content gives equal bytes, so archiving a run twice stores the same object.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

import orjson

from penstock_contracts import fact_codec, run_history
from penstock_contracts.run_history import HistoryHeader, InvalidHistoryError
from penstock_core.artifacts.folders import MEDIA_TYPE as FOLDER
from penstock_core.errors import PenstockError
from penstock_core.ports import Recorded

MEDIA_TYPE = "application/gzip"
HISTORY, OUTPUT = "history", "output"
"""Formats of the objects."""

LINE_LIMIT = 2 * fact_codec.MAX_BODY
"""Bytes of a line: a fact with its subject and sequence."""

_LEVEL = 6
_DIGEST = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_FOLDER = FOLDER.encode()


class ArchiveDamagedError(PenstockError):
    """The bytes of an archive differ from what was archived."""


class OutputLine(NamedTuple):
    """A message of an attempt's output, with its sequence in the output stream."""

    seq: int
    at: float
    subject: str
    data: bytes


def compressed(file: IO[bytes]) -> gzip.GzipFile:
    """Compresses what is written to it into `file`; equal bytes give equal bytes."""
    return gzip.GzipFile(filename="", mode="wb", compresslevel=_LEVEL, fileobj=file, mtime=0)


def output_line(seq: int, at: float, subject: str, body: bytes) -> bytes:
    """Encode the line of a message of the output stream; empty if the message is not JSON."""
    try:
        data = orjson.dumps(orjson.loads(body))
    except orjson.JSONDecodeError:
        return b""
    return b'{"seq":%d,"at":%s,"subject":%s,"data":%s}\n' % (seq, orjson.dumps(at), orjson.dumps(subject), data)


def lines(file: IO[bytes], what: str) -> Iterator[bytes]:
    """Yield the lines of an archive; `what` names it in errors.

    Raises:
        ArchiveDamagedError: the bytes are not an archive, or incomplete.
    """
    try:
        with gzip.GzipFile(fileobj=file, mode="rb") as unpacked:
            while line := unpacked.readline(LINE_LIMIT + 1):
                if len(line) > LINE_LIMIT or not line.endswith(b"\n"):
                    raise ArchiveDamagedError(f"{what} is damaged: an incomplete line")
                yield line
    except (OSError, EOFError, zlib.error) as error:
        raise ArchiveDamagedError(f"{what} is damaged: {error}") from error


def read_history(file: IO[bytes], what: str) -> Iterator[HistoryHeader | Recorded]:
    """Yield the header of an archived history, then its facts.

    Raises:
        ArchiveDamagedError: the bytes are not a history.
    """
    first = True
    for line in lines(file, what):
        try:
            yield run_history.read_header(line) if first else run_history.read_fact(line)
        except InvalidHistoryError as error:
            raise ArchiveDamagedError(f"{what} is damaged: {error}") from error
        first = False
    if first:
        raise ArchiveDamagedError(f"{what} is empty")


def read_output(file: IO[bytes], what: str) -> Iterator[OutputLine]:
    """Yield the messages of an archived output.

    Raises:
        ArchiveDamagedError: the bytes are not an output.
    """
    for line in lines(file, what):
        try:
            entry: dict[str, Any] = orjson.loads(line)
            yield OutputLine(int(entry["seq"]), float(entry["at"]), str(entry["subject"]), orjson.dumps(entry["data"]))
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise ArchiveDamagedError(f"{what} is damaged: a line is not a message of output: {error!r}") from error


def digests(data: bytes) -> list[str]:
    """Return everything in a message that looks like the SHA-256 of an artifact: a superset of those it refers to."""
    return [found.decode() for found in _DIGEST.findall(data)]


def mentions_folder_manifest(data: bytes) -> bool:
    """Whether a message says that an artifact that it refers to is the manifest of a folder."""
    return _FOLDER in data
