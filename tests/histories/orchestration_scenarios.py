"""The runs of `orchestration.py` that are recorded."""

from __future__ import annotations

from typing import Any

import recorder as driven
from recorder import Drive, Scenario


def _run(
    outcome: str,
    steps: str,
    pipeline: str = "",
    inputs: dict[str, Any] | None = None,
    drive: Drive = driven.plain,
    also: tuple[str, ...] = (),
) -> Scenario:
    return Scenario(outcome, steps, pipeline, inputs or {}, drive=drive, file="orchestration.py", also=also)


ORCHESTRATION: dict[str, Scenario] = {
    "mapped": _run("succeeded", "double=succeeded[3] total=succeeded add=succeeded[3]"),
    "grid": _run("succeeded", "add=succeeded[6]"),
    "map_over_map": _run("succeeded", "numbers=succeeded double=succeeded[3] double-2=succeeded[3] total=succeeded"),
    "map_over_nothing": _run(
        "succeeded",
        "numbers=succeeded double=succeeded[0] double-2=succeeded[0] total=succeeded",
        "map_over_map",
        {"count": 0},
    ),
    "tolerant": _run("succeeded", "halve=succeeded[3] known=succeeded"),
    "intolerant": _run("failed", "halve=failed[3] total=skipped"),
    "mapped_retry": _run("succeeded", "shaky=succeeded[3] total=succeeded"),
    "mapped_artifact": _run("failed", "numbers=succeeded halve=failed[1200] total=skipped"),
    "mapped_cancel": _run(
        "cancelled",
        "slow=cancelled[5] total=cancelled",
        "mapped_slow",
        drive=driven.cancel_when("attempt.started", "slow[0]", "slow[1]"),
    ),
    "item_cancel": _run("cancelled", "slow=cancelled[5] total=cancelled", "mapped_slow", drive=driven.cancel_item),
    "unequal": _run("failed", "numbers=succeeded add=failed"),
    "condition_true": _run(
        "succeeded",
        "measure=succeeded says=succeeded says-2=succeeded says-3=skipped says-4=skipped",
        "choosing",
    ),
    "condition_nested": _run(
        "succeeded",
        "measure=succeeded says=succeeded says-2=skipped says-3=succeeded says-4=skipped",
        "choosing",
        {"value": 0.6},
    ),
    "condition_false": _run(
        "succeeded",
        "measure=succeeded says=skipped says-2=skipped says-3=skipped says-4=succeeded",
        "choosing",
        {"value": 0.1},
    ),
    "condition_error": _run("failed", "measure=succeeded says=failed says-2=succeeded", "no_such_key"),
    "rules_failure": _run(
        "failed", "breaks=failed clean=succeeded alarm=succeeded says=skipped", "rules", {"fails": True}
    ),
    "rules_success": _run(
        "succeeded", "breaks=succeeded clean=succeeded alarm=skipped says=succeeded", "rules", {"fails": False}
    ),
    "handled_success": _run(
        "succeeded", "breaks=succeeded slow=succeeded failed=skipped ended=succeeded stopped=skipped", "handled"
    ),
    "handled_failure": _run(
        "failed",
        "breaks=failed slow=skipped failed=succeeded ended=succeeded stopped=skipped",
        "handled",
        {"fails": True},
    ),
    "queue_timeout": _run("failed", "double=failed", "never_queued"),
    "run_deadline": _run("failed", "slow=cancelled double=cancelled", "too_long", drive=driven.with_deadline(1.5)),
    "asked_yes": _run("succeeded", "ask=succeeded says=succeeded", "asking", drive=driven.answered("yes")),
    "asked_no": _run("succeeded", "ask=succeeded says=skipped", "asking", drive=driven.answered("no")),
    "asked_default": _run("succeeded", "ask=succeeded says=succeeded", "asking_default"),
    "asked_in_vain": _run("failed", "ask=failed says=skipped", "asking_in_vain"),
    "event": _run("succeeded", "wait_for_event=succeeded says=succeeded", "awaiting", drive=driven.event_comes),
    "event_before": _run(
        "succeeded",
        "wait_for_event=succeeded says=succeeded",
        "awaiting",
        {"key": "beer"},
        drive=driven.event_before,
    ),
    "sleep": _run("succeeded", "sleep=succeeded double=succeeded", "pausing"),
    "run_pipeline": _run("succeeded", "child=succeeded add=succeeded", "parent", also=("child",)),
    "run_pipeline_failure": _run("failed", "child=failed add=skipped", "parent", {"fails": True}, also=("child",)),
    "limited": _run("succeeded", "add=succeeded[3] total=succeeded"),
    "admitted": _run("succeeded", "slow=succeeded", "one_at_a_time"),
    "overlap_skip": _run("skipped", "slow=waiting", "one_at_a_time", {"seconds": 60.0}, drive=driven.beside_another),
    "cache_miss": _run("succeeded", "cached=succeeded double=succeeded", "caching", {"x": 5}),
    "cache_hit": _run("succeeded", "cached=cached double=succeeded", "caching", {"x": 6}, drive=driven.second),
    "checkpoint": _run(
        "succeeded", "saves=succeeded*2 double=succeeded", "checkpointed", drive=driven.lost_with_checkpoint
    ),
    "memory_growth": _run("succeeded", "hungry=succeeded*2", "growing"),
}
