"""The codec of facts about deployments: revisions, decisions, windows, partitions, backfills and notifications.

The core's dataclasses are the only definition of the fields; pydantic validates by them. `read` never raises, whatever
the bytes. An unreadable revision takes its number in the log of its deployment, and changes nothing.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import pydantic

from penstock_contracts import fact_codec
from penstock_contracts.fact_codec import UnreadableFact
from penstock_core.deployments.backfill_facts import BACKFILL_FACTS, BackfillFact, PartitionAdded
from penstock_core.deployments.decisions import EventDecided
from penstock_core.deployments.facts import DEPLOYMENT_FACTS, DeploymentFact
from penstock_core.deployments.windows import WINDOW_FACTS, WindowFact
from penstock_core.notifications import NotificationDue

TriggerFact: TypeAlias = DeploymentFact | EventDecided | WindowFact | PartitionAdded | BackfillFact | NotificationDue
"""Facts in the streams `DEPLOYMENTS`, `DECISIONS`, `PARTITIONS` and `NOTIFICATIONS`."""

TRIGGER_FACTS: tuple[type[TriggerFact], ...] = (
    *DEPLOYMENT_FACTS,
    EventDecided,
    *WINDOW_FACTS,
    PartitionAdded,
    *BACKFILL_FACTS,
    NotificationDue,
)

ADAPTERS: dict[type[TriggerFact], pydantic.TypeAdapter[Any]] = {
    fact: pydantic.TypeAdapter(fact) for fact in TRIGGER_FACTS
}

_BY_TYPE = {fact.ce_type: fact for fact in TRIGGER_FACTS}
_PREFIXES: dict[type[TriggerFact], str] = {
    **dict.fromkeys(DEPLOYMENT_FACTS, "deployments"),
    EventDecided: "decisions",
    **dict.fromkeys(WINDOW_FACTS, "windows"),
    NotificationDue: "notifications",
    PartitionAdded: "partitions",
    **dict.fromkeys(BACKFILL_FACTS, "backfills"),
}


def subject(fact: TriggerFact) -> str:
    """Return the subject of a fact."""
    return f"{_PREFIXES[type(fact)]}.{fact.tail}"


def headers(fact: TriggerFact, source: str) -> dict[str, str]:
    """Return the CloudEvents 1.0 attributes in the NATS binding. The id is that of the subject: one fact, one id."""
    project, name = fact.tail.split(".")[:2]  # of the deployment, or the backfill
    return fact_codec.cloud_event(fact.tail, fact.ce_type, source, f"{project}.{name}")


def encode(fact: TriggerFact) -> bytes:
    """Encode a fact as JSON."""
    return fact_codec.to_json(ADAPTERS[type(fact)], fact)


def read(at: str, ce_type: str, body: bytes) -> TriggerFact | UnreadableFact:
    """Decode the message with subject `at`; the headers have its type."""
    kind = _BY_TYPE.get(ce_type)
    if kind is None:
        return UnreadableFact(at, "unknown type of fact")
    return fact_codec.from_json(ADAPTERS[kind], at, body, subject)
