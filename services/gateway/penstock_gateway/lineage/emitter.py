"""Sends the lineage of finished runs to an OpenLineage service, if one is configured.

In: the ends of runs. Out: the events of `openlineage`, over HTTP. All gateways share a durable consumer; a run is
acknowledged when the service has accepted all its events, so a service that was unavailable gets them later.
`openlineage-python` is imported only when a service is configured.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from penstock_adapters.nats.bootstrap import declare_consumer
from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.consumer import Delivery
from penstock_contracts import subjects
from penstock_core.errors import PenstockError, UnavailableError
from penstock_servicekit.durable_worker import DurableWorker
from penstock_servicekit.service_context import ServiceContext

if TYPE_CHECKING:
    from openlineage.client import OpenLineageClient

    from penstock_gateway.runs.run_states import RunStates

_PREFETCH = 20
_TIMEOUT = 10.0
_ACK_WAIT = 120.0
_PAUSE = 30.0
"""Seconds until the lineage of a run is sent again that the service did not accept."""


class OpenLineageUnavailableError(PenstockError):
    """`openlineage-python` is not installed, or the URL is invalid."""


class LineageEmitter:
    """Sends events, run by run, while it runs.

    Args:
        context: of the gateway.
        states: of runs.
        url: of the OpenLineage service.
        key: API key of the service.

    Raises:
        OpenLineageUnavailableError: `openlineage-python` is not installed, or the URL is invalid.
    """

    def __init__(self, context: ServiceContext, states: RunStates, url: str, key: str | None = None) -> None:
        self._context = context
        self._bus: Bus = context.bus
        self._states = states
        self._client = _client(url, key)
        self._worker = DurableWorker(
            context, subjects.RUNS, subjects.LINEAGE_CONSUMER, self._emit, prefetch=_PREFETCH, retry_delay=_PAUSE
        )

    async def start(self) -> None:
        """Start to send the lineage of runs: the first time, of runs that finish from now on."""
        await declare_consumer(
            self._bus,
            subjects.RUNS,
            {
                "durable_name": subjects.LINEAGE_CONSUMER,
                "filter_subject": subjects.RUNS_FINISHED,
                "deliver_policy": "new",
                "ack_policy": "explicit",
                "ack_wait": int(_ACK_WAIT * 1e9),
                "max_ack_pending": 100,
            },
        )
        self._worker.start()

    async def close(self) -> None:
        """Stop. Lineage that is not sent yet is sent by another gateway, or later."""
        await self._worker.stop()

    async def _emit(self, delivery: Delivery) -> None:
        """Send the events of one run.

        Raises:
            UnavailableError: the OpenLineage service did not take one of them.
        """
        from penstock_gateway.lineage import openlineage

        run_id = delivery.subject.split(".")[2]
        folded = await self._states.get(run_id)
        if folded is None or folded.state.finished is None:
            return  # deleted meanwhile
        if folded.requested.shadow:
            return  # the data of others is not made by it
        events = openlineage.events(folded.state, folded.requested_at, folded.finished_at or delivery.at)
        for event in events:
            try:
                await asyncio.wait_for(asyncio.to_thread(self._client.emit, event), _TIMEOUT + 5)
            except Exception as error:  # the library raises those of its HTTP client
                raise UnavailableError(f"lineage not sent: {type(error).__name__}: {error}") from error


def _client(url: str, key: str | None) -> OpenLineageClient:
    try:
        from openlineage.client import OpenLineageClient
    except ImportError as error:
        raise OpenLineageUnavailableError(
            "PENSTOCK_OPENLINEAGE_URL is set, and openlineage-python is not installed: "
            "pip install openlineage-python, or unset it"
        ) from error
    transport: dict[str, object] = {"type": "http", "url": url, "timeout": _TIMEOUT}
    if key:
        transport["auth"] = {"type": "api_key", "apiKey": key}
    try:
        return OpenLineageClient(config={"transport": transport})
    except ValueError as error:
        raise OpenLineageUnavailableError(f"PENSTOCK_OPENLINEAGE_URL {url!r} cannot be used: {error}") from error
