"""Inputs of runs that refer to registered models, resolved when the run is requested.

So a run records which version it used, the cache key has the content of the model, and lineage includes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock_contracts.commands import Version
from penstock_core import requests
from penstock_core.facts import RunRequested
from penstock_core.requests import Inputs
from penstock_gateway.registry.model_registry import Registry


async def resolve(
    models: Registry, version: Version, given: Mapping[str, Any], earlier: RunRequested | None = None
) -> Inputs:
    """Return the inputs of a run of a version, with references to registered models resolved.

    Args:
        models: the registered models.
        version: of the pipeline.
        given: JSON values by parameter.
        earlier: the request of an earlier run, for parameters that are not given.
    """
    names = requests.model_references(version.pipeline.params, given)
    resolved = await models.log.resolve(models.project, names)
    if earlier is None:
        return Inputs(given=given, models=resolved)
    return Inputs(given=given, earlier=earlier.inputs, earlier_models=earlier.models, models=resolved)
