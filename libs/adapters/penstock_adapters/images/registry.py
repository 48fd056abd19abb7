"""Digests of images in registries, by the OCI Distribution API: `HEAD /v2/{name}/manifests/{tag}`.

Credentials are those of `config.json` in the folder of `DOCKER_CONFIG`, which also the engines use.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpcore2
import orjson

from penstock_core.errors import UnavailableError

_TIMEOUT = 10.0
_ANSWER = 1024 * 1024
_ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')
_HUB = "docker.io"
_HUB_HOST = "registry-1.docker.io"


@dataclass(frozen=True, slots=True)
class ImageName:
    """The name of an image: host of the registry, repository, and tag or digest."""

    host: str
    repository: str
    version: str


def parse(name: str) -> ImageName:
    """Split the name of an image as Docker does: without a host it is on Docker Hub, without a tag `latest`."""
    first, slash, rest = name.partition("/")
    is_host = slash and ("." in first or ":" in first or first == "localhost")
    host, path = (first, rest) if is_host else (_HUB, name)
    path, at, digest = path.partition("@")
    repository, _, tag = path.partition(":")
    if host == _HUB and "/" not in repository:
        repository = f"library/{repository}"
    return ImageName(host, repository, digest if at else tag or "latest")


class Registry:
    """Reads digests.

    Args:
        insecure: the host, with its port, of a registry that is reached by HTTP; empty: none.
    """

    def __init__(self, insecure: str = "") -> None:
        self._insecure = insecure

    async def digest(self, name: str) -> str | None:
        """Return the digest of an image, as `sha256:…`; None if there is no such image.

        Raises:
            UnavailableError: the registry does not answer, or refuses the credentials.
        """
        image = parse(name)
        scheme = "http" if image.host == self._insecure else "https"
        host = _HUB_HOST if image.host == _HUB else image.host
        url = f"{scheme}://{host}/v2/{image.repository}/manifests/{image.version}"
        try:
            async with asyncio.timeout(_TIMEOUT), httpcore2.AsyncConnectionPool() as pool:
                headers = {"Accept": _ACCEPT}
                response = await pool.request("HEAD", url, headers=[*headers.items()])
                if response.status == 401:
                    credentials = _credentials(image.host)
                    authorization = await _authorize(pool, _header(response, "www-authenticate"), credentials)
                    headers["Authorization"] = authorization
                    response = await pool.request("HEAD", url, headers=[*headers.items()])
        except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException, OSError) as error:
            raise UnavailableError(
                f"the registry {image.host} does not answer: {error or type(error).__name__}"
            ) from error
        if response.status == 404:
            return None
        digest = _header(response, "docker-content-digest")
        if response.status != 200 or not _DIGEST.match(digest):
            raise UnavailableError(f"the registry {image.host} answers {response.status} about {image.repository}")
        return digest


async def _authorize(pool: httpcore2.AsyncConnectionPool, challenge: str, credentials: str) -> str:
    """Return the header `Authorization` that a registry demands: basic, or a token of its token server."""
    kind, _, rest = challenge.partition(" ")
    basic = f"Basic {credentials}"
    if kind.lower() != "bearer":
        return basic
    given = dict(_PARAMETER.findall(rest))
    realm = given.pop("realm", "")
    query = urllib.parse.urlencode({name: value for name, value in given.items() if name in ("service", "scope")})
    headers = [("Authorization", basic)] if credentials else []
    response = await pool.request("GET", f"{realm}?{query}", headers=headers)
    try:
        found = orjson.loads(response.content[:_ANSWER])
        return f"Bearer {found.get('token') or found['access_token']}"
    except (ValueError, LookupError, AttributeError):
        raise UnavailableError(f"the token server of the registry answers {response.status}") from None


def _credentials(host: str) -> str:
    """Return user and password for a registry in base64, from Docker's configuration; empty if there are none."""
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    try:
        auths: Mapping[str, Mapping[str, str]] = orjson.loads((folder / "config.json").read_bytes()).get("auths", {})
    except (OSError, ValueError, AttributeError):
        return ""
    names = ("https://index.docker.io/v1/", "index.docker.io", _HUB) if host == _HUB else (host, f"https://{host}")
    found = next((auths[name] for name in names if name in auths), {})
    if found.get("auth"):
        return found["auth"]
    plain = f"{found['username']}:{found.get('password', '')}" if found.get("username") else ""
    return base64.b64encode(plain.encode()).decode()


def _header(response: httpcore2.Response, name: str) -> str:
    return next((value.decode("latin-1") for key, value in response.headers if key.lower() == name.encode()), "")
