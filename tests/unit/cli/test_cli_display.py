"""The display of a run: progress state from events, plain lines, the live table, the summary."""

from __future__ import annotations

import io
import time
from typing import Any

import pytest

from penstock.client import views
from penstock.client.views import Event, LogLine, Run
from penstock_cli.display import chart, formats, output, plain, summary
from penstock_cli.display.progress import Progress
from penstock_cli.runs import run
from penstock_core.pipeline.ir import MapSpec, Node, Pipeline, Port, Retry, StepSpec
from penstock_core.pipeline.values import Output

SPEC = {"entrypoint": "m:f", "outputs": (Port(name="result"),)}
PIPELINE = Pipeline(
    name="training",
    steps={
        "load": StepSpec(name="load", **SPEC),
        "train": StepSpec(name="train", inputs=(Port(name="x"),), retry=Retry(retries=1, delay=5.0), **SPEC),
        "report": StepSpec(name="report", inputs=(Port(name="x"),), **SPEC),
    },
    nodes=(
        Node(key="load", step="load"),
        Node(key="train", step="train", inputs={"x": Output("load")}),
        Node(key="report", step="report", inputs={"x": Output("train")}),
    ),
    outputs={"result": Output("report")},
)
BASE = 1_700_000_000.0
ERROR = {
    "type": "ValueError",
    "message": "bad [row]",
    "traceback": 'File "u.py", line 3\nValueError: bad [row]',
    "bases": [],
}


