"""Names and ids: validation, and stability of derived ids."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_core import ids
from penstock_core.errors import InvalidIdError, PenstockError
from penstock_testkit import strategies

TOKEN_BREAKERS = [".", " ", "*", ">", "\n", "\t", "\0", "é", "١"]


@pytest.mark.parametrize("name", ["a", "_", "A-b_9", "0", "x" * 100])
def test_valid_names_are_returned_unchanged(name: str) -> None:
    assert ids.check_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", "x" * 101, "a/b", "a[1]", "a\n", *(f"a{c}b" for c in TOKEN_BREAKERS)])
def test_invalid_names_are_rejected_by_kind(name: str) -> None:
    with pytest.raises(InvalidIdError, match="pool") as caught:
        ids.check_name(name, "pool")
    assert isinstance(caught.value, PenstockError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("key", ["split", "split-2", "train[3]", "features/split", "a/b[1][22]", "x" * 200])
def test_valid_step_keys_are_returned_unchanged(key: str) -> None:
    assert ids.check_step_key(key) == key


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/a",
        "-a",
        "x" * 201,
        "a[",
        "a[]",
        "a[x]",
        "a[1]b",
        "a[1234567890]",
        "a[1]\n",
        *(f"a{c}" for c in TOKEN_BREAKERS),
    ],
)
def test_invalid_step_keys_are_rejected(key: str) -> None:
    with pytest.raises(InvalidIdError, match="step key"):
        ids.check_step_key(key)


@given(strategies.names | strategies.step_keys)
def test_ids_are_single_subject_tokens(name: str) -> None:
    assert ids.check_step_key(name) == name
    assert not set(name) & set(". *>\r\n")


@pytest.mark.parametrize("digest", ["", "a" * 63, "a" * 65, "A" * 64, "g" * 64, "a" * 64 + "\n"])
def test_invalid_digests_are_rejected(digest: str) -> None:
    with pytest.raises(InvalidIdError, match="SHA-256"):
        ids.check_digest(digest)
    assert ids.check_digest("0123456789abcdef" * 4) == "0123456789abcdef" * 4


def test_a_shard_is_two_digits_and_never_changes() -> None:
    assert ids.shard("run0") == f"{zlib.crc32(b'run0') % 4:02d}" == "01"
    assert {ids.shard(f"r{n}") for n in range(500)} == {f"{n:02d}" for n in range(ids.SHARDS)}


@given(st.lists(st.tuples(st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10)), min_size=2, max_size=5))
def test_run_ids_sort_by_time_and_are_names(moments: list[tuple[int, bytes]]) -> None:
    made = [(ms, ids.run_id(ms, entropy)) for ms, entropy in moments]
    for ms, run in made:
        assert len(ids.check_name(run, "run id")) == 26
        for other_ms, other in made:
            if ms < other_ms:
                assert run < other


@given(st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10), st.binary(min_size=10, max_size=10))
def test_run_ids_keep_all_entropy(ms: int, one: bytes, other: bytes) -> None:
    assert (ids.run_id(ms, one) == ids.run_id(ms, other)) == (one == other)


def test_an_idempotency_key_is_always_the_same_run() -> None:
    run = ids.run_id_from_key("default", "training", "order-17")
    assert run == "kgdzbbxm4arq2501e51rf83tn0"
    assert ids.check_name(run, "run id") == run
    others = [("default", "training", "order-18"), ("default", "train", "ingorder-17"), ("d", "training", "order-17")]
    assert run not in {ids.run_id_from_key(*parts) for parts in others}


def test_parts_of_an_idempotency_key_are_delimited() -> None:
    assert ids.run_id_from_key("a", "b", "c") != ids.run_id_from_key("ab", "", "c")
    assert ids.run_id_from_key("a", "bc", "") != ids.run_id_from_key("a", "b", "c")


def test_attempt_ids_are_unique() -> None:
    assert ids.attempt_id("r", "a", 1) == "r/a/1"
    assert len({ids.attempt_id("r", key, n) for key in ("a", "b") for n in (1, 2)}) == 4
