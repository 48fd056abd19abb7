"""Whether the streams have everything that was stored in them: compares what was recorded with what is there.

A broker drops the messages that it cannot read from its disk, and goes on without an error. So the platform records the
position of every stream, and compares.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

Kind = Literal["truncated", "replaced", "incomplete", "unreadable"]


@dataclass(frozen=True, slots=True)
class StreamPosition:
    """What a stream contains.

    Attributes:
        created: when it was created; identifies it among streams of its name.
        last_seq: its last sequence.
        messages: how many messages it has.
        first_seq: its first sequence.
        dropped: identifies a loss that the broker itself reports; empty without one.
    """

    created: str
    last_seq: int
    messages: int
    dropped: str = ""
    first_seq: int = 1


@dataclass(frozen=True, slots=True)
class Damage:
    """A loss of messages of a stream.

    Attributes:
        id: the same for the same loss.
        stream: name of the stream.
        kind: `truncated`: its end is missing; `replaced`: it was created again; `incomplete`: the broker dropped
            stored messages when it read its files; `unreadable`: messages are stored, but cannot be read.
        found_at: Unix seconds.
        lost: messages that are missing, as far as known.
        restored: messages that were appended again.
        accepted: a principal accepted the loss.
        notes: what could not be restored, and why.
    """

    id: str
    stream: str
    kind: Kind
    found_at: float
    lost: int
    restored: int = 0
    accepted: bool = False
    notes: tuple[str, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether messages are missing, and nobody accepted that."""
        return self.lost > self.restored and not self.accepted


@dataclass(frozen=True, slots=True)
class IntegrityRecord:
    """The positions of all streams when they were compared last, and all damages, oldest first.

    `server` identifies the process of the broker that had these positions.
    """

    positions: dict[str, StreamPosition] = field(default_factory=dict[str, StreamPosition])
    damages: tuple[Damage, ...] = ()
    server: str = ""

    @property
    def open(self) -> tuple[Damage, ...]:
        """The damages that are neither repaired nor accepted."""
        return tuple(damage for damage in self.damages if damage.is_open)


def compare(
    record: IntegrityRecord,
    now: Mapping[str, StreamPosition],
    at: float,
    append_only: Collection[str] = (),
    without_last: Collection[str] = (),
) -> list[Damage]:
    """Return the damages between recorded positions and those of now.

    Args:
        record: has the recorded positions.
        now: the positions of now, which must have been read after the record.
        at: the time of now in Unix seconds.
        append_only: streams of which only the oldest messages are ever deleted, or that replace messages by newer ones.
        without_last: streams that have fewer messages since the broker was restarted, and lack the last recorded one.
    """
    found = (
        _damage(name, record.positions.get(name), new, at, name in append_only, name in without_last)
        for name, new in now.items()
    )
    missing = [_replaced(name, known, at) for name, known in record.positions.items() if name not in now]
    return [*missing, *(damage for damage in found if damage is not None)]


def _damage(
    name: str, known: StreamPosition | None, now: StreamPosition, at: float, append_only: bool, without_last: bool
) -> Damage | None:
    if known is None:
        return Damage(f"{name}:{now.dropped}", name, "incomplete", at, 1) if now.dropped else None
    if known.created != now.created:
        return _replaced(name, known, at)
    lost = max(1, known.messages - now.messages)
    if now.last_seq < known.last_seq:
        return Damage(f"{name}:{now.created}:{known.last_seq}:{now.last_seq}", name, "truncated", at, lost)
    if now.dropped and now.dropped != known.dropped:
        return Damage(f"{name}:{now.dropped}", name, "incomplete", at, lost)
    gone = known.first_seq + known.messages - now.first_seq - now.messages
    if append_only and gone > 0:
        return Damage(f"{name}:{now.created}:{now.last_seq}:-{gone}", name, "incomplete", at, gone)
    if without_last:
        return Damage(f"{name}:{now.created}:{known.last_seq}:last", name, "incomplete", at, lost)
    return None


def _replaced(name: str, known: StreamPosition, at: float) -> Damage:
    """Return the loss of a stream that was created again; messages after the recorded position are not known."""
    lost = max(1, known.messages) if known.last_seq else 0
    return Damage(f"{name}:{known.created}:replaced", name, "replaced", at, lost)


def update(
    record: IntegrityRecord, positions: Mapping[str, StreamPosition], damages: list[Damage], server: str = ""
) -> IntegrityRecord:
    """Return the record with new positions and damages; known damages are not added again."""
    known = {damage.id for damage in record.damages}
    fresh = tuple(damage for damage in damages if damage.id not in known)
    return IntegrityRecord(dict(positions), record.damages + fresh, server)


def repaired(record: IntegrityRecord, stream: str, restored: int, notes: tuple[str, ...]) -> IntegrityRecord:
    """Return the record after messages of a stream were appended again: they count for its latest open damages."""
    damages = list(record.damages)
    left = restored
    for index in reversed(range(len(damages))):
        damage = damages[index]
        if damage.stream == stream and damage.is_open:
            share = min(left, damage.lost - damage.restored)
            left -= share
            damages[index] = replace(damage, restored=damage.restored + share, notes=notes)
    return replace(record, damages=tuple(damages))


def accept(record: IntegrityRecord) -> IntegrityRecord:
    """Return the record with all open damages accepted."""
    return replace(record, damages=tuple(replace(one, accepted=True) if one.is_open else one for one in record.damages))


def describe(damage: Damage) -> str:
    """Say what was lost and what was restored, for operators."""
    what = {
        "truncated": "lost its end",
        "replaced": "was created again without its messages",
        "incomplete": "lacks messages that were stored",
        "unreadable": "has messages that cannot be read",
    }[damage.kind]
    missing = damage.lost - damage.restored
    text = f"stream {damage.stream} {what}" + (f": {damage.lost} messages" if damage.lost else "")
    text += f", {damage.restored} of them restored" if damage.restored else ""
    text += f", {missing} missing" if damage.restored and missing else ""
    return f"{text} ({'; '.join(damage.notes)})" if damage.notes else text
