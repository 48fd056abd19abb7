"""The codec of facts of models, like `fact_codec` for runs: the core's dataclasses, validated by pydantic.

`read` never raises, whatever the bytes. An unreadable message takes its revision in a model's log, and changes nothing.
"""

from __future__ import annotations

from typing import Any

import pydantic

from penstock_contracts import fact_codec, subjects
from penstock_contracts.fact_codec import UnreadableFact
from penstock_core.registry.facts import MODEL_FACTS, ModelFact

ADAPTERS: dict[type[ModelFact], pydantic.TypeAdapter[Any]] = {fact: pydantic.TypeAdapter(fact) for fact in MODEL_FACTS}

_BY_TYPE = {fact.ce_type: fact for fact in MODEL_FACTS}


def subject(fact: ModelFact) -> str:
    """Return the subject of a fact."""
    return subjects.model(fact.project, fact.model, fact.revision)


def headers(fact: ModelFact, source: str) -> dict[str, str]:
    """Return the CloudEvents 1.0 attributes in the NATS binding. The id is that of the subject: one fact, one id."""
    return fact_codec.cloud_event(fact.tail, fact.ce_type, source, f"{fact.project}.{fact.model}")


def encode(fact: ModelFact) -> bytes:
    """Encode a fact as JSON."""
    return fact_codec.to_json(ADAPTERS[type(fact)], fact)


def read(at: str, ce_type: str, body: bytes) -> ModelFact | UnreadableFact:
    """Decode the message with subject `at`; the headers have its type."""
    kind = _BY_TYPE.get(ce_type)
    if subjects.parse_model_subject(at) is None or kind is None:
        return UnreadableFact(at, "unknown type of fact")
    return fact_codec.from_json(ADAPTERS[kind], at, body, subject)
