"""Connecting to NATS: with a token in the servers' configuration, and by the auth callout of a gateway, side by side.

    python tests/bench/nats_credentials.py [CONNECTIONS]

Prints the median and the 99th percentile of each, and their ratio. The gateway's part runs in this process, too.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

import nats
import structlog

from penstock_adapters.nats.auth import admission, keys, runner_tokens
from penstock_adapters.nats.auth.admission import Admission
from penstock_adapters.nats.auth.callout import Callout
from penstock_adapters.nats.auth.runner_tokens import AttemptClaims
from penstock_core import pod_protocol
from penstock_testkit.servers.nats import NatsServer, accounts


async def connect(url: str, token: str | None) -> float:
    """Connect and close; returns the milliseconds until the connection is usable."""
    began = time.perf_counter()
    inbox = pod_protocol.inbox(token) if token else "_INBOX.bench"
    client = await nats.connect(url, token=token, inbox_prefix=inbox, connect_timeout=2, allow_reconnect=False)
    took = time.perf_counter() - began
    await client.close()
    return 1000 * took


def text(name: str, times: list[float]) -> str:
    """One line of the report."""
    ordered = sorted(times)
    return f"{name:<24} {statistics.median(ordered):7.2f} ms median {ordered[int(len(ordered) * 0.99)]:7.2f} ms p99"


async def main(count: int, folder: Path) -> None:
    """Measure both, in turn."""
    own = accounts()
    plain = NatsServer(folder / "plain")
    asked = NatsServer(folder / "asked", credentials=own.credentials, options=own.options)
    secret = keys.derived(own.issuer, "runner tokens")

    async def admit(token: str) -> Admission:
        return admission.of_runner(runner_tokens.decode(token, secret, time.time()), token)

    address = f"nats://127.0.0.1:{asked.port}"
    login = {"nkeys_seed_str": keys.callout_user(own.issuer)}
    callout = Callout([address], login, None, own.issuer, admit, structlog.get_logger(), print)
    plain.start()
    asked.start()
    try:
        await callout.start()
        times: dict[str, list[float]] = {"token": [], "callout": []}
        for n in range(count):
            token = runner_tokens.encode(AttemptClaims("p", "r", "k", n, time.time() + 600), secret)
            times["token"].append(await connect(plain.url, None))
            times["callout"].append(await connect(address, token))
        for name, found in times.items():
            print(text(name, found))
        print(f"ratio of medians {statistics.median(times['callout']) / statistics.median(times['token']):.2f}")
        await callout.close()
    finally:
        plain.stop()
        asked.stop()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 300, Path(name)))
