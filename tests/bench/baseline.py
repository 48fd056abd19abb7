"""The limit program: the lower bound of a durable, isolated step on this machine.

For each step two acknowledged JetStream publishes, one after the other, and one fork whose child ends at once. Nothing
else: no results, no scheduling, no reading back.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import nats
import uvloop

from penstock_adapters.nats.server import EmbeddedServer


async def _run(steps: int) -> float:
    """Seconds for a chain of `steps`."""
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedServer(Path(folder))
        await server.start()
        client = await nats.connect(server.url)
        stream = client.jetstream()
        await stream.add_stream(name="LIMIT", subjects=["limit.>"])
        began = time.perf_counter()
        for step in range(steps):
            await stream.publish(f"limit.{step}.requested", b"{}")
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            os.waitpid(pid, 0)  # noqa: ASYNC222 - the wait is what is measured
            await stream.publish(f"limit.{step}.finished", b"{}")
        seconds = time.perf_counter() - began
        await client.close()
        await server.stop()
    return seconds


def chain(steps: int = 50) -> float:
    """Seconds a step of the limit program."""
    return uvloop.run(_run(steps)) / steps