class EventSequence:
    """Events in log order; `at` counts seconds."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def tell(self, at: float, kind: str, **data: Any) -> None:
        seq = len(self.events) + 1
        whole = {"run_id": "r1", "seq": seq, "at": BASE + at, **data}
        self.events.append(Event(seq, kind, BASE + at, whole))

    def request(self, at: float, key: str, attempt: int = 1, **data: Any) -> None:
        place = {"pool": "default", "project": "d", "pipeline": "training", "version": 1, "entrypoint": "m:f"}
        self.tell(at, "attempt.requested", key=key, attempt=attempt, inputs={"x": {"value": 1}}, **place, **data)

    def start(self, at: float, key: str, attempt: int = 1) -> None:
        self.tell(at, "attempt.started", key=key, attempt=attempt, executor="e", started_at=BASE + at)

    def finish(
        self, began: float, at: float, key: str, attempt: int = 1, outcome: str = "succeeded", **data: Any
    ) -> None:
        times = {"started_at": BASE + began, "finished_at": BASE + at}
        outputs = {"result": {"value": 1}} if outcome == "succeeded" else {}
        self.tell(at, "attempt.finished", key=key, attempt=attempt, outcome=outcome, outputs=outputs, **times, **data)


def failing() -> list[Event]:
    story = EventSequence()
    place = {"project": "d", "pipeline": "training", "version": 1, "inputs": {"a": {"value": 1}}}
    story.tell(0, "run.requested", requested_at=BASE, **place)
    story.request(0.1, "load")
    story.start(1, "load")
    story.finish(1, 2, "load", metrics={"rows": 569.0})
    story.request(2, "train")
    story.start(3, "train")
    story.finish(3, 4, "train", outcome="failed", error=ERROR)
    story.request(4, "train", 2, not_before=BASE + 9)
    story.start(9, "train", 2)
    story.finish(9, 12, "train", 2, outcome="failed", error=ERROR)
    story.tell(12, "step.skipped", key="report", reason="step 'train' failed", caused_by="train")
    story.tell(12.1, "run.finished", outcome="failed", error="step 'train' failed: ValueError: bad [row]", outputs={})
    story.tell(12.2, "of.the.future", key="load")
    return story.events


def view() -> Run:
    steps: dict[str, Any] = {
        "load": {
            "state": "succeeded",
            "attempts": 1,
            "started_at": BASE + 1,
            "finished_at": BASE + 2,
            "metrics": {"rows": 569.0},
        },
        "train": {
            "state": "failed",
            "attempts": 2,
            "started_at": BASE + 9,
            "finished_at": BASE + 12,
            "error": ERROR,
            "metrics": {},
            "artifacts": {"plot": {"artifact": {"sha256": "a" * 64, "size": 2048, "filename": "p.png"}}},
        },
        "report": {"state": "skipped", "attempts": 0, "reason": "step 'train' failed", "metrics": {}},
    }
    return views.parse_run(
        {
            "run_id": "r1",
            "pipeline": "training",
            "version": 1,
            "state": "failed",
            "created_at": BASE,
            "finished_at": BASE + 12.1,
            "error": "step 'train' failed: ValueError: bad [row]",
            "steps": steps,
            "outputs": {"accuracy": {"value": 0.97}, "many": {"items": [{"value": 1}, {"value": 2}]}},
        }
    )


def show_plain(events: list[Event]) -> tuple[Progress, list[str]]:
    progress = Progress("r1", PIPELINE, 1)
    changes = [change for event in events for change in progress.apply(event)]
    return progress, [f"{change.key or 'run'} {change.state} {change.text}".strip() for change in changes]


def test_progress_lines_follow_state_changes() -> None:
    progress, lines = show_plain(failing())
    assert lines == [
        "load queued",
        "load running",
        "load succeeded 1.00 s  rows=569",
        "train queued",
        "train running",
        "train retrying attempt 1: ValueError: bad [row] (retry 1 of 1)",
        "train queued attempt 2 in 5.00 s",
        "train running attempt 2",
        "train failed attempt 2: ValueError: bad [row]",
        "report skipped step 'train' failed",
        "run failed step 'train' failed: ValueError: bad [row]",
    ]
    assert progress.outcome == "failed" and progress.finished_count == 3
    assert {status.value: n for status, n in progress.counts.items() if n} == {
        "succeeded": 1,
        "failed": 1,
        "skipped": 1,
    }


def test_a_duplicate_event_prints_nothing() -> None:
    events = failing()
    _, once = show_plain(events)
    _, twice = show_plain([event for event in events for _ in range(2)])
    assert [line for line in twice if "running" not in line] == [line for line in once if "running" not in line]


def test_elapsed_time_is_of_the_last_attempt() -> None:
    progress, _ = show_plain(failing()[:6])
    assert progress.elapsed("train", BASE + 5) == pytest.approx(2)
    assert progress.elapsed("report", BASE + 5) is None
    progress, _ = show_plain(failing())
    assert progress.elapsed("train", BASE + 99) == pytest.approx(3)


def test_live_metrics_of_a_step() -> None:
    progress, _ = show_plain(failing()[:6])
    progress.record(LogLine("train", 1, BASE, metric="loss", value=0.25))
    progress.record(LogLine("nobody", 1, BASE, metric="loss", value=0.25))
    assert progress.step_histories["train"].live == {"loss": 0.25}


def test_the_live_table_shows_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    from penstock_cli.display.live import Live

    screen = io.StringIO()
    monkeypatch.setattr(output, "console", lambda: Console(file=screen, width=100, height=30, force_terminal=True))
    progress, _ = show_plain(failing()[:6])
    progress.record(LogLine("train", 1, BASE, metric="loss", value=0.25))
    shown = Live(progress)
    text = render(shown)
    assert "training" in text and "running" in text
    assert [line.split()[1] for line in text.splitlines()[1:4]] == ["load", "train", "report"]
    assert "rows=569" in text and "loss=0.25" in text and "1/3 finished, 1 running" in text
    for event in failing()[6:]:
        progress.apply(event)
    text = render(shown)
    assert "ValueError: bad [row]" in text, "square brackets are no markup"
    assert "attempt 2" in text and "step 'train' failed" in text


def render(shown: Any, width: int = 100) -> str:
    from rich.console import Console

    plain_console = Console(file=io.StringIO(), width=width, height=30, markup=False)
    with plain_console.capture() as captured:
        plain_console.print(shown._render())
    return captured.get()


def test_a_large_run_shows_counts_and_relevant_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    from penstock_cli.display.live import Live

    monkeypatch.setattr(output, "console", lambda: Console(file=io.StringIO(), width=100, height=30))
    nodes = tuple(Node(key=f"load-{n}", step="load") for n in range(1, 301))
    progress = Progress("r1", Pipeline(name="wide", steps=PIPELINE.steps, nodes=nodes), 1)
    story = EventSequence()
    for n in range(1, 101):
        story.request(0, f"load-{n}")
    for n in range(1, 51):
        story.finish(1, 2, f"load-{n}")
    story.start(1, "load-60")
    story.finish(1, 2, "load-70", outcome="failed", error=ERROR)
    for event in story.events:
        progress.apply(event)
    text = render(Live(progress))
    assert "51/300" in text and "50 succeeded" in text and "200 waiting" in text
    assert "load-60" in text and "load-70" in text and "load-5 " not in text
    assert len(text.splitlines()) < 30


MAPPED = Pipeline(
    name="fan",
    steps=PIPELINE.steps,
    nodes=(
        Node(key="load", step="load"),
        Node(key="train", step="train", inputs={"x": Output("load")}, mapped=MapSpec(over=("x",))),
    ),
)


def mapped_run(finished: int, *, failed: int | None = None) -> EventSequence:
    """A run whose mapped step has 30 items, of which some have finished, and one has failed."""
    story = EventSequence()
    story.tell(0, "run.requested", requested_at=BASE, project="d", pipeline="fan", version=1)
    story.request(0, "load")
    story.finish(0, 1, "load")
    story.tell(1, "step.expanded", key="train", count=30)
    for n in range(30):
        story.request(1, f"train[{n}]")
    for n in range(finished):
        story.finish(1, 2 + n / 10, f"train[{n}]")
    if failed is not None:
        story.finish(1, 5, f"train[{failed}]", outcome="failed", error=ERROR)
        story.request(5, f"train[{failed}]", 2)
        story.finish(6, 7, f"train[{failed}]", 2, outcome="failed", error=ERROR)
    return story


def test_the_live_view_counts_the_items_of_a_mapped_step_and_shows_the_last_failed_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from rich.console import Console

    from penstock_cli.display.live import Live

    monkeypatch.setattr(output, "console", lambda: Console(file=io.StringIO(), width=160, height=30))
    monkeypatch.setattr(time, "time", lambda: BASE + 11)
    progress = Progress("r1", MAPPED, 1)
    for event in mapped_run(16, failed=20).events:
        progress.apply(event)
    lines = render(Live(progress), width=160).splitlines()
    assert "running  11.0 s" in lines[0]
    assert "17/30 items, 1 without a result" in lines[2] and "10.0 s" in lines[2]
    assert lines[3].split()[1] == "train[20]" and "ValueError: bad [row]" in lines[3] and "attempt 2" in lines[3]
    assert "1/2 finished, 1 running" in lines[4], "items are no steps"
    # The chart ends now: a tenth of it is before the items began.
    width = lines[2].count("█") + lines[1].count("█")
    assert 36 <= width <= 41 and lines[2].rstrip().index("█") > lines[1].index("█")


def test_the_progress_that_a_step_reports_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    from penstock_cli.display.live import Live

    monkeypatch.setattr(output, "console", lambda: Console(file=io.StringIO(), width=100, height=30))
    progress, _ = show_plain(failing()[:6])
    progress.record(LogLine("train", 1, BASE, progress=views.Progress(3, 10, "epoch [3]")))
    line = render(Live(progress)).splitlines()[2]
    assert "3/10 epoch [3]" in line and line.count("━") == 20
    for event in failing()[6:10]:  # the next attempt has reported nothing yet
        progress.apply(event)
    assert "3/10" not in render(Live(progress))
    step = {"state": "running", "attempts": 1, "started_at": BASE, "progress": {"done": 0.25, "total": 1}}
    run = views.parse_run({"run_id": "r1", "pipeline": "p", "version": 1, "state": "running", "steps": {"train": step}})
    assert text_of(chart.chart(run, {}))[1].endswith("  ━━━━━━━━━━  25%")


def test_plain_lines_count_the_items_of_a_mapped_step_every_two_seconds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    progress = Progress("r1", MAPPED, 1)
    with plain.Plain(progress, quiet=False) as display:
        for event in mapped_run(30).events:
            now[0] += 0.1
            for change in progress.apply(event):
                display.on_change(change)
    lines = [line[14:] for line in capsys.readouterr().out.splitlines()[1:]]
    assert lines[:2] == ["load      succeeded  1.00 s", "train     running    30 items"]
    assert lines[-1] == "train     succeeded  30 items"
    counts = [line for line in lines if "/30" in line]
    assert 1 <= len(counts) <= 4 and all(line.startswith("train     running    ") for line in counts)


def test_the_chart_of_a_running_run_ends_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: BASE + 10)
    steps: dict[str, Any] = {
        "load": {"state": "succeeded", "attempts": 1, "started_at": BASE, "finished_at": BASE + 2},
        "train": {
            "state": "running",
            "started_at": BASE + 2,
            "items": {"count": 30, "finished": 17, "succeeded": 16, "failed": 1, "running": 4},
            "last_failed": {"key": "train[3]", "type": "ValueError", "message": "no"},
        },
        "report": {"state": "running", "attempts": 1, "started_at": BASE + 6},
    }
    run = views.parse_run(
        {"run_id": "r1", "pipeline": "p", "version": 1, "state": "running", "created_at": BASE, "steps": steps}
    )
    lines = text_of(chart.chart(run, {}))
    assert lines[0].endswith("10.0 s")
    assert "8.00 s" in lines[2] and lines[2].endswith("17/30 items, 1 failed (last: train[3]: ValueError: no)")
    assert "4.00 s" in lines[3]
    load, train, report = (line.count("█") for line in lines[1:])
    assert train > report > load > 0


def test_plain_lines_carry_time_and_state(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress("r1", PIPELINE, 1)
    with plain.Plain(progress, quiet=False) as display:
        for event in failing():
            for change in progress.apply(event):
                display.on_change(change)
        display.on_log_line(LogLine("train", 1, BASE, "stdout", "hello\n"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("run r1 of training v1, 3 steps")
    assert all(line[2] == line[5] == ":" and line[8] == "." for line in lines)
    told_lines = [line[14:] for line in lines]
    assert "load    succeeded  1.00 s  rows=569" in told_lines
    assert "train   retrying   attempt 1: ValueError: bad [row] (retry 1 of 1)" in told_lines
    assert "train   | hello" in told_lines
    assert not any("queued" in line for line in lines)


def test_quiet_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress("r1", PIPELINE, 1)
    with plain.Plain(progress, quiet=True) as display:
        for event in failing():
            for change in progress.apply(event):
                display.on_change(change)
    assert capsys.readouterr().out == ""


def text_of(lines: Any) -> list[str]:
    return ["".join(text for text, _ in line).rstrip() for line in lines]


def test_the_chart_distinguishes_waiting_from_running() -> None:
    progress, _ = show_plain(failing())
    lines = text_of(chart.chart(view(), progress.step_histories))
    assert "12.0 s" in lines[0]
    load, train, report = lines[1:4]
    width = len(lines[0]) - lines[0].index("0 s ")
    bar = train[lines[0].index("0 s ") :].ljust(width)
    assert "failed" in train and "skipped" in report and "rows=569" in load
    # Requested at 2, ran from 3 to 4, waited for its retry, ran from 9 to 12.
    per_second = width / 12
    at = {second: bar[min(width - 1, int((second + 0.5) * per_second))] for second in range(12)}
    assert [at[2], at[3], at[5], at[9], at[11]] == ["░", "█", " ", "█", "█"]
    assert "█" not in report


def test_failures_show_the_traceback_and_skipped_steps() -> None:
    lines = text_of(summary.failures(view()))
    assert "step train failed after 2 attempts: ValueError: bad [row]" in lines
    assert '  File "u.py", line 3' in lines
    assert "  report skipped: step 'train' failed" in lines


def test_results_show_metrics_outputs_and_artifacts() -> None:
    lines = text_of(summary.results(view(), None))
    assert "  load  rows=569" in lines
    assert "  accuracy  0.97" in lines and "  many      [1, 2]" in lines
    assert f"  train: plot  p.png, 2.0 kB  sha256:{'a' * 16}…" in lines


def test_the_json_object_has_the_documented_shape() -> None:
    whole = summary.as_object(view(), None)
    assert set(whole) == {"run_id", "state", "outputs", "error", "models", "steps"}
    assert whole["outputs"] == {"accuracy": 0.97, "many": [1, 2]}
    assert whole["steps"]["train"] == {
        "state": "failed",
        "attempts": 2,
        "started_at": BASE + 9,
        "finished_at": BASE + 12,
        "metrics": {},
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0042, "4 ms"),
        (-1, "0 ms"),
        (0.31, "0.31 s"),
        (12.34, "12.3 s"),
        (59.99, "60.0 s"),
        (185, "3 min 05 s"),
        (7800, "2 h 10 min"),
    ],
)
def test_human_readable_durations(value: float, text: str) -> None:
    assert formats.duration(value) == text


@pytest.mark.parametrize(
    ("key", "width", "text"),
    [
        ("train", 5, "train"),
        ("training", 5, "trai…"),
        ("features-2/split", 16, "features-2/split"),
        ("features-2/split", 12, "fea…-2/split"),
        ("a/b", 1, "…"),
    ],
)
def test_long_keys_are_shortened_in_the_middle(
    key: str, width: int, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "symbols", lambda better, plain: better)
    assert output.short(key, width) == text


def test_a_failed_run_names_the_command_that_debugs_its_first_failed_step() -> None:
    failed = {"state": "failed", "attempts": 1, "started_at": BASE, "executor": "one", "error": ERROR}
    steps = {
        "ask": {"state": "failed", "attempts": 1, "started_at": BASE, "error": ERROR},
        "train": {"state": "failed", "attempts": 1, "started_at": BASE, "items": {"count": 2, "failed": 1}},
        "train[1]": {**failed, "item_of": "train"},
        "report": failed,
    }
    ended = views.parse_run(
        {"run_id": "r1", "pipeline": "p", "version": 1, "state": "failed", "steps": steps, "outputs": {}}
    )
    assert run.next_commands(ended) == [
        "penstock runs show r1",
        "penstock runs logs r1",
        "penstock debug r1 'train[1]' --pdb",
    ]
