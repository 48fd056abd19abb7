"""Inputs of runs that name registered models: pinned, when the run is asked for, to the artifact that is meant now.

So a run says for ever which version it had, results are cached by its content, and lineage knows it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from penstock_core.errors import InvalidIdError
from penstock_core.pipeline.ir import Port
from penstock_core.registry.errors import NotFoundError
from penstock_core.registry.references import named, parse
from penstock_gateway.http.problems import InvalidInputsError
from penstock_gateway.registry.model_registry import Registry


def names(params: Sequence[Port], given: Mapping[str, Any]) -> dict[str, str]:
    """The models that inputs name, by input."""
    schemas = {port.name: port.schema for port in params}
    found = {name: named(value, schemas[name]) for name, value in given.items() if name in schemas}
    return {name: text for name, text in found.items() if text is not None}


async def pinned(registry: Registry, params: Sequence[Port], given: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs, where those that name a model name its artifact instead.

    Raises:
        InvalidInputs: names the inputs whose model is not there.
    """
    found = dict(given)
    errors: list[tuple[str, str]] = []
    for name, text in names(params, given).items():
        try:
            version = await registry.find(parse(text))
            found[name] = {"artifact": dataclasses.asdict(version.artifact)}
        except (InvalidIdError, NotFoundError) as error:
            errors.append((f"inputs.{name[:100]}", f"names no registered model: {error}"))
    if errors:
        raise InvalidInputsError("An input names a model that is not there", errors)
    return found
