"""Images without engines: names, the configuration of pip, and errors from what BuildKit and Docker print."""

from __future__ import annotations

import pytest

from penstock_adapters.images import build_errors
from penstock_adapters.images.build_errors import ImageBuildError
from penstock_adapters.images.environment_images import pip_config
from penstock_adapters.images.registry import ImageName, parse
from penstock_adapters.uv.command import Indexes
from penstock_core.errors import UnavailableError

DIGEST = "sha256:" + "0" * 64
BUILDKIT = """\
#5 [2/2] RUN --mount=type=cache,target=/a curl https://host
#5 0.211 curl: (7) connection refused
#5 ERROR: process "/bin/sh -c curl https://host" did not complete successfully: exit code: 7
------
 > [2/2] RUN --mount=type=cache,target=/a curl https://host:
0.211 curl: (7) connection refused
------
Dockerfile:2
--------------------
   1 |     FROM a
   2 | >>> RUN curl https://host
--------------------
error: failed to solve: process "/bin/sh -c curl https://host" did not complete successfully: exit code: 7
"""
DOCKER = """\
#6 ERROR: executor failed running [/bin/sh -c exit 3]: exit code: 3
------
 > [2/2] RUN exit 3:
------
ERROR: failed to build: failed to solve: executor failed running [/bin/sh -c exit 3]: exit code: 3
"""
CACHE = """\
#4 ERROR: failed to configure registry cache importer: host/a:buildcache: not found
------
 > importing cache manifest from host/a:buildcache:
------
error: failed to solve: failed to push host/a:1: unexpected status 403 Forbidden
"""


@pytest.mark.parametrize(
    ("printed", "kind", "message"),
    [
        (BUILDKIT, ImageBuildError, "[2/2] RUN curl https://host failed: exit code: 7\n  curl: (7) connection refused"),
        (DOCKER, ImageBuildError, "[2/2] RUN exit 3 failed: exit code: 3"),
        (CACHE, ImageBuildError, "failed to push host/a:1: unexpected status 403 Forbidden"),
        ("ERROR: Cannot connect to the Docker daemon at unix:///s. Is it running?", UnavailableError, "Docker daemon"),
        ("error: failed to solve: write /x: no space left on device", UnavailableError, "no space left"),
        ("", ImageBuildError, "it ended with exit code 1"),
    ],
)
def test_one_clear_cause(printed: str, kind: type[Exception], message: str) -> None:
    error = build_errors.error_of(printed.splitlines(), 1)
    assert type(error) is kind
    assert str(error) == message if kind is ImageBuildError else message in str(error)


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("python:3.12", ImageName("docker.io", "library/python", "3.12")),
        ("team/image", ImageName("docker.io", "team/image", "latest")),
        ("127.0.0.1:5000/a/b:1", ImageName("127.0.0.1:5000", "a/b", "1")),
        (f"registry.example/a:1@{DIGEST}", ImageName("registry.example", "a", DIGEST)),
        ("localhost/a", ImageName("localhost", "a", "latest")),
    ],
)
def test_names_of_images(name: str, parsed: ImageName) -> None:
    assert parse(name) == parsed


def test_indexes_of_the_declaration_or_of_uv() -> None:
    env = {"UV_DEFAULT_INDEX": "https://u:p@a/simple", "UV_INDEX": "own=http://b:8000/simple https://c/simple"}
    assert pip_config(Indexes(), env) == (
        "[global]\nindex-url = https://u:p@a/simple\n"
        "extra-index-url =\n    http://b:8000/simple\n    https://c/simple\ntrusted-host =\n    b:8000\n"
    )
    assert pip_config(Indexes("https://x/simple"), {"UV_INDEX_URL": "https://a"}) == (
        "[global]\nindex-url = https://x/simple\n"
    )
    assert pip_config(Indexes(), {}) == "[global]\n"
