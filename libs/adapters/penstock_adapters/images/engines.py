"""What builds images and pushes them: BuildKit through `buildctl`, or `docker` of a Docker-compatible engine.

Both are programs of their own, which get no variables of the platform but their configuration: the credentials of the
registry are in the folder of `DOCKER_CONFIG`, as for every client of registries.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from penstock_adapters import commands
from penstock_adapters.commands import Completed, Log
from penstock_adapters.images import build_errors
from penstock_adapters.images.build_errors import ImageBuildError
from penstock_core import step_environment

_EPOCH = "315532800"
"""Time of the files in images, 1980-01-01: the same content has the same digest whenever it is built."""

_KEPT = 400
"""Lines at the end of the output in which the failed instruction is looked for."""

_VARIABLES = ("DOCKER_CONFIG", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY", "DOCKER_CONTEXT", "BUILDKIT_HOST")


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """An image to be built and pushed.

    Attributes:
        context: folder with the `Dockerfile` and the lock.
        reference: where the image is pushed to, with a tag.
        secrets: files by the id of their mount.
        platforms: such as `linux/arm64`; empty: that of the engine.
    """

    context: Path
    reference: str
    secrets: Mapping[str, Path] = field(default_factory=dict[str, Path])
    platforms: Sequence[str] = ()


class ImageEngine(Protocol):
    """Builds images and pushes them."""

    async def build(self, build: Build, log: Log, timeout: float) -> None:
        """Build an image and push it. When this is cancelled, the engine stops.

        Raises:
            ImageBuildError: an instruction failed, or the registry refuses the image.
            UnavailableError: the engine or the registry does not answer.
        """
        ...


class BuildKit:
    """BuildKit.

    Args:
        address: of buildkitd, such as `tcp://buildkitd:1234`; empty: that of `BUILDKIT_HOST`, or its default.
        insecure: whether the registry is reached by HTTP.
        cache: name of an image in the registry that keeps the cache of builds; empty: none.
        provenance: whether images have an attestation of how they were built.
        sbom: image of a scanner that makes a list of the content (SBOM); empty: none is made.
    """

    def __init__(
        self, address: str = "", *, insecure: bool = False, cache: str = "", provenance: bool = True, sbom: str = ""
    ) -> None:
        self._address = address
        self._insecure = insecure
        self._cache = cache
        self._attestations = [
            *(["attest:provenance=mode=min"] if provenance else []),
            *([f"attest:sbom=generator={sbom}"] if sbom else []),
        ]

    async def build(self, build: Build, log: Log, timeout: float) -> None:
        """See the protocol."""
        insecure = ",registry.insecure=true" if self._insecure else ""
        options = [f"build-arg:SOURCE_DATE_EPOCH={_EPOCH}", *self._attestations]
        options += [f"platform={','.join(build.platforms)}"] if build.platforms else []
        command = [
            *("buildctl", *([f"--addr={self._address}"] if self._address else []), "build", "--progress=plain"),
            *("--frontend=dockerfile.v0", f"--local=context={build.context}", f"--local=dockerfile={build.context}"),
            *(f"--opt={option}" for option in options),
            *(f"--secret=id={name},src={path}" for name, path in build.secrets.items()),
            f"--output=type=image,name={build.reference},push=true,rewrite-timestamp=true{insecure}",
            *self._caches(insecure),
        ]
        _check(await _run(command, build.context, {}, log, timeout))

    def _caches(self, insecure: str) -> list[str]:
        if not self._cache:
            return []
        return [
            f"--import-cache=type=registry,ref={self._cache}{insecure}",
            # The image counts, not its cache.
            f"--export-cache=type=registry,ref={self._cache},ignore-error=true{insecure}",
        ]


class Docker:
    """A Docker-compatible engine.

    Args:
        address: of the engine, such as `unix:///run/podman/podman.sock`; empty: the default of `docker`.
        network: network of the instructions, as in `docker build --network`; empty: the default.
    """

    def __init__(self, address: str = "", network: str = "") -> None:
        self._env = {"DOCKER_BUILDKIT": "1"} | ({"DOCKER_HOST": address} if address else {})
        self._network = [f"--network={network}"] if network else []

    async def build(self, build: Build, log: Log, timeout: float) -> None:
        """See the protocol."""
        if len(build.platforms) > 1:
            raise ImageBuildError(
                f"images for several platforms ({', '.join(build.platforms)}) need BuildKit: set "
                "PENSTOCK_IMAGES_ENGINE=buildkit, or declare one platform"
            )
        async with asyncio.timeout(timeout):
            command = [
                *("docker", "build", "--progress=plain", f"--tag={build.reference}", *self._network),
                *(f"--platform={name}" for name in build.platforms),
                f"--build-arg=SOURCE_DATE_EPOCH={_EPOCH}",
                *(f"--secret=id={name},src={path}" for name, path in build.secrets.items()),
                str(build.context),
            ]
            _check(await _run(command, build.context, self._env, log, timeout))
            _check(await _run(["docker", "push", "--quiet", build.reference], build.context, self._env, log, timeout))


async def _run(command: Sequence[str], folder: Path, env: Mapping[str, str], log: Log, timeout: float) -> Completed:
    base = os.environ
    given = {name: base[name] for name in _VARIABLES if name in base}
    variables = {**step_environment.inherited(base), **given, **env}
    return await commands.run(command, folder, variables, log, timeout, kept=_KEPT)


def _check(done: Completed) -> None:
    if done.code != 0:
        raise build_errors.error_of(done.lines, done.code)
