"""Write machine-learning pipelines as plain typed Python and run them anywhere.

from penstock import Client, context, pipeline, step

@step(retries=2)
def load(url: str) -> pd.DataFrame: ...

@step
def train(data: pd.DataFrame, depth: int = 3) -> Model:
    context().log_metric("loss", 0.1)
    ...

@pipeline
def training(url: str):
    return train(load(url))

training.local(url="data.csv")                             # in this process, for tests and debugging
Client().run(training, {"url": "https://…/data.csv"})      # on a platform

Errors: see `penstock.errors`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock import serialize
    from penstock.authoring import (
        Batch,
        Cache,
        Cron,
        Endpoint,
        Environment,
        Late,
        Notify,
        On,
        Partitions,
        Pipeline,
        Resources,
        Step,
        Webhook,
        ask,
        on_exit,
        on_failure,
        one_of,
        otherwise,
        pipeline,
        run_pipeline,
        sleep,
        sleep_until,
        step,
        wait_for_event,
        when,
    )
    from penstock.client.client import Client
    from penstock.reports import Html, Markdown
    from penstock.step_context.contexts import Context, context
    from penstock.tracking import track
    from penstock_core.errors import DefinitionError, InputError

__all__ = [
    "Batch",
    "Cache",
    "Client",
    "Context",
    "Cron",
    "DefinitionError",
    "Endpoint",
    "Environment",
    "Html",
    "InputError",
    "Late",
    "Markdown",
    "Notify",
    "On",
    "Partitions",
    "Pipeline",
    "Resources",
    "Step",
    "Webhook",
    "ask",
    "context",
    "on_exit",
    "on_failure",
    "one_of",
    "otherwise",
    "pipeline",
    "run_pipeline",
    "serialize",
    "sleep",
    "sleep_until",
    "step",
    "track",
    "wait_for_event",
    "when",
]

# Imported on first use: `penstock run` starts the platform with `penstock.client.platform` alone, before anything else,
# and a step's process needs no compiler.
_LAZY_EXPORTS = {
    "Batch": "penstock.authoring",
    "Cache": "penstock.authoring",
    "Client": "penstock.client.client",
    "Cron": "penstock.authoring",
    "Endpoint": "penstock.authoring",
    "Late": "penstock.authoring",
    "Notify": "penstock.authoring",
    "Environment": "penstock.authoring",
    "On": "penstock.authoring",
    "Partitions": "penstock.authoring",
    "Context": "penstock.step_context.contexts",
    "DefinitionError": "penstock_core.errors",
    "Html": "penstock.reports",
    "InputError": "penstock_core.errors",
    "Markdown": "penstock.reports",
    "Pipeline": "penstock.authoring",
    "Resources": "penstock.authoring",
    "Step": "penstock.authoring",
    "Webhook": "penstock.authoring",
    "ask": "penstock.authoring",
    "context": "penstock.step_context.contexts",
    "on_exit": "penstock.authoring",
    "on_failure": "penstock.authoring",
    "one_of": "penstock.authoring",
    "otherwise": "penstock.authoring",
    "pipeline": "penstock.authoring",
    "run_pipeline": "penstock.authoring",
    "serialize": "penstock.serialize",
    "sleep": "penstock.authoring",
    "sleep_until": "penstock.authoring",
    "step": "penstock.authoring",
    "track": "penstock.tracking",
    "wait_for_event": "penstock.authoring",
    "when": "penstock.authoring",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY_EXPORTS:
        raise AttributeError(f"module 'penstock' has no attribute {name!r}")
    module = importlib.import_module(_LAZY_EXPORTS[name])
    found = globals()[name] = module if name == "serialize" else getattr(module, name)
    return found


def __dir__() -> list[str]:
    return __all__
