"""Write machine-learning pipelines as plain typed Python and run them anywhere.

from penstock import context, pipeline, step

@step(retries=2)
def load(url: str) -> pd.DataFrame: ...

@step
def train(data: pd.DataFrame, depth: int = 3) -> Model:
    context().log_metric("loss", 0.1)
    ...

@pipeline
def training(url: str):
    return train(load(url))
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock import serialize
    from penstock.authoring import Pipeline, Resources, Step, pipeline, step
    from penstock.client import Client
    from penstock.contexts import Context, context
    from penstock.reports import Html, Markdown
    from penstock_core.errors import DefinitionError, InputError

__all__ = [
    "Client",
    "Context",
    "DefinitionError",
    "Html",
    "InputError",
    "Markdown",
    "Pipeline",
    "Resources",
    "Step",
    "context",
    "pipeline",
    "serialize",
    "step",
]

# Everything is imported when it is first asked for: `penstock run` starts the platform with `penstock.platform` alone,
# before anything else, and a step's process needs no compiler.
_LATE = {
    "Client": "penstock.client",
    "Context": "penstock.contexts",
    "DefinitionError": "penstock_core.errors",
    "Html": "penstock.reports",
    "InputError": "penstock_core.errors",
    "Markdown": "penstock.reports",
    "Pipeline": "penstock.authoring",
    "Resources": "penstock.authoring",
    "Step": "penstock.authoring",
    "context": "penstock.contexts",
    "pipeline": "penstock.authoring",
    "serialize": "penstock.serialize",
    "step": "penstock.authoring",
}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module 'penstock' has no attribute {name!r}")
    module = importlib.import_module(_LATE[name])
    found = globals()[name] = module if name == "serialize" else getattr(module, name)
    return found
