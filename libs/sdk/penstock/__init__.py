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

from penstock.authoring import Pipeline, Resources, Step, pipeline, step
from penstock.contexts import Context, context
from penstock_core.errors import DefinitionError, InputError

if TYPE_CHECKING:
    from penstock import serialize
    from penstock.client import Client

__all__ = [
    "Client",
    "Context",
    "DefinitionError",
    "InputError",
    "Pipeline",
    "Resources",
    "Step",
    "context",
    "pipeline",
    "serialize",
    "step",
]

# What not every user of the package needs is imported when it is first asked for: `import penstock` must be quick.
_LATE = {"Client": "penstock.client", "serialize": "penstock.serialize"}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module 'penstock' has no attribute {name!r}")
    module = importlib.import_module(_LATE[name])
    return module if name == "serialize" else getattr(module, name)
