"""Sets up attempts in pods: the Argo executor, and the answers to its runners."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from penstock_adapters.argo import checks
from penstock_adapters.argo import config as argo_config
from penstock_adapters.argo.api import KubernetesApi
from penstock_adapters.argo.executor import ArgoExecutor
from penstock_executor.pod_platform import PodPlatform
from penstock_executor.pods import PodRequests
from penstock_executor.service import ExecutorService
from penstock_executor.settings import ExecutorSettings
from penstock_servicekit.service_context import ServiceContext

CHECK_INTERVAL = 60.0
"""Seconds between two checks of the cluster."""


async def start(
    context: ServiceContext,
    settings: ExecutorSettings,
    service: ExecutorService,
    platform: PodPlatform,
    warn: Callable[..., None],
) -> list[Coroutine[Any, Any, None]]:
    """Connect to the cluster and answer runners; returns the loops that watch the cluster and check it.

    Raises:
        ArgoConfigError: the configuration of the pods is missing or invalid.
        ApiError: no cluster is configured.
    """
    config = argo_config.load(settings.argo_config)
    api = await KubernetesApi.connect()
    executor = ArgoExecutor(
        context.name,
        settings.pool,
        service,
        service.has,
        service.runner,
        platform.ended,
        platform.show_waiting,
        platform.image,
        api,
        config,
        settings.lease,
        warn,
    )
    service.use(executor)
    pods = PodRequests(
        context.bus,
        settings.pool,
        service,
        executor,
        lambda attempt: platform.supplies(attempt, check_environment=config.check_environment),
        platform.secrets.given,
        settings.unsafe_allowed,
        settings.grace,
        settings.lease,
        warn,
    )
    await pods.start()

    async def check() -> None:
        while True:
            problems = await checks.problems(api, config, settings.pool)
            for problem in problems:
                warn("problem with the cluster", problem=problem)
            platform.lease.announce(problems)
            await asyncio.sleep(CHECK_INTERVAL)

    return [executor.run(), check()]
