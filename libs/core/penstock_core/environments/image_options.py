"""What a user declares of the image of an environment: its base, packages of the system, or a complete image."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from penstock_core.frozen import frozen

DOCKERFILE = 64 * 1024
"""Characters of a Dockerfile."""

SYSTEM = 500
"""Packages of the system in one declaration."""

REFERENCE = 500
"""Characters of the name of an image."""

_REFERENCE = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9.:_-]*(/[a-z0-9][a-z0-9._-]*)*?)"
    r"(:(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?(@(?P<digest>sha256:[0-9a-f]{64}))?\Z"
)
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,99}(=[A-Za-z0-9.+:~-]{1,100})?\Z")
_PLATFORM = re.compile(r"[a-z0-9]+/[a-z0-9_]+(/[a-z0-9]+)?\Z")
_FROM = re.compile(r"^\s*FROM\s", re.IGNORECASE | re.MULTILINE)
_FILES_OF_THE_CONTEXT = re.compile(r"^\s*(COPY|ADD)\s+(?!.*--from=)(?!https?://)", re.IGNORECASE | re.MULTILINE)
_CREDENTIALS = re.compile(r"https?://[^/\s@?#\"']+@")


@frozen(kw_only=True)
class ImageOptions:
    """How the image of an environment is made, for steps in pods.

    Attributes:
        base: the image that the environment is installed on; empty: that of the platform.
        system: packages of the system, which `apt-get` installs.
        dockerfile: content of a Dockerfile that makes the base.
        image: a complete image by its digest, `NAME@sha256:…`.
        platforms: operating systems and processors, such as `linux/arm64`; empty: those of the platform.
    """

    base: str = ""
    system: tuple[str, ...] = ()
    dockerfile: str = ""
    image: str = ""
    platforms: tuple[str, ...] = ()

    def identity(self) -> list[Any]:
        """Return what identifies these options; the order of packages and platforms does not count."""
        return [self.base, sorted(set(self.system)), self.dockerfile, self.image, sorted(set(self.platforms))]

    def problems(self) -> Iterator[str]:
        """Yield what is not valid."""
        if sum(map(bool, (self.base, self.dockerfile, self.image))) > 1:
            yield "base, dockerfile and image exclude each other"
        if self.base and not is_reference(self.base):
            yield f"base must be the name of an image, such as python:3.12-slim, not {self.base[:200]!r}"
        if self.image and not (is_reference(self.image) and "@" in self.image):
            yield f"image must have a digest, such as registry.example/train@sha256:…, not {self.image[:200]!r}"
        if self.image and (self.system or self.platforms):
            yield "an image by digest is complete: leave system and platforms out, or use base=…"
        if len(self.system) > SYSTEM:
            yield f"it has more than {SYSTEM} packages of the system"
        for name in self.system:
            if not _PACKAGE.match(name):
                yield f"{name[:200]!r} is not the name of a package of the system, such as libgomp1"
        for name in self.platforms:
            if not _PLATFORM.match(name):
                yield f"{name[:100]!r} is not a platform, such as linux/arm64"
        yield from self._dockerfile_problems()

    def _dockerfile_problems(self) -> Iterator[str]:
        if not self.dockerfile:
            return
        if len(self.dockerfile) > DOCKERFILE:
            yield f"the Dockerfile has more than {DOCKERFILE} characters"
        if not _FROM.search(self.dockerfile):
            yield "the Dockerfile has no FROM"
        if _FILES_OF_THE_CONTEXT.search(self.dockerfile):
            yield (
                "the Dockerfile copies files, but is built without any: use RUN, or COPY --from=IMAGE. The code of "
                "steps need not be in the image"
            )
        if _CREDENTIALS.search(self.dockerfile):
            yield "a URL in the Dockerfile contains a user or a password: configure them where the builder runs"


def is_reference(name: str) -> bool:
    """Whether a text is the name of an image."""
    return len(name) <= REFERENCE and _REFERENCE.match(name) is not None
