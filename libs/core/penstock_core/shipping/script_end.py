"""The end of a script that was killed: with everything that it had logged."""

from __future__ import annotations

import math
from typing import Any

from penstock_core.shipping.tail import Tail

KILLED = "the script was killed, or its machine stopped, before it finished"

_METRICS = 500


def killed(tail: Tail, finished_at: float) -> dict[str, Any]:
    """Return the JSON of an end as scripts write it; reads the rest of `tail`."""
    metrics: dict[str, float] = {}
    found: dict[str, dict[str, Any]] = {"params": {}, "tags": {}, "artifacts": {}}
    while True:
        for point in tail.points(last=True):
            metrics[point.name] = point.value
        for entry in tail.entries(last=True):
            for what, part in (("param", "params"), ("tag", "tags"), ("artifact", "artifacts")):
                if what in entry:
                    found[part][str(entry[what])] = entry.get("value")
        tail.commits(last=True)
        if tail.exhausted:
            break
    logged = dict(list(metrics.items())[:_METRICS])
    return {
        **found,
        "metrics": {name: value for name, value in logged.items() if math.isfinite(value)},
        "non_finite": {name: str(value) for name, value in logged.items() if not math.isfinite(value)},
        "outcome": "failed",
        "error": {"type": "Lost", "message": KILLED},
        "finished_at": finished_at,
    }
