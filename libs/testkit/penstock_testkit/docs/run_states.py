"""Write `docs/run-states.md` from `penstock_core.run.state`: `python -m penstock_testkit.docs.run_states`."""

from __future__ import annotations

import sys
from pathlib import Path

from penstock_core.run.machine import IN_FLIGHT, SUCCESSFUL_STATUSES, TERMINAL_STATUSES, TRANSITIONS, Status

PAGE = Path("docs/run-states.md")

_STATES = {
    Status.WAITING: "An upstream step has not finished yet, or the first attempt is about to be requested.",
    Status.QUEUED_FOR_LIMIT: "An attempt waits for a slot of each of its limits.",
    Status.SUSPENDED: "The attempt waits for an answer, an event, a time or a child run. It uses no process.",
    Status.QUEUED: "An attempt was requested; no executor has reported its start yet.",
    Status.RUNNING: "An executor has started the attempt.",
    Status.RETRYING: "The last attempt failed or was lost; the next one is requested after the retry delay.",
    Status.SUCCEEDED: "An attempt succeeded.",
    Status.CACHED: "The step was not executed: its result comes from the cache or from a resumed run.",
    Status.FAILED: "The last attempt failed and no retries are left.",
    Status.SKIPPED: "The step did not run: an upstream step has no result, or its condition is false.",
    Status.CANCELLED: "The step or its run was cancelled before the step had a result.",
}

_EVENTS = {
    "queued_for_limit": "a scheduler queues the next attempt for slots of its limits",
    "suspended": "a scheduler suspends the next attempt until an answer, an event, a time or the end of a child run",
    "expanded": "the number of items of a mapped step is known",
    "reused": "the step reuses its result of an earlier run",
    "requested": "a scheduler requests the next attempt",
    "started": "an executor reports that the attempt runs",
    "succeeded": "the attempt ends with results",
    "cached": "the attempt ends with a cached result",
    "retry": "the attempt fails with retries left, or is lost",
    "failed": "the attempt fails without retries left",
    "skipped": "a scheduler decides that the step does not run",
    "cancelled": "the current or the next attempt ends as cancelled",
}


def page() -> str:
    """Render the page: a diagram and two tables from the state table."""
    lines = [
        "# States of a step in a run",
        "",
        "<!-- Generated from TRANSITIONS in penstock_core.run.state: `python -m penstock_testkit.docs.run_states`. -->",
        "",
        "A step moves from one state to the next when a fact is appended to the run's log. Facts",
        "without a transition in this diagram are ignored.",
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
    lines += [
        "",
        "By default, a step runs only if all its upstream steps are *successful*. The arrows are these events:",
        "",
        "| event | when |",
        "|---|---|",
    ]
    lines += [f"| `{event}` | {_EVENTS[event]} |" for event in dict.fromkeys(event for _, event in TRANSITIONS)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE).write_text(page())
