"""The codec of facts of models, like `fact_codec` for runs: the core's dataclasses, validated by pydantic.

`read` never raises, whatever the bytes. An unreadable message takes its revision in a model's log, and changes nothing.
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
    """Return the subject of a fact."""
    return subjects.model(fact.project, fact.model, fact.revision)


def headers(fact: ModelFact, source: str) -> dict[str, str]:
    """Return the CloudEvents 1.0 attributes in the NATS binding. The id is that of the subject: one fact, one id."""
    return {
        "ce-specversion": "1.0",
        "ce-id": fact.tail,
        "ce-type": fact.ce_type,
        "ce-source": source,
        "ce-subject": f"{fact.project}.{fact.model}",
        "content-type": "application/json",
    }


def encode(fact: ModelFact) -> bytes:
    """Encode a fact as JSON."""
    try:
        return orjson.dumps(fact)
    except TypeError:
        # An integer beyond 64 bits in the parameters.
        return ADAPTERS[type(fact)].dump_json(fact)


def read(at: str, ce_type: str, body: bytes) -> ModelFact | UnreadableFact:
    """Decode the message with subject `at`; the headers have its type."""
    kind = _BY_TYPE.get(ce_type)
    if subjects.parse_model_subject(at) is None or kind is None:
        return UnreadableFact(at, "unknown type of fact")
    if len(body) > MAX_BODY:
        return UnreadableFact(at, f"the body has {len(body)} bytes; the limit is {MAX_BODY}")
    try:
        fact: ModelFact = ADAPTERS[kind].validate_json(body)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return UnreadableFact(at, f"{'.'.join(str(part) for part in first['loc']) or 'body'}: {first['msg']}")
    except (PenstockError, ValueError, RecursionError) as error:
        return UnreadableFact(at, str(error) or type(error).__name__)
    return fact if subject(fact) == at else UnreadableFact(at, f"the body is that of subject {subject(fact)}")
