"""Principals and tokens: text forms, names, and the stored form of a token."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_core import access
from penstock_core.access import AccessToken, Permission, Principal, PrincipalKind
from penstock_core.errors import InvalidIdError

NAMES = st.text(min_size=1, max_size=access.NAME_LIMIT).filter(str.isprintable)
PRINCIPALS = st.builds(Principal, st.sampled_from(PrincipalKind), NAMES)


@given(PRINCIPALS, PRINCIPALS)
def test_two_principals_have_the_same_text_only_if_they_are_equal(one: Principal, other: Principal) -> None:
    assert (str(one) == str(other)) == (one == other)


@pytest.mark.parametrize("name", ["", "x" * (access.NAME_LIMIT + 1), "two\nlines", "esc\x1b[0m"])
def test_names_with_unprintable_characters_are_rejected(name: str) -> None:
    with pytest.raises(InvalidIdError):
        Principal(PrincipalKind.USER, name)


def test_each_origin_of_a_run_has_its_own_kind_of_principal() -> None:
    assert str(access.user("ada")) == "user:ada"
    assert access.trigger("nightly") == "trigger:nightly"
    assert access.run_step("r1", "train[3]") == "run:r1/train[3]"
    assert access.service("scheduler") == "service:scheduler"
    assert str(access.link("user:ada")) == "link:user:ada"
    assert str(AccessToken(name="ci", digest="0" * 64, created_at=1.0, project="default").principal) == "token:ci"


@given(st.text(max_size=300))
def test_any_account_name_makes_a_user(name: str) -> None:
    assert str(access.user(name)).startswith("user:")


@given(st.text(max_size=100), st.text(max_size=100))
def test_a_token_is_identified_by_its_hash(one: str, other: str) -> None:
    digest = access.token_digest(one)
    assert (digest == access.token_digest(other)) == (one == other)
    assert access.same_digest(digest, access.token_digest(other)) == (one == other)
    assert AccessToken(name="ci", digest=digest, created_at=1.0, project="default").digest == digest


@pytest.mark.parametrize("name", ["", "a.b", "a b", "x" * 101])
def test_token_names_are_validated(name: str) -> None:
    with pytest.raises(InvalidIdError):
        AccessToken(name=name, digest="0" * 64, created_at=1.0, project="default")


def test_permissions_are_named_by_resource_and_verb() -> None:
    assert all(len(one.split(".")) == 2 for one in Permission)
