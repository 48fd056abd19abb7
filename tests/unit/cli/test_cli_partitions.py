"""The calendar of partitions: a cell for each, whatever its kind."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from penstock.client.partitions import Partition, PartitionSummary
from penstock_cli import partitions

PARIS = ZoneInfo("Europe/Paris")


def calendar(by: str, *found: tuple[str, str]) -> list[str]:
    rows = [
        Partition(key=at, state=state, start=datetime.fromisoformat(at).timestamp(), end=0.0) for at, state in found
    ]
    summary = PartitionSummary(by=by, tz="Europe/Paris", total=len(rows), counts={})
    lines = partitions.calendar(summary, rows)
    return ["".join(text for text, _ in line).rstrip() for line in lines]


@pytest.mark.parametrize(
    ("by", "found", "row"),
    [
        ("day", ("2026-01-03T00:00+01:00", "succeeded"), "2026-01        \u2713"),
        ("month", ("2026-02-01T00:00+01:00", "failed"), "2026     \u2717"),
        ("week", ("2025-12-29T00:00+01:00", "missing"), "2026  \u00b7"),
        ("hour", ("2026-01-03T01:00+01:00", "running"), "2026-01-03     \u25b6"),
    ],
)
def test_each_partition_has_a_cell(by: str, found: tuple[str, str], row: str) -> None:
    assert calendar(by, found)[1] == row


def test_the_hour_that_is_repeated_shows_the_worse_state() -> None:
    both = (("2026-10-25T02:00+02:00", "succeeded"), ("2026-10-25T02:00+01:00", "failed"))
    assert calendar("hour", *both)[1] == "2026-10-25        \u2717"


def test_other_partitions_are_a_list() -> None:
    summary = PartitionSummary(by="static", tz="", total=2, counts={"missing": 1, "running": 1, "failed": 0})
    rows = [Partition(key="eu", state="missing"), Partition(key="asia", state="running")]
    lines = ["".join(text for text, _ in line) for line in partitions.calendar(summary, rows)]
    assert lines == ["eu    \u00b7 missing", "asia  \u25b6 running"]
    assert partitions.describe(summary) == "2 static partitions: 1 missing, 1 running"
