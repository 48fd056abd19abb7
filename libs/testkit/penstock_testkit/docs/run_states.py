"""Write `docs/run-states.md` from `penstock_core.run.state`: `python -m penstock_testkit.docs.run_states`."""

from __future__ import annotations

import sys
from pathlib import Path

from penstock_core.run.machine import IN_FLIGHT, SUCCESSFUL_STATUSES, TERMINAL_STATUSES, TRANSITIONS, Status

PAGE = Path("docs/run-states.md")

_STATES = {
    Status.WAITING: "Not every step that it depends on has succeeded yet, or its first attempt is being requested.",
    Status.QUEUED_FOR_LIMIT: "An attempt waits for a slot of each of its limits.",
    Status.SUSPENDED: "It waits for an answer, an event, a time or a child run, without a process.",
    Status.QUEUED: "An attempt is requested; no executor has reported its start.",
    Status.RUNNING: "An executor has started the attempt.",
    Status.RETRYING: "The last attempt did not succeed; another one will be requested.",
    Status.SUCCEEDED: "An attempt succeeded. Its results are final.",
    Status.CACHED: "A cached result, or a reused result of another run, is its result.",
    Status.FAILED: "The last attempt failed and the retry policy allows no more.",
    Status.SKIPPED: "It did not run: a step that it depends on has no result, or its condition is false.",
    Status.CANCELLED: "The run was cancelled before it had a result.",
}

_EVENTS = {
    "queued_for_limit": "a scheduler queues the next attempt for slots of its limits",
    "suspended": "a scheduler suspends the next attempt until an answer, an event, a time or the end of a child run",
    "expanded": "the number of items of a mapped step is known",
    "reused": "its result in another run is reused",
    "requested": "a scheduler requests the next attempt",
    "started": "an executor reports that the attempt runs",
    "succeeded": "the attempt ends with results",
    "cached": "the attempt ends with a cached result",
    "again": "the attempt fails with retries left, or is lost",
    "failed": "the attempt fails without retries left",
    "skipped": "a scheduler decides that it does not run",
    "cancelled": "the present or the next attempt ends as cancelled",
}


def page() -> str:
    """Render the page: a diagram and two tables from the state table."""
    lines = [
        "# States of a step in a run",
        "",
        "<!-- Generated from TRANSITIONS in penstock_core.run.state: `python -m penstock_testkit.docs.run_states`. -->",
        "",
        "A fact without a transition here is ignored.",
        "",
        "```mermaid",
        "stateDiagram-v2",
        f"    [*] --> {Status.WAITING}",
    ]
    lines += [f"    {source} --> {target}: {event}" for (source, event), target in TRANSITIONS.items()]
    lines += [f"    {status} --> [*]" for status in Status if status in TERMINAL_STATUSES]
    lines += ["```", "", "| state | meaning | |", "|---|---|---|"]
    for status in Status:
        kinds = [
            name
            for name, group in (
                ("in flight", IN_FLIGHT),
                ("terminal", TERMINAL_STATUSES),
                ("successful", SUCCESSFUL_STATUSES),
            )
            if status in group
        ]
        lines.append(f"| `{status}` | {_STATES[status]} | {', '.join(kinds)} |")
    lines += ["", "By default, only *successful* upstream steps let a step run.", "", "| event | when |", "|---|---|"]
    lines += [f"| `{event}` | {_EVENTS[event]} |" for event in dict.fromkeys(event for _, event in TRANSITIONS)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE).write_text(page())
