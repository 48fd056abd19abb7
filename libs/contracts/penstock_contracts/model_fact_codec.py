"""The codec of the facts of models, as `events` is that of runs: the core's dataclasses, read and written by pydantic.

Promise: `read` never raises on hostile bytes. What nobody can read still takes its place in a model's log, and counts
for nothing there.
"""

from __future__ import annotations

from typing import Any

import orjson
import pydantic

from penstock_contracts import subjects
from penstock_contracts.fact_codec import MAX_BODY, UnreadableFact
from penstock_core.errors import PenstockError
from penstock_core.registry.facts import MODEL_FACTS, ModelFact

ADAPTERS: dict[type[ModelFact], pydantic.TypeAdapter[Any]] = {fact: pydantic.TypeAdapter(fact) for fact in MODEL_FACTS}

_BY_TYPE = {fact.ce_type: fact for fact in MODEL_FACTS}


def subject(fact: ModelFact) -> str:
    """The subject on which a fact is stored."""
    return subjects.model(fact.project, fact.model, fact.revision)


def headers(fact: ModelFact, source: str) -> dict[str, str]:
    """CloudEvents 1.0 attributes in the NATS binding. The id is the fact's place: the same fact, the same id."""
    return {
        "ce-specversion": "1.0",
        "ce-id": fact.tail,
        "ce-type": fact.ce_type,
        "ce-source": source,
        "ce-subject": f"{fact.project}.{fact.model}",
        "content-type": "application/json",
    }


def encode(fact: ModelFact) -> bytes:
    """The body of a fact as JSON."""
    try:
        return orjson.dumps(fact)
    except TypeError:
        # An integer beyond 64 bits among the parameters.
        return ADAPTERS[type(fact)].dump_json(fact)


def read(at: str, ce_type: str, body: bytes) -> ModelFact | UnreadableFact:
    """Read the fact that lies at subject `at`; its kind is in its headers."""
    kind = _BY_TYPE.get(ce_type)
    if subjects.parse_model_subject(at) is None or kind is None:
        return UnreadableFact(at, "it is of no kind of fact that is known here")
    if len(body) > MAX_BODY:
        return UnreadableFact(at, f"the body has {len(body)} bytes; the limit is {MAX_BODY}")
    try:
        fact: ModelFact = ADAPTERS[kind].validate_json(body)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return UnreadableFact(at, f"{'.'.join(str(part) for part in first['loc']) or 'body'}: {first['msg']}")
    except (PenstockError, ValueError, RecursionError) as error:
        return UnreadableFact(at, str(error) or type(error).__name__)
    return fact if subject(fact) == at else UnreadableFact(at, f"the body says it belongs at {subject(fact)}")
