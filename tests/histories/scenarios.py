"""The recorded runs: pipeline, actions and expected end."""

from __future__ import annotations

from pathlib import Path

import recorder as driven
from orchestration_scenarios import ORCHESTRATION
from recorder import Scenario

HERE = Path(__file__).parent

_BASIC: dict[str, Scenario] = {
    "chain": Scenario("succeeded", "one=succeeded one-2=succeeded one-3=succeeded", inputs={"x": 40}, priority=3),
    "fan_in": Scenario("succeeded", "one=succeeded one-2=succeeded one-3=succeeded total=succeeded"),
    "wide": Scenario(
        "succeeded", " ".join(["one=succeeded", *(f"one-{n}=succeeded" for n in range(2, 25)), "total=succeeded"])
    ),
    "named_outputs": Scenario("succeeded", "split=succeeded total=succeeded total-2=succeeded"),
    "artifacts": Scenario("succeeded", "table=succeeded array=succeeded report=succeeded"),
    "file_input": Scenario("succeeded", "read=succeeded", inputs={"source": HERE / "pipelines.py"}),
    "metrics": Scenario("succeeded", "measured=succeeded"),
    "constants": Scenario("succeeded", "says=succeeded", inputs={"ratio": 0.25}),
    "options": Scenario("succeeded", "priced=succeeded"),
    "after": Scenario("succeeded", "nothing=succeeded nothing-2=succeeded says=succeeded"),
    "after_failure": Scenario("failed", "broken=failed says=skipped"),
    "empty": Scenario("succeeded", ""),
    "by_reference": Scenario("succeeded", "text=succeeded lengths=succeeded"),
    "failure": Scenario("failed", "one=succeeded broken=failed one-2=skipped total=skipped"),
    "independent_branch": Scenario(
        "failed",
        "broken=failed one=succeeded total=skipped one-2=succeeded one-3=succeeded one-4=succeeded total-2=skipped",
    ),
    "sub_pipeline": Scenario(
        "succeeded",
        "chain/one=succeeded chain/one-2=succeeded chain/one-3=succeeded one=succeeded "
        "chain-2/one=succeeded chain-2/one-2=succeeded chain-2/one-3=succeeded total=succeeded",
    ),
    "sub_pipeline_failure": Scenario(
        "failed",
        "failure/one=succeeded failure/broken=failed failure/one-2=skipped failure/total=skipped one=skipped",
    ),
    "retries": Scenario("succeeded", "shaky=succeeded*3 one=succeeded"),
    "retries_exhausted": Scenario("failed", "hopeless=failed*3 one=skipped"),
    "retry_on_others": Scenario("failed", "picky=failed"),
    "timeout": Scenario("failed", "endless=failed one=skipped"),
    "timeout_then_success": Scenario("succeeded", "slow_at_first=succeeded*2"),
    "exit_code": Scenario("failed", "exits=failed one=skipped"),
    "killed": Scenario("failed", "shot=failed one=skipped"),
    "out_of_memory": Scenario("failed", "greedy=failed one=skipped"),
    "cancel_running": Scenario(
        "cancelled", "one=succeeded sleeps=cancelled one-2=cancelled", "sleeping", drive=driven.cancel_running
    ),
    "cancel_before_start": Scenario(
        "cancelled",
        "one=cancelled sleeps=cancelled one-2=cancelled",
        "sleeping",
        drive=driven.while_nobody_decides(lambda recorder, run_id: recorder.client.runs.cancel(run_id, "not today")),
    ),
    "cancel_retrying": Scenario(
        "cancelled", "waits_long=cancelled*2 one=cancelled", "retrying", drive=driven.cancel_retrying
    ),
    "lost": Scenario("succeeded", "one=succeeded sleeps=succeeded*2 one-2=succeeded", "sleeping", drive=driven.lost),
    "unreadable_end": Scenario(
        "succeeded", "one=succeeded sleeps=succeeded*2 one-2=succeeded", "sleeping", drive=driven.unreadable_end
    ),
    "unreadable_early_end": Scenario(
        "succeeded",
        "one=succeeded one-2=succeeded*2 one-3=succeeded",
        "chain",
        drive=driven.while_nobody_decides(lambda recorder, run_id: recorder.garble(run_id, "step.one-2.1.finished")),
    ),
    "unreadable_request": Scenario(
        "succeeded",
        "one=succeeded*2 one-2=succeeded one-3=succeeded",
        "chain",
        drive=driven.while_nobody_decides(
            lambda recorder, run_id: recorder.garble(run_id, "step.one.1.requested.default")
        ),
    ),
    "unreadable_skip": Scenario(
        "failed",
        "one=succeeded one-2=skipped one-3=skipped",
        "chain",
        drive=driven.while_nobody_decides(lambda recorder, run_id: recorder.garble(run_id, "step.one-2.skipped")),
    ),
    "cron": Scenario(
        "succeeded", "one=succeeded one-2=succeeded one-3=succeeded", "chain", {"x": 7}, drive=driven.cron
    ),
}

SCENARIOS = {**_BASIC, **ORCHESTRATION}
