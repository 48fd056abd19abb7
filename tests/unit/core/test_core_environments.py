"""Declared environments and their locks: digests, and what is refused."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_core.environments import lock
from penstock_core.environments.declaration import EnvironmentDeclaration, InvalidDeclarationError, normal
from penstock_core.environments.lock import EnvironmentLock, InvalidLockError, LockedPackage

names = st.from_regex(r"[a-z][a-z0-9]{0,8}(-[a-z0-9]{1,4})?", fullmatch=True)
digests = st.text("0123456789abcdef", min_size=64, max_size=64)
packages = st.builds(
    LockedPackage,
    name=names,
    version=st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){0,2}", fullmatch=True),
    marker=st.sampled_from(["", "sys_platform == 'win32'", "python_full_version < '3.12'"]),
    hashes=st.lists(digests.map("sha256:{}".format), min_size=1, max_size=3, unique=True).map(sorted).map(tuple),
)
locks = st.lists(packages, max_size=6, unique_by=lambda one: (one.name, one.marker))


def declared(**parts: object) -> EnvironmentDeclaration:
    return EnvironmentDeclaration(**{"name": "train", "python": "3.12", **parts})  # type: ignore[arg-type]


@given(locks, st.randoms())
def test_a_lock_is_read_back_and_its_digest_is_that_of_its_text(found: list[LockedPackage], random: object) -> None:
    made = lock.make("3.12", "\n".join(one.line() for one in found))
    assert lock.parse(made.text()) == made
    assert made.digest() == hashlib.sha256(made.text().encode()).hexdigest()
    random.shuffle(found)  # type: ignore[attr-defined]
    assert lock.make("3.12", "\n".join(f"# by x\n{one.line()}" for one in found)).digest() == made.digest()
    assert lock.make("3.13", made.text()).digest() != made.digest()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("attrs==1.0", "has no hash"),
        ("attrs>=1.0 --hash=sha256:ab", "not an exact version"),
        ("--index-url https://x/simple", "option '--index-url'"),
        ("-e .", "option '-e'"),
    ],
)
def test_a_lock_holds_exact_versions_with_hashes_only(text: str, reason: str) -> None:
    with pytest.raises(InvalidLockError, match=reason):
        lock.make("3.12", text)
    with pytest.raises(InvalidLockError, match="not the lock"):
        lock.parse("attrs==1.0 --hash=sha256:ab")


def test_versions_of_a_lock_by_name() -> None:
    two = [LockedPackage(name="a", version=v, marker=m, hashes=("sha256:0",)) for v, m in (("1", "x"), ("2", "y"))]
    by_url = LockedPackage(name="b", url="https://host/b.whl", hashes=("sha256:0",))
    made = EnvironmentLock(python="3.12", packages=(*two, by_url))
    assert made.versions() == {"a": "1 or 2", "b": "https://host/b.whl"}
    assert lock.parse(made.text()) == made


@given(st.permutations(["pandas>=2", "Scikit_Learn == 1.7", "attrs"]))
def test_the_order_and_spelling_of_requirements_do_not_count(lines: list[str]) -> None:
    assert (
        declared(requirements=tuple(lines)).digest()
        == declared(requirements=("attrs ", "scikit-learn==1.7", "pandas >= 2")).digest()
    )


@pytest.mark.parametrize(
    "change",
    [
        {"python": "3.11"},
        {"requirements": ("attrs>=2",)},
        {"constraints": ("attrs<9",)},
        {"index": "https://host/simple"},
        {"extra_indexes": ("https://host/simple",)},
    ],
)
def test_everything_else_counts(change: dict[str, object]) -> None:
    one = declared(requirements=("attrs",))
    assert replace(one, **change).digest() != one.digest()  # type: ignore[arg-type]
    assert replace(one, name="other").digest() == one.digest()


def test_markers_and_extras_are_kept() -> None:
    assert normal("Foo_Bar [x, y] >= 1 ; python_version < '3.12'") == "foo-bar[x,y]>= 1 ; python_version < '3.12'"


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"python": "3"}, "minor version"),
        ({"python": "3.11.7"}, "minor version"),
        ({"name": "a b"}, "not valid"),
        ({"requirements": ("-r other.txt",)}, "is an option"),
        ({"requirements": ("--index-url=https://x",)}, "is an option"),
        ({"requirements": ("./local",)}, "local files"),
        ({"requirements": ("/srv/x.whl",)}, "local files"),
        ({"requirements": ("x @ file:///etc/passwd",)}, "refers to a file"),
        ({"requirements": ("x @ ../x.whl",)}, "refers to a file"),
        ({"requirements": ("x @ folder/../../x.whl",)}, "refers to a file"),
        ({"requirements": ("x @ FILE:///etc/passwd",)}, "refers to a file"),
        ({"requirements": ("folder/../../x",)}, "local files"),
        ({"requirements": ("https://host/x.whl",)}, "NAME @ https"),
        ({"requirements": ("x \\",)}, "name of a distribution"),
        ({"requirements": ("x @ https://host/${UV_INDEX_URL}",)}, "environment variable"),
        ({"requirements": ("x @ git+https://host/x",)}, "repository"),
        ({"requirements": ("x @ https://user:secret@host/x.whl",)}, "password"),
        ({"requirements": ("a\nb",)}, "printable"),
        ({"requirements": ("",)}, "printable"),
        ({"requirements": ("a",) * 3000}, "more than 2000"),
        ({"index": "https://user:secret@host/simple"}, "password"),
        ({"index": "--help"}, "not the URL"),
        ({"extra_indexes": ("ftp://host",)}, "not the URL"),
        ({"extra_indexes": ("https://host/${UV_INDEX_URL}",)}, "not the URL"),
        ({"uv_lock": "version = 1"}, "pyproject"),
        ({"uv_lock": "x", "pyproject": 'url = "https://user:secret@host/simple"'}, r"pyproject\.toml contains a user"),
        ({"uv_lock": 'registry = "https://token@host/simple"', "pyproject": "x"}, r"uv\.lock contains a user"),
        ({"uv_lock": "x", "pyproject": "x", "requirements": ("a",)}, "leave requirements"),
    ],
)
def test_what_cannot_be_built_everywhere_is_refused(parts: dict[str, object], reason: str) -> None:
    with pytest.raises((InvalidDeclarationError, ValueError), match=reason) as raised:
        declared(**parts)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "line",
    ["x", "x[a,b]~=1.0", "x ; python_version < '3.13'", "x (>=1)", "x @ https://host/@scope/x.whl", "x!=1,<3"],
)
def test_requirements_of_every_form_are_accepted(line: str) -> None:
    assert declared(requirements=(line,)).requirements == (line,)


def test_an_address_in_a_pyproject_is_no_password() -> None:
    project = 'authors = [{email = "ada@host"}]\nurls = {a = "https://host/a?b=c@d", b = "https://host/@scope"}'
    assert declared(pyproject=project, uv_lock="x").pyproject == project
