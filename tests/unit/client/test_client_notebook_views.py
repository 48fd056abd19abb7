"""How notebooks show runs: as HTML, and as a table of pandas."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser

import pytest

from penstock.client import views
from penstock.client.runs.frame import frame
from penstock.client.views import Run
from penstock.errors import ClientError


def step(**fields: object) -> dict[str, object]:
    return {"state": "succeeded", "started_at": 10.0, "finished_at": 10.5, **fields}


def run(run_id: str = "r1", **fields: object) -> Run:
    body = {"run_id": run_id, "pipeline": "training", "version": 2, "state": "succeeded", "created_at": 0.0}
    return views.parse_run({**body, "finished_at": 4.0, "duration": 4.0, **fields})


class Text(HTMLParser):
    """The text of HTML, and its tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text = ""
        self.tags: set[str] = set()
        self.feed(html)

    def handle_data(self, data: str) -> None:
        self.text += f"{data} "

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)


def test_a_run_shows_its_steps_and_escapes_everything() -> None:
    steps = {
        "load": step(metrics={"<i>rows": 3.0}),
        "fit": step(state="failed", items={"count": 4, "finished": 3, "failed": 1, "succeeded": 2}),
        "fit[0]": step(item_of="fit"),
    }
    shown = Text(run(pipeline="<b>bold", error="<script>alert(1)</script>", steps=steps)._repr_html_())
    for part in ("<b>bold v2", "succeeded", "in 4 s", "run r1", "<script>alert(1)</script>", "<i>rows=3", "0.5 s"):
        assert part in shown.text
    assert " 3/4, 1 failed" in shown.text
    assert "fit[0]" not in shown.text
    assert shown.tags <= {"div", "b", "span", "table", "tr", "th", "td"}


def test_the_html_of_a_large_run_is_small() -> None:
    steps = {f"s{number}": step(metrics={f"m{n}": 0.1 for n in range(50)}) for number in range(2_000)}
    html = run(steps=steps, error="x" * 10_000)._repr_html_()
    assert len(html) < 20_000
    assert "the first 30 of 2000 steps" in html


def test_colours_suit_light_and_dark_pages() -> None:
    """Text has the colour of the page or a middle one; nothing has a background."""
    html = run(steps={"a": step(), "b": step(state="failed")})._repr_html_()
    assert "background" not in html
    colours = set(re.findall(r"color:([^;\"]+)", html))
    assert len(colours) == 2
    for colour in colours:
        red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
        assert 80 < 0.3 * red + 0.6 * green + 0.1 * blue < 175, colour


def test_runs_as_a_table() -> None:
    first = run(
        "r1",
        inputs={"depth": {"value": 3}, "data": {"artifact": {"sha256": "ab" * 32, "size": 1}}},
        labels={"team": "red"},
        steps={"a": step(metrics={"loss": 0.5, "seen": 1.0}), "b": step(metrics={"loss": 0.25})},
    )
    second = run("r2", state="running", finished_at=None, duration=None, inputs={"depth": {"value": 4}})
    table = frame([first, second])
    assert list(table.columns) == [
        "run", "pipeline", "version", "state", "created", "duration",
        "inputs.depth", "inputs.data", "metrics.a.loss", "metrics.seen", "metrics.b.loss", "labels.team",
    ]  # fmt: skip
    assert table["run"].tolist() == ["r1", "r2"]
    assert str(table["created"].dtype).startswith("datetime64[") and "UTC" in str(table["created"].dtype)
    assert table["duration"].isna().tolist() == [False, True]
    assert table["inputs.depth"].tolist() == [3, 4]
    assert table["inputs.data"][0] == "sha256:" + "ab" * 32
    assert table["metrics.b.loss"][0] == 0.25


def test_no_runs_are_a_table_with_the_usual_columns() -> None:
    table = frame([])
    assert list(table.columns) == ["run", "pipeline", "version", "state", "created", "duration"]
    assert len(table) == 0


def test_without_pandas_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ClientError, match=r"runs\.frame\(\) needs pandas: pip install pandas"):
        frame([])
