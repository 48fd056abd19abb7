"""The Dockerfile of an environment: a pure function of its lock and its options.

The distributions go into a virtual environment of their own, so that steps have what the lock says and nothing that the
base image happens to contain. Neither the code nor the runner is part of the image: both come with the attempt. So
neither an edit of the code nor an update of Penstock builds anything.

URLs of package indexes may contain credentials. They are in a secret mount, in no layer and not in the history.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from penstock_core.environments.image_options import ImageOptions
from penstock_core.environments.lock import EnvironmentLock

FOLDER = "/opt/environment"
"""Folder of the virtual environment in the image."""

LOCK = "lock.txt"
"""Name of the lock in the build context."""

PIP_CONFIG, NETRC = "pip", "netrc"
"""Ids of the secrets: a configuration of pip with the package indexes, and a `.netrc` file."""

USER = 65532
"""User of the processes. Pods set their own."""

_SYSTEM = (
    "RUN --mount=type=cache,id=penstock-apt-cache,target=/var/cache/apt,sharing=locked "
    "--mount=type=cache,id=penstock-apt-lists,target=/var/lib/apt,sharing=locked "
    "apt-get update && apt-get install -y --no-install-recommends {packages}"
)
_INSTALL = (
    "RUN --mount=type=cache,id=penstock-pip,target=/root/.cache/pip "
    f"--mount=type=bind,source={LOCK},target=/tmp/{LOCK} "
    f"--mount=type=secret,id={PIP_CONFIG},target=/root/pip.conf --mount=type=secret,id={NETRC},target=/root/.netrc "
    "HOME=/root PIP_CONFIG_FILE=/root/pip.conf PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore "
    f"python3 -m pip --python {FOLDER}/bin/python install --no-deps --no-compile --require-hashes -r /tmp/{LOCK} "
    # Distributions may contain files for other versions of Python, which cannot be compiled.
    f"&& {{ {FOLDER}/bin/python -m compileall -q --invalidation-mode unchecked-hash {FOLDER}/lib || true; }}"
)
_VENV = (
    'RUN python3 -c \'import sys; found = "%d.%d" % sys.version_info[:2]; '
    'sys.exit(0 if found == "{python}" else "the base image has Python " + found + ", not {python}")\' '
    f"&& python3 -m venv --without-pip {FOLDER}"
)


def text(lock: EnvironmentLock, options: ImageOptions, base: str) -> str:
    """Return the Dockerfile.

    Args:
        lock: of the environment. Without distributions, an own Dockerfile is used as it is.
        options: the options of the declaration.
        base: the image to start from; not used with an own Dockerfile.
    """
    lines = [options.dockerfile.rstrip()] if options.dockerfile else [f"FROM {base}"]
    if options.system:
        lines += ["USER 0", _SYSTEM.format(packages=" ".join(sorted(set(options.system))))]
    if lock.packages:
        lines += [
            "USER 0",
            _VENV.format(python=lock.python),
            _INSTALL,
            f"ENV PATH={FOLDER}/bin:$PATH VIRTUAL_ENV={FOLDER}",
        ]
    if options.system or lock.packages:
        lines.append(f"USER {USER}:{USER}")
    return "\n".join(lines) + "\n"


def digest(dockerfile: str, lock: EnvironmentLock, platforms: Sequence[str]) -> str:
    """Return the SHA-256 of everything that an image is made from: an image with this tag need not be made again."""
    parts = [1, dockerfile, lock.text(), sorted(set(platforms))]
    return hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode()).hexdigest()
