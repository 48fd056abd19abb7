"""Partitions: keys, intervals and numbers, also when clocks change."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_core.deployments.definition import CronTrigger, Definition, EndpointTrigger, EventTrigger
from penstock_core.deployments.definition_problems import problems as definition_problems
from penstock_core.deployments.partitions import (
    PartitionError,
    PartitionKind,
    Partitions,
    PartitionSet,
    expand,
    problems,
    ranges,
)
from penstock_core.errors import InputError

PARIS = ZoneInfo("Europe/Paris")


def declared(by: str, start: str = "2026-01-01", tz: str = "UTC", **more: Any) -> Partitions:
    return Partitions(by=PartitionKind(by), start=start, tz=tz, **more)


def at(text: str, tz: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(tz)).timestamp()


def keys(found: PartitionSet, now: float) -> list[str]:
    return [found.at(number).key for number in range(found.count(now))]


def test_a_partition_of_time_exists_once_its_interval_has_ended() -> None:
    days = PartitionSet(declared("day", tz="Europe/Paris"))
    assert days.count(at("2026-01-01T23:59", "Europe/Paris")) == 0
    assert keys(days, at("2026-01-03T00:00", "Europe/Paris")) == ["2026-01-01", "2026-01-02"]
    assert days.count(0.0) == 0


@pytest.mark.parametrize(
    ("by", "start", "expected"),
    [
        ("day", "2026-01-30", ["2026-01-30", "2026-01-31", "2026-02-01"]),
        ("week", "2025-12-31", ["2026-W01", "2026-W02", "2026-W03", "2026-W04", "2026-W05"]),
        ("month", "2025-11-15", ["2025-11", "2025-12", "2026-01"]),
    ],
)
def test_the_first_partition_contains_the_start(by: str, start: str, expected: list[str]) -> None:
    assert keys(PartitionSet(declared(by, start)), at("2026-02-02")) == expected


def test_hours_are_real_hours_when_the_clock_changes() -> None:
    hours = PartitionSet(declared("hour", "2026-10-25T01:30", "Europe/Paris"))
    assert keys(hours, at("2026-10-25T04:00", "Europe/Paris")) == [
        "2026-10-25T01:00+02:00",
        "2026-10-25T02:00+02:00",
        "2026-10-25T02:00+01:00",
        "2026-10-25T03:00+01:00",
    ]
    utc = PartitionSet(declared("hour", "2026-01-01T08:00"))
    assert keys(utc, at("2026-01-01T10:59")) == ["2026-01-01T08:00Z", "2026-01-01T09:00Z"]


def test_days_have_23_or_25_hours_when_the_clock_changes() -> None:
    days = PartitionSet(declared("day", "2026-03-28", "Europe/Paris"))
    lengths = [(one.end - one.start) / 3600 for one in map(days.at, range(3))]
    assert lengths == [24, 23, 24]


def test_inputs_are_the_key_and_the_interval() -> None:
    mapped = {"day": "key", "since": "start", "until": "end"}
    days = PartitionSet(declared("day", tz="Europe/Paris", inputs=mapped))
    assert days.inputs(days.at(0)) == {
        "day": "2026-01-01",
        "since": "2026-01-01T00:00:00+01:00",
        "until": "2026-01-02T00:00:00+01:00",
    }
    utc = PartitionSet(declared("day", inputs={"since": "start"}))
    assert utc.inputs(utc.at(0)) == {"since": "2026-01-01T00:00:00Z"}


def test_a_tick_fills_the_partition_that_ended_last() -> None:
    days = PartitionSet(declared("day", tz="Europe/Paris", end="2026-01-04"))
    found = [days.finished_at(at(f"2026-01-0{n}T03:00", "Europe/Paris")) for n in range(1, 7)]
    assert [one.key if one else None for one in found] == [
        None,
        "2026-01-01",
        "2026-01-02",
        "2026-01-03",
        None,
        None,
    ]


def test_keys_that_do_not_exist_are_refused_with_the_reason() -> None:
    now = at("2026-01-03T12:00")
    days = PartitionSet(declared("day", end="2026-01-03"))
    assert days.find("2026-01-02", now).number == 1
    for key in ("2025-12-31", "2026-1-1", "20260101", "2026-01-01T00:00", "9999-12-31", "x", ""):
        with pytest.raises(PartitionError):
            days.find(key, now)
    with pytest.raises(PartitionError, match="is after the last partition"):
        days.find("2026-01-03", now)
    with pytest.raises(PartitionError, match="exists from 2026-01-04T00:00:00"):
        PartitionSet(declared("day")).find("2026-01-03", now)
    with pytest.raises(PartitionError, match="the keys are eu, us"):
        PartitionSet(Partitions(by=PartitionKind.STATIC, keys=("eu", "us"))).find("cn", now)
    with pytest.raises(PartitionError, match="penstock partitions add"):
        PartitionSet(Partitions(by=PartitionKind.DYNAMIC), ["a"]).find("b", now)
    for by in PartitionKind:
        if by not in (PartitionKind.STATIC, PartitionKind.DYNAMIC):
            with pytest.raises(PartitionError):
                PartitionSet(declared(by)).find("9999-12", now)


def test_dynamic_keys_keep_their_numbers() -> None:
    found = PartitionSet(Partitions(by=PartitionKind.DYNAMIC), ["b", "a"])
    assert [found.find(key, 0.0).number for key in ("b", "a")] == [0, 1]
    assert found.count(0.0) == 2


def test_ranges_of_time_include_partitions_that_begin_in_them() -> None:
    days, now = PartitionSet(declared("day", tz="Europe/Paris")), at("2026-02-01")
    one, other = at("2026-01-05", "Europe/Paris"), at("2026-01-08", "Europe/Paris")
    assert days.between(one, other, now) == range(4, 7)
    assert days.between(one + 1, other + 1, now) == range(5, 8)
    assert days.between(0.0, 1.0, now) == range(0)
    assert days.between(0.0, 1e11, now) == range(31)
    assert days.moment("2026-01-05") == one
    with pytest.raises(InputError):
        days.moment("yesterday")


@pytest.mark.parametrize("tz", ["America/New_York", "Asia/Tokyo"])
@pytest.mark.parametrize("text", ["0001-01-01", "9999-12-31T23:59", "0001-01-01T00:00+14:00", "9999-12-31T23:59-12:00"])
def test_times_that_have_no_place_in_the_calendar_are_refused(text: str, tz: str) -> None:
    with pytest.raises(InputError, match="between the years 1970 and 2999"):
        PartitionSet(declared("day", tz=tz)).moment(text)


@given(
    st.sampled_from(["hour", "day", "week", "month"]),
    st.sampled_from(
        ["UTC", "Europe/Paris", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "America/Havana"]
    ),
    st.dates(datetime(1990, 1, 1).date(), datetime(2060, 1, 1).date()),
    st.integers(0, 5_000),
)
def test_partitions_follow_each_other_without_gaps_and_are_found_by_key_and_time(
    by: str, tz: str, start: Any, number: int
) -> None:
    found = PartitionSet(declared(by, str(start), tz))
    one, after = found.at(number), found.at(number + 1)
    assert one.start < one.end == after.start
    assert found.number(one.key) == number
    assert found.count(one.end) == number + 1
    assert found.count(one.end - 0.001) == number
    assert found.finished_at(one.end) == one
    assert found.between(one.start, one.end, after.end) == range(number, number + 1)
    first = found.at(0)
    assert first.start <= datetime(start.year, start.month, start.day, tzinfo=ZoneInfo(tz)).timestamp() < first.end


@given(st.sets(st.integers(0, 200)))
def test_numbers_become_ranges_and_back(numbers: set[int]) -> None:
    found = ranges(sorted(numbers))
    assert expand(found) == sorted(numbers)
    assert all(first + length < later for (first, length), (later, _) in itertools.pairwise(found))


@pytest.mark.parametrize(
    ("found", "paths"),
    [
        (declared("day", ""), ["start"]),
        (declared("day", "soon"), ["start"]),
        (declared("day", "2026-01-01T00:00Z"), ["start"]),
        (declared("day", "1969-01-01"), ["start"]),
        (declared("day", end="2026-01-01"), ["end"]),
        (declared("hour", end="9999-12-31T23:00", tz="America/New_York"), ["end"]),
        (declared("day", tz="Mars/Base"), ["tz"]),
        (declared("day", keys=("a",)), ["keys"]),
        (declared("day", inputs={"x": "middle"}), ["inputs.x"]),
        (Partitions(by=PartitionKind.STATIC), ["keys"]),
        (Partitions(by=PartitionKind.STATIC, keys=("a", "a")), ["keys"]),
        (
            Partitions(by=PartitionKind.STATIC, keys=("", " a", "x" * 201, "a\n")),
            ["keys[0]", "keys[1]", "keys[2]", "keys[3]"],
        ),
        (Partitions(by=PartitionKind.STATIC, keys=tuple(map(str, range(1001)))), ["keys"]),
        (Partitions(by=PartitionKind.DYNAMIC, start="2026-01-01", inputs={"x": "start"}), ["start", "inputs.x"]),
        (declared("day", inputs={"x": "end"}), []),
    ],
)
def test_what_is_wrong_in_a_declaration_is_named(found: Partitions, paths: list[str]) -> None:
    assert [path for path, _ in problems(found)] == paths


def test_triggers_give_their_runs_a_partition() -> None:
    days = declared("day", inputs={"day": "key"})
    on = EventTrigger(name="on", types=("com.acme",), partition="data.day")
    cron = CronTrigger(name="cron", cron="@daily")

    def wrong(definition: Definition) -> list[str]:
        return [path for path, _ in definition_problems(definition)]

    assert wrong(Definition(pipeline="p", triggers=(on, cron), partitions=days)) == []
    assert wrong(Definition(pipeline="p", triggers=(on,))) == ["triggers[0].partition"]
    plain = EventTrigger(name="on", types=("com.acme",), inputs={"day": "data.day"})
    assert wrong(Definition(pipeline="p", triggers=(plain,), partitions=days)) == [
        "triggers[0].partition",
        "triggers[0].inputs.day",
    ]
    static = Partitions(by=PartitionKind.STATIC, keys=("a",))
    assert wrong(Definition(pipeline="p", triggers=(cron,), partitions=static)) == ["triggers[0].cron"]
    assert wrong(Definition(pipeline="p", triggers=(EndpointTrigger(name="e"),), partitions=days)) == [
        "triggers[0].kind"
    ]
    assert wrong(Definition(pipeline="p", partitions=days, labels={"partition": "x"})) == ["labels.partition"]
    assert wrong(Definition(pipeline="p", partitions=declared("day", ""))) == ["partitions.start"]


def test_the_time_of_a_partition_is_unix_time() -> None:
    one = PartitionSet(declared("day")).at(0)
    assert datetime.fromtimestamp(one.start, UTC).isoformat() == "2026-01-01T00:00:00+00:00"
