"""Images of environments: which options are valid, the Dockerfile, and the digest of what an image is made from."""

from __future__ import annotations

import pytest

from penstock_core.environments import dockerfile
from penstock_core.environments.declaration import EnvironmentDeclaration, InvalidDeclarationError
from penstock_core.environments.image_options import ImageOptions
from penstock_core.environments.lock import EnvironmentLock, LockedPackage

PINNED = "registry.example/team/train@sha256:" + "a" * 64
LOCK = EnvironmentLock(python="3.12", packages=(LockedPackage(name="base", version="1", hashes=("sha256:0",)),))
EMPTY = EnvironmentLock(python="3.12")


def declare(*requirements: str, **options: object) -> EnvironmentDeclaration:
    image = ImageOptions(**options)  # type: ignore[arg-type]
    return EnvironmentDeclaration(name="e", python="3.12", requirements=requirements, image=image)


@pytest.mark.parametrize(
    "options",
    [
        {"base": "python:3.12-slim"},
        {"base": "127.0.0.1:5000/a/b_c:1.2@sha256:" + "0" * 64},
        {"image": PINNED},
        {"system": ("libgomp1", "gcc=4:12.2.0-3", "libstdc++6")},
        {"dockerfile": "ARG A=1\nFROM python:3.12\nCOPY --from=node:22 /usr/bin/node /usr/bin/\nRUN true\n"},
        {"platforms": ("linux/amd64", "linux/arm/v7")},
    ],
)
def test_options_of_images(options: dict[str, object]) -> None:
    assert declare(**options).digest() != declare().digest()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"base": "python", "dockerfile": "FROM a"}, "exclude each other"),
        ({"base": "-flag"}, "base must be the name of an image"),
        ({"base": "a b"}, "base must be the name of an image"),
        ({"base": "a\nRUN id"}, "base must be the name of an image"),
        ({"image": "python:3.12"}, "image must have a digest"),
        ({"image": PINNED, "system": ("git",)}, "an image by digest is complete"),
        ({"system": ("-o Dpkg=1",)}, "is not the name of a package"),
        ({"system": ("git; id",)}, "is not the name of a package"),
        ({"dockerfile": "RUN true"}, "has no FROM"),
        ({"dockerfile": "FROM a\ncopy code /code"}, "built without any"),
        ({"dockerfile": "FROM a\nRUN pip install -i https://u:p@host/simple x"}, "contains a user or a password"),
        ({"dockerfile": "FROM a\n" + "#" * 70_000}, "more than 65536 characters"),
        ({"platforms": ("linux",)}, "is not a platform"),
    ],
)
def test_options_that_are_not_valid(options: dict[str, object], problem: str) -> None:
    with pytest.raises(InvalidDeclarationError, match=problem):
        declare(**options)


def test_an_image_by_digest_has_no_requirements() -> None:
    with pytest.raises(InvalidDeclarationError, match="leave requirements and project out"):
        declare("pandas", image=PINNED)


def test_the_order_of_packages_and_platforms_does_not_count() -> None:
    one = declare(system=("a", "b"), platforms=("x/a", "x/b"))
    assert one.digest() == declare(system=("b", "a"), platforms=("x/b", "x/a")).digest()


def test_the_dockerfile_installs_the_lock_into_a_virtual_environment() -> None:
    text = dockerfile.text(LOCK, ImageOptions(system=("libb", "liba")), "python:3.12")
    lines = text.splitlines()
    assert lines[0] == "FROM python:3.12" and lines[-1] == "USER 65532:65532"
    assert "apt-get install -y --no-install-recommends liba libb" in text
    assert "--require-hashes" in text and "--mount=type=secret,id=pip" in text
    assert text.index("apt-get") < text.index("venv") < text.index("pip --python")


def test_an_own_dockerfile_is_the_base_and_without_distributions_the_image() -> None:
    own = "FROM a AS build\nRUN true\nFROM b\nUSER me"
    assert dockerfile.text(EMPTY, ImageOptions(dockerfile=own), "") == own + "\n"
    text = dockerfile.text(LOCK, ImageOptions(dockerfile=own), "")
    assert text.startswith(own + "\nUSER 0\n") and "/opt/environment" in text
    assert dockerfile.text(EMPTY, ImageOptions(), "python:3.12") == "FROM python:3.12\n"


def test_what_an_image_is_made_from_has_a_digest() -> None:
    text = dockerfile.text(LOCK, ImageOptions(), "a")
    known = dockerfile.digest(text, LOCK, ("x/a", "x/b"))
    assert known == dockerfile.digest(text, LOCK, ("x/b", "x/a"))
    others = {
        dockerfile.digest(dockerfile.text(LOCK, ImageOptions(), "b"), LOCK, ("x/a", "x/b")),
        dockerfile.digest(text, EMPTY, ("x/a", "x/b")),
        dockerfile.digest(text, LOCK, ()),
    }
    assert known not in others and len(others) == 3
