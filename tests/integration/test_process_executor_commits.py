"""Artifacts of running attempts are reported at once, and an attempt resumes from an earlier attempt's checkpoint."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from penstock_core.facts import Outcome
from penstock_core.pipeline import values
from penstock_core.pipeline.values import Inline, Stored
from penstock_testkit.executor_harness import OpenHarness

STEPS = """
    import time
    from pathlib import Path
    from penstock import context

    def slow(gate: str) -> int:
        context().checkpoint({"epoch": 1, "weights": b"abc"})
        context().log_artifact("curve of loss.json", [1, 2, 3])
        context().log_artifact("plain", 1)
        while not Path(gate).exists():
            time.sleep(0.01)
        return 1

    def many() -> None:
        for epoch in range(200):
            context().checkpoint(epoch)

    def last() -> object:
        state = context().restore()
        return state if state is None else [state["epoch"], state["weights"].decode(), context().attempt]

    def wide() -> None:
        context().checkpoint([b"%d" % n for n in range(1500)])

    def large() -> None:
        context().checkpoint(["é" * 100] * 100)

    def dies() -> None:
        import os
        context().checkpoint("here")
        os.kill(os.getpid(), 9)

    def hostile() -> None:
        import os
        context().log_artifact("x", 1)
        base = os.getcwd()
        with open(base + ".commits", "ab") as file:
            file.write(b'{"at": 1}\\n{"at": 1, "artifact": "y", "value": 3}\\n[]\\nrubbish\\n{"at":"x"}\\n')
        context().log_artifact("z", 2)
"""


async def test_commits_are_reported_while_the_attempt_runs(executor_harness: OpenHarness, tmp_path: Path) -> None:
    b = await executor_harness(STEPS)
    gate = tmp_path / "gate"
    key = await b.start("slow", {"gate": str(gate)})
    found = {fact.name: fact for fact in await b.events.until("commits", key)}
    assert key not in b.events.ends
    saved = found["checkpoint"].value
    assert isinstance(saved, values.Fields) and isinstance(saved.fields["weights"], Stored)
    assert (b.home / "artifacts/sha256").exists()
    gate.touch()
    end = await b.events.until("ends", key)
    assert end.outcome is Outcome.SUCCEEDED
    names = {fact.effective_name: fact for fact in b.events.commits[key]}
    assert names.keys() == {"checkpoint", "curve of loss.json", "plain"}
    assert names["curve of loss.json"].name.startswith("curve_of_loss_json-")
    assert names["plain"].value == Inline(1) and names["plain"].name == "plain" and names["plain"].display_name == ""
    assert end.artifacts.keys() == {"curve of loss.json", "plain"}  # the checkpoint is not an artifact of the step


async def test_the_next_attempt_restores_the_last_checkpoint(executor_harness: OpenHarness, tmp_path: Path) -> None:
    b = await executor_harness(STEPS)
    gate = tmp_path / "gate"
    gate.touch()
    await b.run("slow", {"gate": str(gate)})
    saved = b.events.commits["slow"][0].value
    assert (await b.run("last", key="first")).outputs == {"result": Inline(None)}
    again = replace(b.request("last", key="second"), attempt=2)
    b.where = replace(b.where, checkpoint=saved)
    await b.executor.submit(again)
    assert (await b.events.until("ends", "second")).outputs == {"result": Inline([1, "abc", 2])}


async def test_checkpoints_are_reported_in_order_before_the_attempt_finishes(executor_harness: OpenHarness) -> None:
    b = await executor_harness(STEPS)
    assert (await b.run("many")).outcome is Outcome.SUCCEEDED
    assert [fact.value for fact in b.events.commits["many"]] == [Inline(n) for n in range(200)]


async def test_a_checkpoint_of_a_killed_process_is_reported(executor_harness: OpenHarness) -> None:
    b = await executor_harness(STEPS)
    assert (await b.run("dies")).outcome is Outcome.FAILED
    assert [fact.value for fact in b.events.commits["dies"]] == [Inline("here")]


async def test_large_data_is_reported_by_reference_and_too_many_files_are_rejected(
    executor_harness: OpenHarness,
) -> None:
    b = await executor_harness(STEPS)
    assert (await b.run("large")).outcome is Outcome.SUCCEEDED
    (fact,) = b.events.commits["large"]
    assert isinstance(fact.value, Stored)
    assert json.loads(
        (b.home / "artifacts/sha256" / fact.value.artifact.sha256[:2] / fact.value.artifact.sha256).read_text()
    )
    end = await b.run("wide")
    assert end.error is not None and end.error.type == "TypeError" and "save one folder" in end.error.message


async def test_forged_commit_lines_are_ignored(executor_harness: OpenHarness) -> None:
    b = await executor_harness(STEPS)
    assert (await b.run("hostile")).outcome is Outcome.SUCCEEDED
    assert [fact.name for fact in b.events.commits["hostile"]] == ["x", "z"]
