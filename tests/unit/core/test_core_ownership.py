"""Ownership of shards: equal views agree, shares are equal, few shards move, and no shard stays without a holder."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_core.shard_ownership import SILENCE, Membership, owners

SHARDS = 16
"""More than the log has, so that shares differ more."""

ALL = frozenset(range(SHARDS))
names = st.text("abcdef0123456789-", min_size=1, max_size=12)
groups = st.sets(names, min_size=1, max_size=24)


@given(groups, st.randoms(), st.integers(1, 64))
def test_every_order_gives_the_same_owners(group: set[str], chance: random.Random, shards: int) -> None:
    shuffled = list(group) * 2
    chance.shuffle(shuffled)
    assert owners(shuffled, shards) == owners(group, shards)
    assert len(owners(group, shards)) == shards


@given(groups, st.integers(1, 64))
def test_shares_differ_by_one_at_most(group: set[str], shards: int) -> None:
    load = Counter(dict.fromkeys(group, 0))
    load.update(owners(group, shards))
    assert set(load) == group
    assert max(load.values()) - min(load.values()) <= 1


def test_no_replicas_own_no_shards() -> None:
    with pytest.raises(ValueError, match="no replica"):
        owners([])


def test_owners_never_change_between_versions() -> None:
    # Replicas of two versions run side by side during an upgrade and must agree.
    assert "".join(owners(["a", "b", "c", "d"], SHARDS)) == "dcaacbcdadbbdcab"


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8, 16])
def test_a_replica_that_leaves_moves_its_share_and_few_others(count: int) -> None:
    chance = random.Random(count)
    moved: list[int] = []
    for _ in range(200):
        group = [f"replica-{chance.getrandbits(32):08x}" for _ in range(count)]
        before, after = owners(group, SHARDS), owners(group[1:], SHARDS)
        moved.append(sum(b != a for b, a in zip(before, after, strict=True) if b != group[0]))
    # Plain rendezvous hashing moves none, at the price of one replica with two or three times the share of another.
    assert sum(moved) / len(moved) <= 2.5
    assert max(moved) <= SHARDS // 2


# ------------------------------------------------------------------------------------------------------- membership


class ReplicaGroup:
    """Replicas with immediate communication and a clock."""

    def __init__(self, count: int) -> None:
        self.now = 100.0
        self.there: dict[str, Membership] = {}
        for n in range(count):
            self.join(f"r{n}")
        self.settle()

    def join(self, name: str) -> Membership:
        joined = self.there[name] = Membership(name, SHARDS)
        for other in self.there.values():
            other.heard(name, (), self.now)
            joined.heard(other.name, other.held, self.now)
        return joined

    def beat(self) -> None:
        for member in self.there.values():
            member.hold(self.now)
            for other in self.there.values():
                other.heard(member.name, member.held, self.now)

    def settle(self) -> None:
        for _ in range(2):
            self.beat()

    def check(self, *, once: bool = True) -> None:
        held = [shard for member in self.there.values() for shard in member.held]
        assert set(held) == ALL
        if once:
            assert len(held) == SHARDS, "a shard is held twice"


def test_a_single_replica_holds_all_shards_at_once() -> None:
    assert Membership("a", SHARDS).hold(0.0) == ALL


@given(st.integers(1, 9))
def test_each_shard_has_at_most_one_holder(count: int) -> None:
    replicas = ReplicaGroup(count)
    replicas.check()


def test_a_joining_replica_gets_its_share_before_others_release_the_rest() -> None:
    replicas = ReplicaGroup(3)
    newcomer = replicas.join("new")
    for member in replicas.there.values():
        if member is not newcomer:
            member.hold(replicas.now)
    replicas.check(once=False)  # the joining replica holds nothing yet: the others keep its future shards
    share = newcomer.hold(replicas.now)
    assert len(share) == 4
    replicas.settle()
    replicas.check()
    assert newcomer.held == share


def test_shards_of_a_silent_replica_move_after_its_lease_expires() -> None:
    replicas = ReplicaGroup(4)
    dead = replicas.there.pop("r0")
    replicas.now += SILENCE * 0.9
    replicas.beat()
    assert all(not (member.held & dead.held) for member in replicas.there.values())
    replicas.now += SILENCE * 0.2
    replicas.settle()
    replicas.check()
    assert "r0" not in replicas.there["r1"].holdings


def test_shards_of_a_leaving_replica_move_at_once() -> None:
    replicas = ReplicaGroup(4)
    del replicas.there["r0"]
    for member in replicas.there.values():
        member.left("r0")
    replicas.settle()
    replicas.check()


def test_unheard_replicas_get_a_new_lease() -> None:
    replicas = ReplicaGroup(4)
    replicas.now += 60.0
    for member in replicas.there.values():
        member.deaf(replicas.now)
    replicas.beat()
    replicas.check()


def test_an_owner_that_never_takes_its_shards_is_not_waited_for() -> None:
    replicas = ReplicaGroup(2)
    waiting = replicas.there["r1"]
    for _ in range(8):
        replicas.now += SILENCE / 4
        waiting.heard("r0", (), replicas.now)  # it is alive, and holds nothing
        waiting.hold(replicas.now)
    assert waiting.held == ALL
    waiting.heard("r0", replicas.there["r0"].held, replicas.now)
    assert waiting.hold(replicas.now) == ALL - replicas.there["r0"].held


HEARS = st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=4, max_size=4)


@given(HEARS, st.lists(st.floats(0.1, 2.0), min_size=1, max_size=6))
def test_no_shard_stays_without_a_holder_under_any_partition(hears: list[list[bool]], waits: list[float]) -> None:
    """Views that differ permanently and asymmetrically."""
    members = [Membership(f"r{n}", SHARDS) for n in range(4)]
    now = 0.0
    unheld = dict.fromkeys(ALL, 0.0)
    for step in range(60):
        now += waits[step % len(waits)]
        for member in members:
            held = member.hold(now)
            for n, other in enumerate(members):
                if hears[n][members.index(member)]:
                    other.heard(member.name, held, now)
        held_by_any = frozenset[int]().union(*(member.held for member in members))
        for shard in ALL:
            unheld[shard] = now if shard in held_by_any else unheld[shard]
        assert min(unheld.values()) >= now - 2 * SILENCE - 2 * max(waits)
