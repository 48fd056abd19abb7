"""Matching of events with deployments alone, without a server.

    .venv/bin/python tests/bench/triggers.py [--deployments N] [--types N] [--events N]

Each type of events has deployments / types subscribers, each with a filter of its own. `match_ms` is the processor time
of an event: its candidates in the index, and their filters. The baseline evaluates as many filters, compiled before,
and nothing else; `match_over_filters` is the ratio. `decode_ms` is the time to read an event from its message, and
`schema_ms` that of checking its data against a JSON Schema.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

from penstock_adapters.cel import CelEvaluator
from penstock_adapters.event_schemas import EventSchema
from penstock_contracts import event_codec
from penstock_core.deployments import matching, state
from penstock_core.deployments.definition import Definition, EventTrigger
from penstock_core.deployments.events import Event
from penstock_core.deployments.index import TriggerIndex
from penstock_core.deployments.matching import Matched
from penstock_core.deployments.state import Actor, Deployment

SCHEMA = {"required": ["rows"], "properties": {"rows": {"type": "integer"}, "url": {"type": "string"}}}


def filter_of(number: int) -> str:
    """The filter of a deployment; true for one of ten."""
    return f"data.rows % 10 == {number % 10} && data.url.startsWith('s3://')"


def index(deployments: int, types: int) -> TriggerIndex:
    """An index of deployments with one trigger each."""
    found = TriggerIndex()
    for number in range(deployments):
        trigger = EventTrigger(name="on", types=(f"com.acme.t{number % types}",), filter=filter_of(number // types))
        deployment = Deployment("default", f"d{number}")
        definition = Definition(pipeline="training", triggers=(trigger,))
        for fact in state.apply(deployment, definition, Actor(by="bench", at=1.0)):
            state.evolve(deployment, 1, fact)
        found.update(deployment)
    return found


def event(number: int, types: int) -> Event:
    """An event of one of the types."""
    data = {"rows": number, "url": "s3://data/may", "customer": {"name": "a", "vip": True}}
    return Event(
        project="default",
        type=f"com.acme.t{number % types}",
        source="bench",
        id=str(number),
        data=data,
        received_at=2.0,
        sequence=number + 1,
    )


def per_event(run: Callable[[], object], events: int) -> float:
    """Return the processor time of a call in milliseconds for each event; the least of three."""
    found: list[float] = []
    for _ in range(3):
        start = time.process_time()
        run()
        found.append((time.process_time() - start) * 1000 / events)
    return min(found)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--deployments", type=int, default=10_000)
    parser.add_argument("--types", type=int, default=1_000)
    parser.add_argument("--events", type=int, default=2_000)
    given = parser.parse_args()
    known, evaluator = index(given.deployments, given.types), CelEvaluator()
    events = [event(number, given.types) for number in range(given.events)]
    each = given.deployments // given.types
    filters = [filter_of(number) for number in range(each)]
    messages = [(event_codec.subject(one), event_codec.headers(one), event_codec.encode(one)) for one in events]
    schema = EventSchema(SCHEMA)

    def match() -> int:
        return sum(
            isinstance(matching.match(shape, one, evaluator, explain=False), Matched)
            for one in events
            for _, _, shape in known.candidates(one)
        )

    def bare() -> None:
        for one in events:
            scope = one.scope()
            for text in filters:
                evaluator.evaluate(text, scope)

    def decode() -> None:
        for number, (subject, headers, body) in enumerate(messages):
            event_codec.read(subject, headers, body, 2.0, number)

    def check() -> None:
        for one in events:
            schema.problems(one.data)

    matched = match()  # compiles the filters
    full, filters_alone = per_event(match, given.events), per_event(bare, given.events)
    found = {
        "deployments": given.deployments,
        "types": given.types,
        "matched_per_event": round(matched / given.events, 2),
        "match_ms": round(full, 4),
        "filters_ms": round(filters_alone, 4),
        "match_over_filters": round(full / filters_alone, 2),
        "decode_ms": round(per_event(decode, given.events), 4),
        "schema_ms": round(per_event(check, given.events), 4),
    }
    for name, value in found.items():
        print(f"{name:24} {value}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
