"""`python -P -m penstock.runner.pod`: run the attempt of this pod."""

from __future__ import annotations

import asyncio
import os
import sys

from penstock.runner import linux
from penstock.runner.pod import copy_runner
from penstock.runner.pod.link import Link, note
from penstock.runner.pod.runner import PodIdentity, identity, work_folder
from penstock.runner.pod.worker import Worker
from penstock_core import pod_protocol
from penstock_core.errors import PenstockError


def main() -> int:
    """Run the attempt; returns the exit status."""
    if sys.argv[1:] == [pod_protocol.COPY_RUNNER]:
        copy_runner.copy()
        return 0
    # The step runs as the same user: it must not read the credentials in the memory of this process.
    linux.hide_memory()
    urls = os.environ.pop(pod_protocol.NATS_URL, "")
    credential = os.environ.pop(pod_protocol.NATS_TOKEN, "")
    _hide_libraries()
    try:
        pod = identity(os.environ)
        if not urls or not credential:
            note(f"the variables {pod_protocol.NATS_URL} and {pod_protocol.NATS_TOKEN} are missing")
            return 2
        work_folder(pod)
        return asyncio.run(_run(pod, urls.split(","), credential))
    except (PenstockError, OSError) as error:
        note(f"the attempt could not be run: {error}")
        return 2


def _hide_libraries() -> None:
    """Keep the runner's own libraries from the module path of steps."""
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if pod_protocol.RUNNER_LIBRARIES in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if path != pod_protocol.RUNNER_LIBRARIES)


async def _run(pod: PodIdentity, urls: list[str], credential: str) -> int:
    link = Link(urls, credential)
    try:
        return await Worker(pod, link, lambda credential: Link(urls, credential)).run()
    finally:
        await link.close()


if __name__ == "__main__":
    sys.exit(main())
