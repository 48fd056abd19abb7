"""Makes the image of an environment, unless the registry has it.

In: a lock and the options of its declaration. Out: the image's name with its digest.

Promises: the tag of an image is the digest of everything that it is made from, so that requests for equal images, also
by several clients, cost one build. No secret is in the build context, the Dockerfile, the log or the image.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from penstock_adapters.commands import Log
from penstock_adapters.images.build_errors import ImageBuildError
from penstock_adapters.images.engines import Build, ImageEngine
from penstock_adapters.images.registry import Registry
from penstock_adapters.uv.command import Indexes
from penstock_core.environments import dockerfile
from penstock_core.environments.image_options import ImageOptions
from penstock_core.environments.lock import EnvironmentLock
from penstock_core.errors import UnavailableError


class EnvironmentImages:
    """Images in one repository of a registry.

    Args:
        engine: builds and pushes them.
        registry: reads digests.
        repository: name of the images, such as `registry.example/team/environments`.
        base: default base; `{python}` in it becomes the minor version of Python.
        platforms: default platforms; empty: that of the engine.
        timeout: seconds until a build is given up.
    """

    def __init__(
        self,
        engine: ImageEngine,
        registry: Registry,
        repository: str,
        base: str,
        platforms: Sequence[str],
        timeout: float,
    ) -> None:
        self._engine = engine
        self._registry = registry
        self._repository = repository
        self._base = base
        self._platforms = platforms
        self._timeout = timeout
        self._locks: dict[str, asyncio.Lock] = {}

    async def make(self, lock: EnvironmentLock, options: ImageOptions, indexes: Indexes, log: Log) -> str:
        """Return the image of an environment as `NAME@sha256:…`; build it if the registry does not have it.

        Raises:
            ImageBuildError: it cannot be built; with the failed instruction and its last lines.
            UnavailableError: the engine or the registry does not answer.
        """
        if options.image:
            return options.image
        base = "" if options.dockerfile else await self._pinned(options.base or self._default_base(lock), log)
        text = dockerfile.text(lock, options, base)
        platforms = options.platforms or self._platforms
        reference = f"{self._repository}:{dockerfile.digest(text, lock, platforms)}"
        async with self._locks.setdefault(reference, asyncio.Lock()):
            try:
                return await self._make(text, lock, reference, platforms, indexes, log)
            finally:
                self._locks.pop(reference, None)

    async def _make(
        self,
        text: str,
        lock: EnvironmentLock,
        reference: str,
        platforms: Sequence[str],
        indexes: Indexes,
        log: Log,
    ) -> str:
        if (digest := await self._registry.digest(reference)) is not None:
            log(f"the registry has the image {reference}")
            return f"{self._repository}@{digest}"
        log(f"building the image {reference}")
        with (
            tempfile.TemporaryDirectory(prefix="penstock-image-") as context,
            tempfile.TemporaryDirectory(prefix="penstock-secrets-") as secrets,
        ):
            (Path(context) / "Dockerfile").write_text(text, encoding="utf-8")
            (Path(context) / dockerfile.LOCK).write_text(lock.text(), encoding="utf-8")
            build = Build(
                context=Path(context),
                reference=reference,
                secrets=_secrets(Path(secrets), indexes, os.environ),
                platforms=platforms,
            )
            try:
                await self._engine.build(build, log, self._timeout)
            except TimeoutError:
                raise ImageBuildError(
                    f"the image was not built in {self._timeout:g} s (PENSTOCK_BUILD_TIMEOUT)"
                ) from None
        if (digest := await self._registry.digest(reference)) is None:
            raise UnavailableError(f"the registry does not have the image {reference} after it was pushed")
        return f"{self._repository}@{digest}"

    def _default_base(self, lock: EnvironmentLock) -> str:
        return self._base.replace("{python}", lock.python)

    async def _pinned(self, base: str, log: Log) -> str:
        """Return a base with its digest, so that a newer image of that name makes a new image."""
        if "@" in base:
            return base
        try:
            digest = await self._registry.digest(base)
        except UnavailableError as error:
            log(f"the base image is used by its name, as its digest is unknown: {error}")
            return base
        if digest is None:
            log(f"the base image is used by its name, as its registry does not have it: {base}")
            return base
        return f"{base}@{digest}"


def _secrets(folder: Path, indexes: Indexes, env: Mapping[str, str]) -> dict[str, Path]:
    """Write the files that only the installation sees: indexes with their credentials, and `.netrc`."""
    pip = folder / "pip.conf"
    pip.touch(0o600)
    pip.write_text(pip_config(indexes, env), encoding="utf-8")
    netrc = Path(env.get("NETRC") or Path(env.get("HOME", "/")) / ".netrc")
    return {dockerfile.PIP_CONFIG: pip} | ({dockerfile.NETRC: netrc} if netrc.is_file() else {})


def pip_config(indexes: Indexes, env: Mapping[str, str]) -> str:
    """Return a configuration of pip with the indexes of a declaration, or else those that uv uses here."""
    index = indexes.index or env.get("UV_DEFAULT_INDEX") or env.get("UV_INDEX_URL") or ""
    own = f"{env.get('UV_INDEX', '')} {env.get('UV_EXTRA_INDEX_URL', '')}".split()
    # uv allows names: NAME=URL.
    extra = [*indexes.extra, *(url.partition("=")[2] if "=" in url.partition("://")[0] else url for url in own)]
    lines = ["[global]"]
    if index:
        lines.append(f"index-url = {index}")
    if extra:
        lines.append("extra-index-url =" + "".join(f"\n    {url}" for url in extra))
    # Every file has a hash in the lock, so an index without TLS can replace nothing.
    hosts = sorted({urlsplit(url).netloc.rpartition("@")[2] for url in (index, *extra) if url.startswith("http://")})
    if hosts:
        lines.append("trusted-host =" + "".join(f"\n    {host}" for host in hosts))
    return "\n".join(lines) + "\n"
