"""The history of a run as JSON lines: a header with the pipeline, then one line for each fact in log order.

    {"penstock_history":1,"run_id":"…","project":"default","pipeline":{…},"version":1}
    {"seq":17,"at":1795244644.98,"type":"penstock.run.requested.v1","fact":{…}}

It has everything that replaying a run needs, without a platform. An unreadable message is written as its placeholder
fact, with the reason under `unreadable`. Readers ignore unknown keys.
"""

from __future__ import annotations

from typing import Any, Literal

import orjson
import pydantic
from pydantic import BaseModel, ConfigDict, Field

from penstock_contracts import fact_codec
from penstock_contracts.fact_codec import UnreadableFact
from penstock_core.errors import PenstockError
from penstock_core.facts import FACTS, Fact
from penstock_core.pipeline.ir import Pipeline
from penstock_core.ports import Recorded

FORMAT = 1
MEDIA_TYPE = "application/x-ndjson"

_BY_TYPE = {fact.ce_type: fact_codec.ADAPTERS[fact] for fact in FACTS}


class HistoryHeader(BaseModel):
    """The first line: the run, and the definition (IR) of its pipeline."""

    model_config = ConfigDict(frozen=True)

    penstock_history: Literal[1] = FORMAT
    run_id: str
    project: str
    pipeline: Pipeline
    version: int


class HistoryFact(BaseModel):
    """Any other line: a fact, its sequence in the log, and the time of writing in Unix seconds."""

    model_config = ConfigDict(frozen=True)

    seq: int
    at: float
    type: str = Field(description="the CloudEvents type, such as `penstock.attempt.finished.v1`")
    fact: dict[str, Any] = Field(description="the body of the event")
    unreadable: str | None = Field(default=None, description="why the message could not be read")


class InvalidHistoryError(PenstockError, ValueError):
    """A line is invalid for its position in a history."""


def header_line(header: HistoryHeader) -> bytes:
    """Encode the first line."""
    return header.model_dump_json().encode() + b"\n"


def fact_line(seq: int, at: float, subject: str, body: bytes) -> bytes:
    """Encode the line of a message of the log; empty if the message counts as no fact."""
    fact = fact_codec.decode(subject, body)
    note = b""
    if isinstance(fact, UnreadableFact):
        note = b',"unreadable":%s' % orjson.dumps(fact.why)
        fact = fact_codec.placeholder_fact(fact)
        if fact is None:
            return b""
    data = (seq, orjson.dumps(at), orjson.dumps(fact.ce_type), fact_codec.encode(fact), note)
    return b'{"seq":%d,"at":%s,"type":%s,"fact":%s%s}\n' % data


def read_header(line: bytes) -> HistoryHeader:
    """Decode the first line.

    Raises:
        InvalidHistoryError: it is not a header, or has an unknown format.
    """
    try:
        return HistoryHeader.model_validate_json(line)
    except (PenstockError, ValueError, RecursionError) as error:
        raise InvalidHistoryError(f"this is not the header of a history of format {FORMAT}: {_first(error)}") from error


def read_fact(line: bytes) -> Recorded:
    """Decode any other line.

    Raises:
        InvalidHistoryError: it is not a fact, or has an unknown type.
    """
    try:
        entry = HistoryFact.model_validate_json(line)
        adapter = _BY_TYPE.get(entry.type)
        if adapter is None:
            raise InvalidHistoryError(f"unknown type of fact: {entry.type!r}")
        fact: Fact = adapter.validate_python(entry.fact)
    except InvalidHistoryError:
        raise
    except (PenstockError, ValueError, RecursionError) as error:
        raise InvalidHistoryError(f"this is not a fact of a run history: {_first(error)}") from error
    return Recorded(entry.seq, entry.at, fact)


def _first(error: Exception) -> str:
    if not isinstance(error, pydantic.ValidationError):
        return str(error)
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in first['loc']) or 'line'}: {first['msg']}"
