"""Comparison of the recorded positions of streams with those of now."""

from __future__ import annotations

from penstock_core import integrity
from penstock_core.integrity import Damage, IntegrityRecord, StreamPosition


def at(last: int, messages: int, created: str = "c", dropped: str = "") -> StreamPosition:
    return StreamPosition(created, last, messages, dropped)


def kinds(known: dict[str, StreamPosition], now: dict[str, StreamPosition]) -> list[tuple[str, str, int]]:
    found = integrity.compare(IntegrityRecord(known), now, 5.0)
    return [(one.stream, one.kind, one.lost) for one in found]


def test_growth_and_deletions_are_no_damage() -> None:
    assert kinds({"S": at(5, 5)}, {"S": at(9, 9), "NEW": at(1, 1)}) == []
    assert kinds({"S": at(9, 9)}, {"S": at(9, 2)}) == []


def test_losses() -> None:
    assert kinds({"S": at(9, 9)}, {"S": at(5, 5)}) == [("S", "truncated", 4)]
    assert kinds({"S": at(9, 9)}, {"S": at(9, 6, dropped="x")}) == [("S", "incomplete", 3)]
    assert kinds({"S": at(9, 9)}, {"S": at(1, 1, "later")}) == [("S", "replaced", 9)]
    assert kinds({"S": at(9, 9)}, {}) == [("S", "replaced", 9)]
    assert kinds({}, {"S": at(9, 9, dropped="x")}) == [("S", "incomplete", 1)]


def test_streams_from_which_only_the_oldest_messages_are_deleted() -> None:
    record = IntegrityRecord({"S": StreamPosition("c", 9, 9)})
    [damage] = integrity.compare(record, {"S": StreamPosition("c", 9, 6)}, 5.0, ["S"])
    assert (damage.kind, damage.lost) == ("incomplete", 3)
    for now in (StreamPosition("c", 9, 6, first_seq=4), StreamPosition("c", 12, 9, first_seq=3)):
        assert integrity.compare(record, {"S": now}, 5.0, ["S"]) == []


def test_streams_without_their_last_recorded_message() -> None:
    record = IntegrityRecord({"S": StreamPosition("c", 9, 3, first_seq=7)})
    now = {"S": StreamPosition("c", 9, 0, first_seq=10)}
    assert integrity.compare(record, now, 5.0, ["S"]) == []
    [damage] = integrity.compare(record, now, 5.0, without_last=["S"])
    assert (damage.kind, damage.lost) == ("incomplete", 3)


def test_a_loss_is_found_once_and_an_empty_stream_can_be_replaced() -> None:
    assert kinds({"S": at(9, 9, dropped="x")}, {"S": at(9, 9, dropped="x")}) == []
    assert kinds({"S": at(0, 0)}, {"S": at(0, 0, "later")}) == [("S", "replaced", 0)]
    assert kinds({"S": at(7, 0)}, {"S": at(0, 0, "later")}) == [("S", "replaced", 1)]
    damage = Damage("id", "S", "truncated", 1.0, 4)
    record = integrity.update(IntegrityRecord(), {"S": at(5, 5)}, [damage])
    assert integrity.update(record, {"S": at(6, 6)}, [damage]).damages == (damage,)


def test_restored_messages_close_the_latest_damages_first() -> None:
    damages = (Damage("1", "S", "truncated", 1.0, 4), Damage("2", "T", "truncated", 1.0, 4))
    record = IntegrityRecord({}, (*damages, Damage("3", "S", "incomplete", 2.0, 3)))
    record = integrity.repaired(record, "S", 5, ("run r: its request is lost",))
    assert [(one.restored, one.is_open) for one in record.damages] == [(2, True), (0, True), (3, False)]
    assert integrity.describe(record.damages[0]) == (
        "stream S lost its end: 4 messages, 2 of them restored, 2 missing (run r: its request is lost)"
    )
    assert not integrity.accept(record).open
    assert integrity.describe(Damage("4", "S", "replaced", 3.0, 0)) == "stream S was created again without its messages"
