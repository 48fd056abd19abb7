"""Write `docs/run-states.md` from `penstock_core.run.state`: `python -m penstock_testkit.docs.run_states`."""

from __future__ import annotations

import sys
from pathlib import Path

from penstock_core.run.machine import IN_FLIGHT, SUCCESSFUL_STATUSES, TERMINAL_STATUSES, TRANSITIONS, Status

PAGE = Path("docs/run-states.md")

_STATES = {
    Status.WAITING: "Not every step that it depends on has succeeded yet, or its first attempt is being requested.",
    Status.QUEUED_FOR_LIMIT: "An attempt could run, and waits for a slot of each of its limits.",
    Status.SUSPENDED: "It waits for an answer, an event, a time or another run, without a process.",
    Status.QUEUED: "An attempt is requested; no executor has reported its start.",
    Status.RUNNING: "An executor has started the attempt.",
    Status.RETRYING: "The last attempt ended badly and another one will be requested.",
    Status.SUCCEEDED: "An attempt succeeded. Its results count; nothing can change them.",
    Status.CACHED: "An earlier result with the same cache key counts.",
    Status.FAILED: "The last attempt failed and the retry policy allows no more.",
    Status.SKIPPED: "It never ran, because a step that it depends on has no result.",
    Status.CANCELLED: "The run was cancelled before it had a result.",
}

_EVENTS = {
    "queued_for_limit": "a scheduler has the next attempt wait for its slots",
    "suspended": "a scheduler has the next attempt wait for something outside",
    "expanded": "a mapped step has its number of items",
    "reused": "its result in another run is taken over",
    "requested": "a scheduler requests the next attempt",
    "started": "an executor reports that the attempt runs",
    "succeeded": "the attempt ends with results",
    "cached": "the attempt ends with results of an earlier one",
    "again": "the attempt ends badly and the policy asks for another: a failure with retries left, or a loss",
    "failed": "the attempt ends badly for the last time",
    "skipped": "a scheduler decides that it can never run",
    "cancelled": "the present or the next attempt ends as cancelled",
}


def page() -> str:
    """Render the page: a diagram and two tables from the state table."""
    lines = [
        "# States of a step in a run",
        "",
        "<!-- Generated from TRANSITIONS in penstock_core.run.state: `python -m penstock_testkit.docs.run_states`. -->",
        "",
        "What is not drawn here changes nothing: a fact that does not fit the state of its step is ignored.",
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
                ("final", TERMINAL_STATUSES),
                ("passing", SUCCESSFUL_STATUSES),
            )
            if status in group
        ]
        lines.append(f"| `{status}` | {_STATES[status]} | {', '.join(kinds)} |")
    lines += ["", "Only a *passing* state lets dependents start.", "", "| event | when |", "|---|---|"]
    lines += [f"| `{event}` | {_EVENTS[event]} |" for event in dict.fromkeys(event for _, event in TRANSITIONS)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE).write_text(page())
